//! Ports by which a guest talks to whoever runs it: `isa-debug-exit`, the debug consoles, Bochs' shutdown port.

/// `isa-debug-exit`: the value written ends the run.
pub const EXIT_FIRST_PORT: u16 = 0xF4;
pub const EXIT_LAST_PORT: u16 = 0xF7;
/// The debug console of Bochs and QEMU.
pub const CONSOLE_PORT: u16 = 0xE9;
/// The debug console of SeaBIOS and OVMF.
pub const FIRMWARE_CONSOLE_PORT: u16 = 0x402;
/// What both consoles read as, so that a guest finds them.
pub const CONSOLE_PRESENT: u8 = 0xE9;
/// Bochs' shutdown port.
pub const SHUTDOWN_PORT: u16 = 0x8900;

const SHUTDOWN_TEXT: &[u8] = b"Shutdown";

/// How much of the text has come to the shutdown port.
#[derive(Clone, Debug, Default, Hash)]
pub struct ShutdownPort {
    matched: usize,
}

impl ShutdownPort {
    /// Returns whether the text is complete.
    pub fn write(&mut self, value: u8) -> bool {
        self.matched = if SHUTDOWN_TEXT[self.matched] == value {
            self.matched + 1
        } else {
            usize::from(SHUTDOWN_TEXT[0] == value)
        };
        let complete = self.matched == SHUTDOWN_TEXT.len();
        if complete {
            self.matched = 0;
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_text_shuts_down() {
        let mut port = ShutdownPort::default();
        let hits: Vec<bool> = b"ShutShutdownn".iter().map(|&byte| port.write(byte)).collect();
        assert_eq!(hits.iter().position(|&hit| hit), Some(11));
        assert_eq!(hits.iter().filter(|&&hit| hit).count(), 1);
    }
}
