//! One vCPU: its registers, and what the engine keeps with them.

use std::hash::{Hash, Hasher};

use guestmem::GuestMemory;
use vcpu::{CpuMode, Exit};
use x86defs::{cpuid, cr, dr, rflags, segment as attr};

use crate::cpuid::CpuidTable;
use crate::debug::DebugState;
use crate::features::Features;
use crate::flags::Flags;
use crate::mmu::RegionCache;
use crate::msr::Msrs;
use crate::op::{Answer, REGISTER_SLOTS, Stop};
use crate::pmu::{Meter, Pmu};
use crate::segment::{CS, DS, ES, SS, Segment, TR, Table};
use crate::tlb::{MmuIndex, Tlb};
use crate::vector::available::Available;
use crate::vector::state::VectorState;
use crate::x87::state::Fpu;

/// What the silicon beneath the guest is. It decides which hypercall instruction exists and where vendors differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostVendor {
    /// VMCALL exits, VMMCALL is #UD.
    Intel,
    /// VMMCALL exits, VMCALL is #UD.
    Amd,
    /// No virtualization: both are #UD.
    Lguest,
}

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Executing instructions.
    Running,
    /// In HLT.
    Halted,
    /// After INIT, before SIPI.
    WaitForSipi,
    /// After a triple fault.
    Shutdown,
}

/// A sleep like HLT's that any interrupt ends which the local APIC would deliver, whether IF lets it through or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Doze {
    /// None.
    #[default]
    No,
    /// It begins behind the instruction that is being executed.
    Asked,
    /// It has begun.
    Asleep,
}

/// An exception on its way to delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Vector.
    pub vector: u8,
    /// Error code of the vectors that have one.
    pub error_code: Option<u32>,
    /// What goes to CR2 with #PF, to DR6 (as bits to set) with #DB.
    pub payload: u64,
}

/// How decoded code depends on the state of the CPU: part of the key under which blocks are cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CodeMode(pub u8);

impl CodeMode {
    /// Mask of the code width: 0 is 16-bit, 1 is 32-bit, 2 is 64-bit.
    const WIDTH: u8 = 3;
    /// DS, ES and SS are flat: offsets are linear addresses.
    const FLAT_DATA: u8 = 1 << 2;
    /// CS is flat.
    const FLAT_CODE: u8 = 1 << 3;
    /// Real or virtual-8086 mode.
    const REAL: u8 = 1 << 4;
    /// The stack pointer is ESP (SS.B); in 64-bit mode it is always RSP.
    const STACK32: u8 = 1 << 5;

    /// Code width in bits: 16, 32 or 64.
    pub fn bits(self) -> u32 {
        16 << (self.0 & Self::WIDTH)
    }
    /// 64-bit mode.
    pub fn is_64(self) -> bool {
        self.0 & Self::WIDTH == 2
    }
    /// Offsets in DS, ES and SS are linear addresses.
    pub fn flat_data(self) -> bool {
        self.0 & Self::FLAT_DATA != 0
    }
    /// EIP is a linear address.
    pub fn flat_code(self) -> bool {
        self.0 & Self::FLAT_CODE != 0
    }
    /// Real or virtual-8086 mode.
    pub fn is_real(self) -> bool {
        self.0 & Self::REAL != 0
    }
    /// Width of the stack pointer in bits.
    pub fn stack_bits(self) -> u32 {
        if self.is_64() {
            64
        } else if self.0 & Self::STACK32 != 0 {
            32
        } else {
            16
        }
    }
}

/// What was answered to the instruction that is being restarted, in the order of its questions.
#[derive(Debug, Default)]
pub struct Replay {
    log: Vec<Answer>,
    next: usize,
    /// RIP of the instruction that asked; if it is another one now, the answers are void.
    pub rip: u64,
    /// An exit is waiting for its answer, or has it and the instruction was not yet restarted.
    pub pending: bool,
}

