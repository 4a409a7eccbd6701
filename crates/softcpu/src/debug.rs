//! Debug registers, breakpoints, single-stepping. SDM vol. 3 chapter 18.

use x86defs::{cr, dr, vector};

use crate::cpu::{Cpu, Fault};
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Stop, slot};

/// What a breakpoint watches: the R/W field of DR7.
const RW_EXECUTE: u64 = 0;
const RW_WRITE: u64 = 1;
const RW_IO: u64 = 2;
const RW_ACCESS: u64 = 3;
/// Bits of DR7 that can be set: L0–G3, LE, GE, GD and the four R/W and LEN fields.
const DR7_DEFINED: u64 = 0xFFFF_23FF;
/// Bits of DR6 that can be cleared and set: B0–B3, BD, BS, BT.
const DR6_DEFINED: u64 = 0xF | dr::DR6_BD | dr::DR6_BS | dr::DR6_BT;

/// DR0–DR7 and pending debug conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DebugState {
    /// DR0–DR3.
    pub addresses: [u64; 4],
    dr6: u64,
    dr7: u64,
    /// DR6 bits of traps that are due when the instruction retires.
    pub pending: u64,
    /// The instruction being executed is followed by a single-step trap: RFLAGS.TF as it was before it, unless the
    /// instruction itself decides otherwise (INT n, SYSCALL).
    pub stepping: bool,
    /// DEBUGCTL.BTF: only branches are followed by a single-step trap.
    pub branch_stepping: bool,
    watches_code: bool,
    watches_data: bool,
    watches_io: bool,
}

impl Default for DebugState {
    fn default() -> Self {
        Self {
            addresses: [0; 4],
            dr6: dr::DR6_INIT,
            dr7: dr::DR7_INIT,
            pending: 0,
            stepping: false,
            branch_stepping: false,
            watches_code: false,
            watches_data: false,
            watches_io: false,
        }
    }
}

impl DebugState {
    /// DR6.
    pub fn dr6(&self) -> u64 {
        self.dr6
    }
    /// Change DR6; bits that are fixed stay as they are.
    pub fn set_dr6(&mut self, value: u64) {
        self.dr6 = value & DR6_DEFINED | dr::DR6_INIT;
    }
    /// DR7.
    pub fn dr7(&self) -> u64 {
        self.dr7
    }
    /// Change DR7; call [`Cpu::rights_changed`] afterwards.
    pub fn set_dr7(&mut self, value: u64) {
        self.dr7 = value & DR7_DEFINED | dr::DR7_INIT;
        let watches = |this: &Self, kinds: &[u64]| (0..4).any(|i| this.enabled(i) && kinds.contains(&this.kind(i)));
        self.watches_code = watches(self, &[RW_EXECUTE]);
        self.watches_data = watches(self, &[RW_WRITE, RW_ACCESS]);
        self.watches_io = watches(self, &[RW_IO]);
    }

    fn enabled(&self, number: usize) -> bool {
        self.dr7 >> (2 * number) & 3 != 0
    }
    fn kind(&self, number: usize) -> u64 {
        self.dr7 >> (16 + 4 * number) & 3
    }
    /// Bytes watched.
    fn length(&self, number: usize) -> u64 {
        [1, 2, 8, 4][(self.dr7 >> (18 + 4 * number) & 3) as usize]
    }

    /// Whether some data breakpoint is enabled.
    #[inline]
    pub fn watches_data(&self) -> bool {
        self.watches_data
    }
    /// Whether some instruction breakpoint is enabled.
    #[inline]
    pub fn watches_code(&self) -> bool {
        self.watches_code
    }
    /// DR6 bits of the enabled instruction breakpoints at `linear`; 0 if none.
    pub fn code_hit(&self, linear: u64) -> u64 {
        self.hits(|this, i| this.kind(i) == RW_EXECUTE && this.addresses[i] == linear)
    }
    /// Note a data access: breakpoints that it hits become pending.
    pub fn note_data(&mut self, linear: u64, bytes: u64, write: bool) {
        if self.watches_data {
            self.pending |= self.hits(|this, i| {
                let watched = this.kind(i) == RW_ACCESS || write && this.kind(i) == RW_WRITE;
                watched && this.overlaps(i, linear, bytes)
            });
        }
    }
    /// Note an I/O access; call it with CR4.DE set only.
    pub fn note_io(&mut self, port: u16, bytes: u64) {
        if self.watches_io {
            self.pending |= self.hits(|this, i| this.kind(i) == RW_IO && this.overlaps(i, port.into(), bytes));
        }
    }

    fn hits(&self, hit: impl Fn(&Self, usize) -> bool) -> u64 {
        (0..4).filter(|&i| self.enabled(i) && hit(self, i)).map(|i| 1 << i).sum()
    }

    fn overlaps(&self, number: usize, address: u64, bytes: u64) -> bool {
        let length = self.length(number);
        // LEN masks low bits of the address (SDM vol. 3 section 18.2.5).
        let watched = self.addresses[number] & !(length - 1);
        address.wrapping_sub(watched) < length || watched.wrapping_sub(address) < bytes
    }

