//! What resets the machine: port 0x92, the reset control register 0xCF9; the 8042 is in its own file.

/// How far a reset goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// RESET: every device is as after power-on. Memory is the caller's.
    Hard,
    /// INIT of the processors; devices go on.
    Soft,
}

/// System control port A.
pub const SYSTEM_CONTROL_A: u16 = 0x92;
/// Reset control register of Intel's chipsets.
pub const RESET_CONTROL: u16 = 0xCF9;

/// Port 0x92: a rising edge resets the processor softly.
const FAST_INIT: u8 = 1 << 0;
/// Port 0x92: A20, always open here.
const A20: u8 = 1 << 1;

/// 0xCF9: hard reset rather than INIT.
const SYSTEM_RESET: u8 = 1 << 1;
/// 0xCF9: a rising edge resets.
const RESET_CPU: u8 = 1 << 2;
/// 0xCF9: full reset, with a power cycle.
const FULL_RESET: u8 = 1 << 3;

/// Both registers.
#[derive(Clone, Debug, Default, Hash)]
pub struct ResetPorts {
    control_a: u8,
    reset_control: u8,
}

impl ResetPorts {
    /// A soft reset leaves the registers as they are, by which a guest can tell it from a hard one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    pub fn read_control_a(&self) -> u8 {
        self.control_a | A20
    }

    pub fn write_control_a(&mut self, value: u8) -> Option<ResetKind> {
        let rises = value & !self.control_a & FAST_INIT != 0;
        self.control_a = value & (FAST_INIT | A20);
        rises.then_some(ResetKind::Soft)
    }

    pub fn read_reset_control(&self) -> u8 {
        self.reset_control
    }

    pub fn write_reset_control(&mut self, value: u8) -> Option<ResetKind> {
        let rises = value & !self.reset_control & RESET_CPU != 0;
        // The reset bit falls back by itself.
        self.reset_control = value & (SYSTEM_RESET | FULL_RESET);
        let kind = if value & SYSTEM_RESET != 0 { ResetKind::Hard } else { ResetKind::Soft };
        rises.then_some(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_92_resets_on_a_rising_edge_and_remembers_it() {
        let mut ports = ResetPorts::default();
        assert_eq!(ports.read_control_a(), A20);
        assert_eq!(ports.write_control_a(A20 | FAST_INIT), Some(ResetKind::Soft));
        assert_eq!(ports.read_control_a(), A20 | FAST_INIT);
        assert_eq!(ports.write_control_a(A20 | FAST_INIT), None);
        ports.reset();
        assert_eq!(ports.read_control_a() & FAST_INIT, 0);
    }

    #[test]
    fn the_reset_control_register_knows_both_kinds() {
        let mut ports = ResetPorts::default();
        assert_eq!(ports.write_reset_control(0), None);
        assert_eq!(ports.write_reset_control(4), Some(ResetKind::Soft));
        assert_eq!(ports.write_reset_control(6), Some(ResetKind::Hard));
        assert_eq!(ports.read_reset_control(), SYSTEM_RESET);
    }
}
