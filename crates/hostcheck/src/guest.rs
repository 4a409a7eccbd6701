//! The guest's side: a vCPU in user mode whose page tables map the addresses that cases use.

use guestmem::GuestMemory;
use softcpu::{Cpu, Engine, EngineConfig};
use softfloat::X80;
use vcpu::{Bus, Clock, Exit, Register};
use x86defs::{cr, rflags, segment as attr, vector};

use crate::case::{Case, Exception, Mode, Outcome, State};
use crate::host;
use crate::layout::{CODE, GS_BASE, PAGE, READABLE, SCRATCH, WRITABLE, selector};
use crate::xsave::Xsave;

const RAM: u64 = 1 << 20;
/// Guest-physical addresses: the three upper levels of the page tables, two page tables, the scratch area, code.
const PML4: u64 = 0x1000;
const DIRECTORY_POINTERS: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const SCRATCH_TABLE: u64 = 0x4000;
const CODE_TABLE: u64 = 0x5000;
const SCRATCH_GPA: u64 = 0x1_0000;
const CODE_GPA: u64 = 0x2_0000;
/// Page-table bits: present, writable, user, accessed, dirty.
const TABLE: u64 = 0x67;
const WRITABLE_PAGE: u64 = 0x67;
const READABLE_PAGE: u64 = 0x65;

/// UD2, which marks the end of the code.
const END: [u8; 2] = [0x0F, 0x0B];
/// More than any sequence takes: repeated string instructions end in the guard.
const BUDGET: u64 = 1_000_000;

/// One vCPU, in a mode that it keeps.
pub struct Guest {
    engine: Engine,
    memory: GuestMemory,
    mode: Mode,
}

impl Guest {
    /// A vCPU that is told what CPUID says on the host. `read_only` are the contents of the page behind the writable ones.
    pub fn new(mode: Mode, read_only: &[u8]) -> Self {
        let memory = GuestMemory::new(RAM).expect("memory for a guest");
        let config =
            EngineConfig { cpus: 1, host: host::vendor(), seed: 0, slice: (1000, 1000), clock: Clock::new(1_000_000) };
        let mut guest = Self { engine: Engine::new(&config, memory.clone()), memory, mode };
        guest.engine.set_cpuid(&host::cpuid());
        for number in 0..32 {
            guest.engine.intercept_exception(number, true);
        }
        guest.map_memory();
        guest.poke(SCRATCH_GPA + WRITABLE as u64, read_only);
        guest.enter_mode();
        guest
    }

    fn poke(&self, gpa: u64, bytes: &[u8]) {
        self.memory.write_bytes(gpa, bytes).expect("RAM");
    }

    fn map_memory(&self) {
        let entry = |address: u64, value: u64| self.poke(address, &value.to_le_bytes());
        let index = |address: u64, level: u32| (address >> (12 + 9 * level)) % 512;
        entry(PML4, DIRECTORY_POINTERS | TABLE);
        entry(DIRECTORY_POINTERS, DIRECTORY | TABLE);
        for (address, table, gpa, size) in
            [(SCRATCH, SCRATCH_TABLE, SCRATCH_GPA, READABLE as u64), (CODE, CODE_TABLE, CODE_GPA, 2 * PAGE)]
        {
            entry(DIRECTORY + 8 * index(address, 1), table | TABLE);
            for page in 0..size / PAGE {
                let rights = if page < 2 { WRITABLE_PAGE } else { READABLE_PAGE };
                entry(table + 8 * (index(address, 0) + page), (gpa + PAGE * page) | rights);
            }
        }
    }

    fn enter_mode(&mut self) {
        let long = self.mode == Mode::Long64;
        let user = attr::P | attr::S | attr::RW | attr::ACCESSED | 3 << attr::DPL_SHIFT;
        let code = user | attr::CODE | if long { attr::L } else { attr::DB | attr::G };
        let data = user | attr::DB | attr::G;
        let (code_selector, data_selector) =
            if long { (selector::CODE64, 0) } else { (selector::CODE32, selector::DATA) };
        let data_attributes = if long { 0 } else { data };
        let mut segments = vec![
            (Register::Cs, Register::CsAttributes, Register::CsLimit, code_selector, code),
            (Register::Ss, Register::SsAttributes, Register::SsLimit, selector::DATA, data),
            (Register::Ds, Register::DsAttributes, Register::DsLimit, data_selector, data_attributes),
            (Register::Es, Register::EsAttributes, Register::EsLimit, data_selector, data_attributes),
            (Register::Fs, Register::FsAttributes, Register::FsLimit, 0, 0),
            (Register::Gs, Register::GsAttributes, Register::GsLimit, 0, 0),
        ];
        let cpu = self.engine.cpu_mut(0);
        let mut set = |register, value| cpu.set_register(register, value).expect("a value that fits");
        set(Register::Cr3, PML4);
        set(Register::Efer, cr::EFER_SCE | cr::EFER_LME | cr::EFER_LMA | cr::EFER_NXE);
        set(Register::Cr4, cr::CR4_PAE | cr::CR4_OSFXSR | cr::CR4_OSXMMEXCPT | cr::CR4_OSXSAVE);
        set(Register::Cr0, cr::CR0_PE | cr::CR0_MP | cr::CR0_NE | cr::CR0_WP | cr::CR0_AM | cr::CR0_PG);
        set(Register::Xcr0, host::xsave_components().into());
        for (register, attributes_register, limit, selector, attributes) in segments.drain(..) {
            set(register, selector.into());
            set(attributes_register, attributes.into());
            set(limit, u64::from(u32::MAX));
        }
        for base in [Register::CsBase, Register::SsBase, Register::DsBase, Register::EsBase, Register::FsBase] {
            set(base, 0);
        }
        if long {
            set(Register::GsBase, GS_BASE);
        }
    }

