//! Segment registers: SDM vol. 3 chapters 3 and 5.

mod descriptor;
mod load;
mod query;
mod table;

pub use descriptor::{Descriptor, fault_code};
pub use load::{load_far_pointer, mov_from_seg, mov_to_seg, pop_seg, push_seg};
pub use query::{arpl, lar, lsl, verr, verw};
pub(crate) use table::{check_umip, store_rm16};
pub use table::{lgdt, lidt, lldt, ltr, sgdt, sidt, sldt, str_};

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

    /// As virtual-8086 mode has every segment.
    pub fn virtual_8086(selector: u16) -> Self {
        Self { attributes: Self::real(0).attributes | 3 << attr::DPL_SHIFT, ..Self::real(selector) }
    }

    /// What a null selector leaves: nothing that can be used.
    pub fn null(selector: u16) -> Self {
        Self { selector, ..Self::default() }
    }

    /// Flat, as SYSCALL and the like set it without looking at a descriptor: all 4 GiB, present, accessed.
    pub fn flat(selector: u16, attributes: u16) -> Self {
        let always = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::G;
        Self { selector, attributes: attributes | always, limit: u32::MAX, base: 0 }
    }

    /// Whether `bytes` (at least 1) at `offset` lie within the limit.
    pub fn contains(&self, offset: u64, bytes: u64) -> bool {
        let Some(last) = offset.checked_add(bytes - 1) else { return false };
        let limit = u64::from(self.limit);
        if self.attributes & (attr::CODE | attr::DC) == attr::DC {
            let top = if self.attributes & attr::DB != 0 { 0xFFFF_FFFF } else { 0xFFFF };
            offset > limit && last <= top
        } else {
            last <= limit
        }
    }

    /// Whether it has all of these attributes.
    pub fn has(&self, attributes: u16) -> bool {
        self.attributes & attributes == attributes
    }

    /// Whether it is code (and not a system segment).
    pub fn is_code(&self) -> bool {
        self.has(attr::S | attr::CODE)
    }

    /// Whether it is data that can be written.
    pub fn is_writable_data(&self) -> bool {
        self.has(attr::S | attr::RW) && !self.has(attr::CODE)
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