impl Replay {
    /// The most bus accesses one instruction may make (a full FXSAVE area in device memory is 512/8).
    const LIMIT: usize = 1024;

    /// The next recorded answer, if this question was asked before.
    pub fn take(&mut self) -> Option<Answer> {
        let answer = self.log.get(self.next).copied();
        self.next += usize::from(answer.is_some());
        answer
    }
    /// Record the answer to a question just asked.
    pub fn record(&mut self, answer: Answer) {
        if self.log.len() < Self::LIMIT {
            self.log.push(answer);
            self.next = self.log.len();
        }
    }
    /// Record the answer that comes from above, for the restart.
    pub fn answer(&mut self, answer: Answer) {
        self.log.push(answer);
    }
    /// The instruction starts again from its first question.
    pub fn rewind(&mut self) {
        self.next = 0;
    }
    /// The instruction has retired, faulted or was abandoned.
    pub fn clear(&mut self) {
        self.log.clear();
        self.next = 0;
        self.pending = false;
    }
}

/// One vCPU.
pub struct Cpu {
    /// Index in the machine.
    pub index: usize,
    /// The sixteen general registers, then the slots that [`crate::op`] names.
    pub regs: [u64; REGISTER_SLOTS],
    /// Instruction pointer, as an offset in CS. Exact between instructions, in careful execution and in ops that stand
    /// alone; inside a block it is that of the block's start.
    pub rip: u64,
    /// The arithmetic flags.
    pub flags: Flags,
    /// RFLAGS without the arithmetic flags. Change it through [`Cpu::set_rflags`].
    pub system_flags: u64,
    /// ES, CS, SS, DS, FS, GS, LDTR, TR. Change CS and SS with [`Cpu::mode_changed`] afterwards.
    pub segs: [Segment; 8],
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// CR0. Change with [`Cpu::mode_changed`] afterwards, as the next three.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// The four page-directory-pointer entries of PAE paging, as they were when CR3 was loaded.
    pub pdptes: [u64; 4],
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
    /// PKRU.
    pub pkru: u32,
    /// x87.
    pub fpu: Fpu,
    /// SSE and AVX.
    pub vector: VectorState,
    /// Current privilege level.
    pub cpl: u8,
    /// DR0–DR7 and what follows from them.
    pub debug: DebugState,
    /// MSRs that the core owns.
    pub msrs: Msrs,
    /// Performance counters.
    pub pmu: Pmu,
    /// What they count.
    pub meter: Meter,
    /// Virtual time that it has been running, in ns.
    pub run_ns: u64,
    /// Guest TSC minus reference TSC.
    pub tsc_offset: u64,

    /// What the guest's CPUID says.
    pub cpuid: CpuidTable,
    /// CPUID exits.
    pub intercept_cpuid: bool,
    /// What follows from it.
    pub features: Features,
    /// The silicon.
    pub host: HostVendor,

    /// Running, halted, ...
    pub activity: Activity,
    /// HLT returns at once: a kick came before it.
    pub kicked: bool,
    /// A sleep that an interface above has asked for.
    pub doze: Doze,
    /// What the hypercall that is being made leaves it in, unless it goes on.
    pub activity_after_call: Option<Activity>,
    /// STI or MOV SS: events are held off until the next instruction has retired.
    pub interrupt_shadow: bool,
    /// The shadow is that of MOV SS or POP SS, which also holds off debug traps.
    pub shadow_is_mov_ss: bool,
    /// An NMI handler runs (until IRET).
    pub nmi_blocked: bool,

    /// How code is decoded now.
    pub mode: CodeMode,
    /// Which vector instructions can be executed now.
    pub available: Available,
    /// Whose rights data accesses have now.
    pub mmu_index: MmuIndex,
    /// Translations.
    pub tlb: Tlb,
    /// What translations were made from.
    pub regions: RegionCache,
    /// RAM.
    pub mem: GuestMemory,

