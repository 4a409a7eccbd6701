//! How PCs report x87 errors when CR0.NE is clear: FERR# is IRQ 13, and a write to port F0h lowers it and asserts IGNNE#, until
//! the error is gone. SDM vol. 1 section 8.7.2 and appendix D.

/// Writing anything says that the error has been seen.
pub const CLEAR_BUSY: u16 = 0xF0;
/// The interrupt line.
pub const IRQ: u8 = 13;

/// The latch between FERR#, IRQ 13 and IGNNE#.
#[derive(Clone, Debug, Default, Hash)]
pub struct Coprocessor {
    /// The level of IRQ 13.
    busy: bool,
    /// IGNNE#.
    ignore: bool,
}

impl Coprocessor {
    /// A processor asserts FERR#: once anew for each error, and again as long as it waits. Gives IGNNE#.
    pub fn error(&mut self, first: bool) -> bool {
        if first {
            (self.busy, self.ignore) = (true, false);
        }
        self.ignore
    }

    /// A write to [`CLEAR_BUSY`].
    pub fn clear_busy(&mut self) {
        if self.busy {
            (self.busy, self.ignore) = (false, true);
        }
    }

    /// The level of IRQ 13.
    pub fn irq_level(&self) -> bool {
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_ignored_once_it_was_seen_until_the_next_one() {
        let mut coprocessor = Coprocessor::default();
        coprocessor.clear_busy();
        assert!(!coprocessor.error(true) && coprocessor.irq_level());
        assert!(!coprocessor.error(false));
        coprocessor.clear_busy();
        assert!(!coprocessor.irq_level() && coprocessor.error(false));
        assert!(!coprocessor.error(true) && coprocessor.irq_level());
    }
}