    /// Run a case of this guest's mode.
    pub fn run(&mut self, case: &Case) -> Outcome {
        assert_eq!(case.mode, self.mode);
        let mut code = case.code.clone();
        code.extend(END);
        self.poke(CODE_GPA + case.code_offset() as u64, &code);
        self.poke(SCRATCH_GPA, &case.memory);
        load(self.engine.cpu_mut(0), &case.state);
        let exit = self.execute(case.stepped);
        let cpu = self.engine.cpu(0);
        let exception = match exit {
            Exit::Exception { vector: vector::UD, .. } if cpu.rip == case.end() => None,
            Exit::Exception { vector, error_code, .. } => {
                Some(Exception::new(vector, error_code.unwrap_or(0), cpu.fault.payload))
            }
            other => panic!("the guest ended with {other:?} at {:#x}", cpu.rip),
        };
        let mut memory = vec![0; WRITABLE];
        self.memory.read_bytes(SCRATCH_GPA, &mut memory).expect("RAM");
        Outcome { exception, state: store(cpu, &case.state), memory }
    }

    fn execute(&mut self, stepped: bool) -> Exit {
        if !stepped {
            return self.engine.run(&mut NoBus, BUDGET);
        }
        let mut exit = Exit::Budget;
        for _ in 0..BUDGET {
            exit = self.engine.step(&mut NoBus, 0);
            if !matches!(exit, Exit::Step { .. }) {
                break;
            }
        }
        exit
    }
}

fn load(cpu: &mut Cpu, state: &State) {
    cpu.regs[..16].copy_from_slice(&state.regs);
    cpu.set_register(Register::Rip, state.rip).expect("any value fits");
    cpu.set_rflags(state.rflags);
    load_extended(cpu, &state.xsave);
    cpu.debug.pending = 0;
}

fn store(cpu: &Cpu, before: &State) -> State {
    let mut state = State { rip: cpu.rip, rflags: cpu.rflags() & !rflags::RF, ..before.clone() };
    state.regs.copy_from_slice(&cpu.regs[..16]);
    store_extended(cpu, &mut state.xsave);
    state
}

/// Load x87, SSE and AVX state as XRSTOR64 would.
fn load_extended(cpu: &mut Cpu, image: &Xsave) {
    let fpu = &mut cpu.fpu;
    fpu.set_control(image.fcw());
    fpu.set_status(image.fsw());
    fpu.set_abridged_tags(image.ftw());
    fpu.set_opcode(image.fop());
    // Selectors have no place in the 64-bit form of the image.
    (fpu.instruction.offset, fpu.instruction.selector) = (image.fip(), 0);
    (fpu.data.offset, fpu.data.selector) = (image.fdp(), 0);
    for i in 0..8 {
        let (significand, sign_exponent) = image.st(i);
        fpu.set_st(i as u8, X80::new(sign_exponent, significand));
    }
    let lane = |value: u128| [value as u64, (value >> 64) as u64];
    for i in 0..16 {
        cpu.vector.set_ymm(i as u8, [lane(image.xmm(i)), lane(image.ymm_high(i))]);
    }
    cpu.vector.mxcsr = image.mxcsr();
}

/// Store x87, SSE and AVX state as XSAVE64 would.
fn store_extended(cpu: &Cpu, image: &mut Xsave) {
    let fpu = &cpu.fpu;
    image.set_fcw(fpu.control());
    image.set_fsw(fpu.status());
    image.set_ftw(fpu.abridged_tags());
    image.set_fop(fpu.opcode());
    image.set_fip(fpu.instruction.offset);
    image.set_fdp(fpu.data.offset);
    for i in 0..8 {
        let X80 { significand, sign_exponent } = fpu.st(i as u8);
        image.set_st(i, (significand, sign_exponent));
    }
    let number = |lane: [u64; 2]| u128::from(lane[0]) | u128::from(lane[1]) << 64;
    for i in 0..16 {
        let [low, high] = cpu.vector.ymm(i as u8);
        image.set_xmm(i, number(low));
        image.set_ymm_high(i, number(high));
    }
    image.set_mxcsr(cpu.vector.mxcsr);
}

/// A bus with nothing on it: cases touch RAM only.
struct NoBus;

impl Bus for NoBus {}