    /// Take over what a debug exception reports: B0–B3 are replaced, the rest is added, and GD is cleared so that the handler
    /// can use the registers.
    pub fn record(&mut self, payload: u64) {
        self.dr6 = self.dr6 & !0xF | payload & DR6_DEFINED;
        self.dr7 &= !dr::DR7_GD;
        self.branch_stepping = false;
    }
}

/// The register that MOV DR names, after all checks: SDM vol. 2 MOV–Move to/from Debug Registers.
fn checked_register(cpu: &mut Cpu, op: &Op) -> Result<u8, Stop> {
    let aliased = matches!(op.extra, 4 | 5);
    if op.extra > 7 || aliased && cpu.cr4 & cr::CR4_DE != 0 {
        return Err(cpu.ud());
    }
    if cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    if cpu.debug.dr7 & dr::DR7_GD != 0 {
        cpu.fault = Fault { vector: vector::DB, error_code: None, payload: dr::DR6_BD };
        return Err(Stop::Fault);
    }
    Ok(if aliased { op.extra + 2 } else { op.extra })
}

/// MOV r, DR.
pub fn mov_from_dr(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let value = match checked_register(cpu, op)? {
        6 => cpu.debug.dr6,
        7 => cpu.debug.dr7,
        number => cpu.debug.addresses[usize::from(number) & 3],
    };
    cpu.regs[slot(op.dst)] = if cpu.mode.is_64() { value } else { value & 0xFFFF_FFFF };
    Ok(Flow::Sync)
}