    /// Valid after [`Stop::Fault`].
    pub fault: Fault,
    /// Valid after [`Stop::Exit`].
    pub exit: Exit,
    /// Bus accesses are allowed: the instruction runs by itself.
    pub careful: bool,
    /// A store hit decoded code: the block must end behind this instruction.
    pub code_written: bool,
    /// Answers to the instruction being restarted.
    pub replay: Replay,
}

impl Cpu {
    /// A vCPU in its reset state.
    pub fn new(index: usize, mem: GuestMemory, host: HostVendor) -> Self {
        let mut cpu = Self {
            index,
            regs: [0; REGISTER_SLOTS],
            rip: 0,
            flags: Flags::default(),
            system_flags: 0,
            segs: [Segment::default(); 8],
            gdtr: Table::default(),
            idtr: Table::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            pdptes: [0; 4],
            cr4: 0,
            efer: 0,
            xcr0: 1,
            pkru: 0,
            fpu: Fpu::default(),
            vector: VectorState::default(),
            cpl: 0,
            debug: DebugState::default(),
            msrs: Msrs::default(),
            pmu: Pmu::default(),
            meter: Meter::default(),
            run_ns: 0,
            tsc_offset: 0,
            cpuid: CpuidTable::default(),
            intercept_cpuid: false,
            features: Features::default(),
            host,
            activity: if index == 0 { Activity::Running } else { Activity::WaitForSipi },
            kicked: false,
            doze: Doze::default(),
            activity_after_call: None,
            interrupt_shadow: false,
            shadow_is_mov_ss: false,
            nmi_blocked: false,
            mode: CodeMode::default(),
            available: Available::default(),
            mmu_index: MmuIndex::Supervisor,
            tlb: Tlb::default(),
            regions: RegionCache::default(),
            mem,
            fault: Fault { vector: 0, error_code: None, payload: 0 },
            exit: Exit::Budget,
            careful: false,
            code_written: false,
            replay: Replay::default(),
        };
        cpu.reset();
        cpu
    }

    /// RESET: SDM vol. 3 table 9-1.
    pub fn reset(&mut self) {
        self.init();
        self.cr0 = cr::CR0_ET | cr::CR0_CD | cr::CR0_NW;
        self.xcr0 = 1;
        self.pkru = 0;
        self.fpu = Fpu::default();
        self.vector = VectorState::default();
        self.msrs = Msrs::default();
        self.pmu = Pmu::default();
        self.tsc_offset = 0;
        self.activity = if self.index == 0 { Activity::Running } else { Activity::WaitForSipi };
        self.mode_changed();
    }

    /// INIT: as RESET, but caches' control bits, x87/SSE state and most MSRs stay. The caller sets `activity`.
    pub fn init(&mut self) {
        self.regs = [0; REGISTER_SLOTS];
        self.regs[2] = u64::from(self.cpuid.signature());
        self.rip = 0xFFF0;
        self.flags.set_bits(0);
        self.system_flags = rflags::FIXED;
        self.segs = [Segment::real(0); 8];
        self.segs[usize::from(CS)] = Segment { base: 0xFFFF_0000, ..Segment::real(0xF000) };
        self.segs[usize::from(CS)].attributes |= attr::CODE;
        self.segs[6] = Segment { attributes: attr::P | attr::system::LDT, ..Segment::real(0) };
        self.segs[usize::from(TR)] = Segment { attributes: attr::P | attr::system::TSS_BUSY, ..Segment::real(0) };
        self.gdtr = Table { base: 0, limit: 0xFFFF };
        self.idtr = Table { base: 0, limit: 0xFFFF };
        self.cr0 = cr::CR0_ET | self.cr0 & (cr::CR0_CD | cr::CR0_NW);
        self.cr2 = 0;
        self.cr3 = 0;
        self.pdptes = [0; 4];
        self.cr4 = 0;
        self.efer = 0;
        self.cpl = 0;
        self.debug = DebugState::default();
        debug_assert_eq!(self.debug.dr6(), dr::DR6_INIT);
        self.kicked = false;
        self.doze = Doze::default();
        self.interrupt_shadow = false;
        self.activity_after_call = None;
        self.shadow_is_mov_ss = false;
        self.nmi_blocked = false;
        self.replay.clear();
        self.mode_changed();
    }

