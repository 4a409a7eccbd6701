//! Segment registers.

use x86defs::segment as attr;

/// Numbers of the segment registers, as instructions encode them; LDTR and TR follow.
pub const ES: u8 = 0;
/// CS.
pub const CS: u8 = 1;
/// SS.
pub const SS: u8 = 2;
/// DS.
pub const DS: u8 = 3;
/// FS.
pub const FS: u8 = 4;
/// GS.
pub const GS: u8 = 5;
/// LDTR.
pub const LDTR: u8 = 6;
/// TR.
pub const TR: u8 = 7;

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// See [`x86defs::segment`]; zero means unusable (null).
    pub attributes: u16,
    /// Last valid offset (expand-up), granularity applied.
    pub limit: u32,
    /// Base address.
    pub base: u64,
}

impl Segment {
    /// As real mode and reset leave a data segment.
    pub fn real(selector: u16) -> Self {
        Self {
            selector,
            attributes: attr::P | attr::S | attr::RW | attr::ACCESSED,
            limit: 0xFFFF,
            base: u64::from(selector) << 4,
        }
    }

    /// Whether 32-bit offsets need no check and no addition: base 0, all 4 GiB, present, readable and writable data (or
    /// readable code when `code`), not expand-down.
    pub fn is_flat(&self, code: bool) -> bool {
        let (required, forbidden) = if code {
            (attr::P | attr::S | attr::CODE, 0)
        } else {
            (attr::P | attr::S | attr::RW, attr::DC | attr::CODE)
        };
        self.base == 0
            && self.limit == u32::MAX
            && self.attributes & required == required
            && self.attributes & forbidden == 0
    }

    /// DPL.
    pub fn dpl(&self) -> u8 {
        (self.attributes >> attr::DPL_SHIFT & 3) as u8
    }

    /// Descriptor type with the S bit: 0..=31.
    pub fn kind(&self) -> u16 {
        self.attributes & 0x1F
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}