/// MOV DR, r.
pub fn mov_to_dr(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let number = checked_register(cpu, op)?;
    let value = cpu.regs[slot(op.src)];
    let value = if cpu.mode.is_64() { value } else { value & 0xFFFF_FFFF };
    if number >= 6 && value >> 32 != 0 {
        return Err(cpu.gp0());
    }
    match number {
        6 => cpu.debug.set_dr6(value),
        7 => cpu.debug.set_dr7(value),
        number => cpu.debug.addresses[usize::from(number) & 3] = value,
    }
    // Checked accesses bypass the TLB and others use it: no flush is needed.
    cpu.rights_changed();
    Ok(Flow::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakpoints_match_by_kind_and_length() {
        let mut debug = DebugState { addresses: [0x1000, 0x2003, 0x3000, 0x60], ..DebugState::default() };
        // L0 execute; L1 write, 4 bytes; L2 access, 8 bytes; L3 I/O, 1 byte.
        debug.set_dr7(0x55 | 1 << 20 | 3 << 22 | 3 << 24 | 2 << 26 | 2 << 28);
        assert!(debug.watches_code() && debug.watches_data());
        assert_eq!((debug.code_hit(0x1000), debug.code_hit(0x2000)), (1, 0));
        for (address, bytes, write, hit) in [
            (0x2000, 1, true, 2),
            (0x2000, 1, false, 0),
            (0x1FFF, 1, true, 0),
            (0x1FFF, 2, true, 2),
            (0x2004, 8, true, 0),
            (0x3007, 1, false, 4),
            (0x2FF9, 8, false, 4),
            (0x2FF8, 8, false, 0),
        ] {
            debug.pending = 0;
            debug.note_data(address, bytes, write);
            assert_eq!(debug.pending, hit, "{address:#x} {bytes} {write}");
        }
        debug.pending = 0;
        debug.note_io(0x5F, 2);
        assert_eq!(debug.pending, 8);
    }

    #[test]
    fn fixed_bits_stay_and_a_report_replaces_the_last_hits() {
        let mut debug = DebugState::default();
        debug.set_dr6(0);
        assert_eq!(debug.dr6(), dr::DR6_INIT);
        debug.set_dr7(u64::MAX);
        assert_eq!(debug.dr7(), 0xFFFF_27FF);
        debug.record(3);
        debug.record(dr::DR6_BS);
        assert_eq!(debug.dr6(), dr::DR6_INIT | dr::DR6_BS);
        assert_eq!(debug.dr7() & dr::DR7_GD, 0);
    }

    use crate::cpu::HostVendor;
    use crate::exec::testing::{CODE, DATA, Machine, Mode};

    /// Run until #DB: where, and what it reports.
    fn until_debug(machine: &mut Machine, code: &[u8]) -> (u64, u64) {
        assert_eq!(machine.run(code), Err(vector::DB));
        let cpu = machine.cpu();
        (cpu.rip - CODE, cpu.fault.payload)
    }

    #[test]
    fn popf_that_sets_tf_steps_the_next_instruction() {
        // pushf; pop rax; or eax, 100h; push rax; popf; nop; nop
        let code = [0x9C, 0x58, 0x0D, 0x00, 0x01, 0x00, 0x00, 0x50, 0x9D, 0x90, 0x90];
        assert_eq!(until_debug(&mut Machine::new(Mode::Long64), &code), (10, dr::DR6_BS));
    }

    #[test]
    fn mov_ss_is_not_stepped() {
        // pushf; pop ax; or ax, 100h; push ax; xor bx, bx; popf; mov ss, bx; nop; nop
        let code = [0x9C, 0x58, 0x0D, 0x00, 0x01, 0x50, 0x31, 0xDB, 0x9D, 0x8E, 0xD3, 0x90, 0x90];
        assert_eq!(until_debug(&mut Machine::new(Mode::Real), &code), (12, dr::DR6_BS));
    }

    #[test]
    fn mov_ss_holds_off_instruction_breakpoints_on_intel() {
        for (host, expected) in [(HostVendor::Intel, (3, 2)), (HostVendor::Amd, (2, 1))] {
            let mut machine = Machine::new(Mode::Real);
            machine.cpu().host = host;
            let debug = &mut machine.cpu().debug;
            debug.addresses = [CODE + 2, CODE + 3, 0, 0];
            debug.set_dr7(5);
            // mov ss, bx; nop; nop
            assert_eq!(until_debug(&mut machine, &[0x8E, 0xD3, 0x90, 0x90]), expected, "{host:?}");
        }
    }

    #[test]
    fn instruction_breakpoints_are_faults_and_data_breakpoints_traps() {
        let mut machine = Machine::new(Mode::Protected32);
        let debug = &mut machine.cpu().debug;
        debug.addresses = [CODE + 1, DATA + 4, 0, 0];
        debug.set_dr7(1);
        assert_eq!(until_debug(&mut machine, &[0x90, 0x90]), (1, 1));
        // Breakpoint 1: writes of 4 bytes.
        let cpu = machine.cpu();
        cpu.debug.set_dr7(4 | RW_WRITE << 20 | 3 << 22);
        cpu.rights_changed();
        cpu.rip = CODE;
        // mov eax, [DATA + 4]; mov [DATA + 4], al
        let code = [0xA1, 0x04, 0x00, 0x20, 0x00, 0xA2, 0x04, 0x00, 0x20, 0x00];
        assert_eq!(until_debug(&mut machine, &code), (10, 2));
    }

    /// A machine in real mode that watches accesses to four bytes at the top of its stack, with a handler for vector 30h.
    fn watching_the_stack(distance: u64, kind: u64) -> Machine {
        let mut machine = Machine::new(Mode::Real);
        machine.poke(4 * 0x30, &(CODE as u32 + 0x40).to_le_bytes());
        machine.poke(CODE + 0x40, &[0x90, 0x90, 0xCF]);
        let cpu = machine.cpu();
        cpu.debug.addresses[0] = cpu.regs[4] - distance;
        cpu.debug.set_dr7(1 | kind << 16 | 1 << 18);
        cpu.rights_changed();
        machine
    }

    #[test]
    fn what_an_interrupt_pushes_is_watched() {
        // int 30h: FLAGS, CS, IP; the trap comes in the handler, before anything of it has run.
        assert_eq!(until_debug(&mut watching_the_stack(4, RW_WRITE), &[0xCD, 0x30]), (0x40, 1));
        let mut machine = watching_the_stack(4, RW_WRITE);
        machine.inject(0x30);
        assert_eq!(until_debug(&mut machine, &[0x90]), (0x40, 1), "not by an instruction");
        assert_eq!(machine.cpu().debug.pending, 0);
        // iret reads it back.
        let mut machine = watching_the_stack(4, RW_ACCESS);
        machine.cpu().debug.set_dr7(0);
        machine.cpu().rights_changed();
        machine.inject(0x30);
        machine.run_budget(1);
        machine.cpu().debug.set_dr7(1 | RW_ACCESS << 16 | 1 << 18);
        machine.cpu().rights_changed();
        machine.cpu().rip = CODE;
        assert_eq!(until_debug(&mut machine, &[0xCF, 0x90]), (0, 1));
    }

    #[test]
    fn a_faulting_instruction_hits_no_breakpoint() {
        let mut machine = watching_the_stack(0, RW_ACCESS);
        // pop word ptr [0FFFFh]: the stack is read, the word wraps.
        let top = machine.cpu().regs[4];
        assert_eq!(machine.run(&[0x8F, 0x06, 0xFF, 0xFF]), Err(vector::GP));
        assert_eq!((machine.cpu().debug.pending, machine.cpu().regs[4]), (0, top));
    }

    #[test]
    fn general_detect_guards_the_registers() {
        let mut machine = Machine::new(Mode::Protected32);
        machine.cpu().debug.set_dr7(dr::DR7_GD);
        // nop; mov eax, dr0
        assert_eq!(until_debug(&mut machine, &[0x90, 0x0F, 0x21, 0xC0]), (1, dr::DR6_BD));
    }

    #[test]
    fn numbers_that_do_not_exist() {
        // mov eax, dr4
        let code = [0x0F, 0x21, 0xE0];
        let mut machine = Machine::new(Mode::Protected32);
        assert_eq!(machine.run(&code), Ok(()), "an alias of DR6");
        assert_eq!(machine.cpu().regs[0], dr::DR6_INIT);
        let mut machine = Machine::new(Mode::Protected32);
        machine.cpu().cr4 |= cr::CR4_DE;
        assert_eq!(machine.run(&code), Err(vector::UD));
    }
}