    /// Bring what is derived from CR0, CR3, CR4, EFER, CS, SS, CPL and RFLAGS.VM up to date, and forget translations.
    pub fn mode_changed(&mut self) {
        self.tlb.flush();
        self.availability_changed();
        self.segments_changed();
    }

    /// Bring what is derived from segment registers, CPL, RFLAGS.VM and RFLAGS.AC up to date.
    #[inline]
    pub fn segments_changed(&mut self) {
        let seg = |number: u8| &self.segs[usize::from(number)];
        let real = self.cr0 & cr::CR0_PE == 0 || self.system_flags & rflags::VM != 0;
        let long = self.efer & cr::EFER_LMA != 0;
        let cs = seg(CS);
        let mut mode = if long && cs.attributes & attr::L != 0 {
            2
        } else {
            u8::from(self.system_flags & rflags::VM == 0 && cs.attributes & attr::DB != 0)
        };
        if mode == 2 || (seg(DS).is_flat(false) && seg(ES).is_flat(false) && seg(SS).is_flat(false)) {
            mode |= CodeMode::FLAT_DATA;
        }
        if mode & 3 == 2 || cs.is_flat(true) {
            mode |= CodeMode::FLAT_CODE;
        }
        if real {
            mode |= CodeMode::REAL;
        }
        if seg(SS).attributes & attr::DB != 0 {
            mode |= CodeMode::STACK32;
        }
        self.mode = CodeMode(mode);
        self.rights_changed();
    }

    /// Bring [`Cpu::mmu_index`] up to date after a change of CPL, RFLAGS.AC, CR0, CR4 or DR7.
    #[inline]
    pub fn rights_changed(&mut self) {
        let ac = self.system_flags & rflags::AC != 0;
        let alignment_checked = self.cpl == 3 && ac && self.cr0 & cr::CR0_AM != 0;
        self.mmu_index = if alignment_checked || self.debug.watches_data() {
            MmuIndex::Checked
        } else if self.cpl == 3 {
            MmuIndex::User
        } else if self.cr4 & cr::CR4_SMAP != 0 && !ac {
            MmuIndex::SupervisorSmap
        } else {
            MmuIndex::Supervisor
        };
    }

    /// All of RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.flags.bits() | self.system_flags
    }

    /// Replace all of RFLAGS (without any check of privilege) and what follows from it.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags.set_bits(value);
        let old = self.system_flags;
        self.system_flags = value & rflags::IMPLEMENTED & !rflags::ARITHMETIC | rflags::FIXED;
        if (old ^ self.system_flags) & (rflags::VM | rflags::AC) != 0 {
            self.segments_changed();
        }
    }

    /// Long mode is active (64-bit or compatibility).
    #[inline]
    pub fn long_mode(&self) -> bool {
        self.efer & cr::EFER_LMA != 0
    }

    /// Protected mode, not virtual-8086 mode.
    #[inline]
    pub fn protected(&self) -> bool {
        !self.mode.is_real()
    }

    /// The mode by its name.
    pub fn cpu_mode(&self) -> CpuMode {
        if self.cr0 & cr::CR0_PE == 0 {
            CpuMode::Real
        } else if self.system_flags & rflags::VM != 0 {
            CpuMode::Virtual8086
        } else {
            match (self.long_mode(), self.mode.bits()) {
                (_, 64) => CpuMode::Long64,
                (true, 32) => CpuMode::Compatibility32,
                (true, _) => CpuMode::Compatibility16,
                (false, 32) => CpuMode::Protected32,
                (false, _) => CpuMode::Protected16,
            }
        }
    }

    /// A segment register.
    #[inline]
    pub fn seg(&self, number: u8) -> &Segment {
        &self.segs[usize::from(number) % 8]
    }

    /// Linear address of RIP.
    #[inline]
    pub fn linear_rip(&self) -> u64 {
        if self.mode.is_64() { self.rip } else { u64::from((self.seg(CS).base as u32).wrapping_add(self.rip as u32)) }
    }

    /// Record an exception without error code: `return Err(cpu.raise(vector::UD))`.
    #[cold]
    pub fn raise(&mut self, vector: u8) -> Stop {
        self.fault = Fault { vector, error_code: None, payload: 0 };
        Stop::Fault
    }

    /// Record an exception with an error code.
    #[cold]
    pub fn raise_with(&mut self, vector: u8, error_code: u32) -> Stop {
        self.fault = Fault { vector, error_code: Some(error_code), payload: 0 };
        Stop::Fault
    }

    /// #GP(0).
    #[cold]
    pub fn gp0(&mut self) -> Stop {
        self.raise_with(x86defs::vector::GP, 0)
    }

    /// #UD.
    #[cold]
    pub fn ud(&mut self) -> Stop {
        self.raise(x86defs::vector::UD)
    }

    /// #PF.
    #[cold]
    pub fn page_fault(&mut self, linear: u64, error_code: u32) -> Stop {
        self.fault = Fault { vector: x86defs::vector::PF, error_code: Some(error_code), payload: linear };
        Stop::Fault
    }

    /// Ask for an exit above the engine; the instruction is restarted with the answer.
    #[cold]
    pub fn ask(&mut self, exit: Exit) -> Stop {
        self.exit = exit;
        Stop::Exit
    }

    /// Whether `linear` is canonical under the current paging mode (48 bits, or 57 with CR4.LA57).
    #[inline]
    pub fn is_canonical(&self, linear: u64) -> bool {
        let shift = if self.cr4 & cr::CR4_LA57 != 0 { 64 - 57 } else { 64 - 48 };
        ((linear << shift) as i64 >> shift) as u64 == linear
    }

    /// Feed everything that decides this vCPU's future to a hasher.
    pub fn hash_state(&self, hasher: &mut impl Hasher) {
        (&self.regs[..16], self.rip, self.rflags(), self.segs, self.gdtr, self.idtr).hash(hasher);
        (self.cr0, self.cr2, self.cr3, self.cr4, self.efer, self.xcr0, self.pkru, self.cpl).hash(hasher);
        (self.debug, &self.msrs, &self.pmu, self.tsc_offset, self.host, self.activity, self.kicked, self.doze)
            .hash(hasher);
        self.run_ns.hash(hasher);
        (self.interrupt_shadow, self.shadow_is_mov_ss, self.nmi_blocked, self.fpu, self.vector).hash(hasher);
    }

    /// Whether a base register can hold `linear`: what it is checked against is the widest address that the CPU knows, whatever
    /// the paging mode (SDM vol. 1 section 3.3.7.1).
    pub fn is_canonical_base(&self, linear: u64) -> bool {
        let shift = if self.features.l7_ecx & cpuid::L7_ECX_LA57 != 0 { 64 - 57 } else { 64 - 48 };
        ((linear << shift) as i64 >> shift) as u64 == linear
    }

    /// DS, ES, SS and CS as multiboot wants them, or any test: flat 32-bit segments, protection on, paging off.
    pub fn set_flat_protected32(&mut self, entry: u32) {
        let data = Segment {
            selector: 0x10,
            attributes: attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G,
            limit: u32::MAX,
            base: 0,
        };
        for number in [ES, SS, DS, crate::segment::FS, crate::segment::GS] {
            self.segs[usize::from(number)] = data;
        }
        self.segs[usize::from(CS)] = Segment { selector: 8, attributes: data.attributes | attr::CODE, ..data };
        self.cr0 = cr::CR0_PE | cr::CR0_ET;
        self.rip = u64::from(entry);
        self.system_flags = rflags::FIXED;
        self.activity = Activity::Running;
        self.mode_changed();
    }
}
