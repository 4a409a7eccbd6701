//! The firmware's image, and who answers in the area below 1 MiB that it shares with RAM.
//!
//! The image ends at 4 GiB, and its last 128 KiB appear below 1 MiB as well. From 768 KiB on a chipset decides for each page
//! whether reads reach RAM or the image, and whether writes reach RAM or nobody: firmware copies itself to the RAM beneath and
//! then protects that (Intel 440FX data sheet 290549, section 4.1.20, "programmable attribute map"). Without an image all is
//! RAM, as firmware would leave it.
//!
//! The image lies behind RAM in the mapping, so that it is read and executed as RAM is; a page of ones is in front, for what
//! the image does not reach.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::memory::RamOffset;
use crate::{HIGH_RAM_BASE, PAGE_SIZE};

/// First address that can be shadowed.
pub const SHADOW_BASE: u64 = 0xC_0000;
/// Behind the last.
pub const SHADOW_END: u64 = 0x10_0000;
/// The largest image, in bytes.
pub const MAX_ROM_SIZE: u64 = 16 << 20;

const SHADOW_PAGES: usize = ((SHADOW_END - SHADOW_BASE) / PAGE_SIZE) as usize;
/// How much of the image appears below 1 MiB.
const LOW_ALIAS_SIZE: u64 = 128 << 10;
/// Bytes of the mapping behind RAM.
pub const AREA_SIZE: u64 = PAGE_SIZE + MAX_ROM_SIZE;

const READS_RAM: u8 = 1 << 0;
const WRITES_RAM: u8 = 1 << 1;
const PLAIN_RAM: u8 = READS_RAM | WRITES_RAM;

/// Where everything is.
pub struct Firmware {
    /// Bytes of RAM: the page of ones begins here.
    ram_size: u64,
    /// Bytes of the image; 0: there is none.
    rom_size: AtomicU64,
    /// Who answers, by page.
    shadow: [AtomicU8; SHADOW_PAGES],
}

impl Firmware {
    pub fn new(ram_size: u64) -> Self {
        Self { ram_size, rom_size: AtomicU64::new(0), shadow: std::array::from_fn(|_| AtomicU8::new(PLAIN_RAM)) }
    }

    pub fn is_present(&self) -> bool {
        self.rom_size.load(Relaxed) != 0
    }

    /// An image of that size has been put at [`Firmware::rom_start`].
    pub fn set_rom_size(&self, size: u64) {
        self.rom_size.store(size, Relaxed);
    }

    /// Offset of the page of ones.
    pub fn ones(&self) -> RamOffset {
        self.ram_size
    }

    /// Offset of the image's first byte.
    pub fn rom_start(&self) -> RamOffset {
        self.ram_size + PAGE_SIZE
    }

    /// The byte of the image at a guest-physical address near 4 GiB. The page in front is the one of ones, which is what nobody
    /// answers with.
    #[inline]
    pub fn rom_offset(&self, gpa: u64) -> Option<RamOffset> {
        let rom_size = self.rom_size.load(Relaxed);
        let below_end = HIGH_RAM_BASE - gpa;
        (rom_size != 0 && below_end <= rom_size + PAGE_SIZE).then(|| self.rom_start() + rom_size - below_end)
    }

    /// The inverse.
    pub fn rom_gpa(&self, offset: RamOffset) -> u64 {
        HIGH_RAM_BASE - (self.rom_start() + self.rom_size.load(Relaxed) - offset)
    }

    fn state(&self, gpa: u64) -> u8 {
        let page = gpa.checked_sub(SHADOW_BASE).map(|offset| (offset / PAGE_SIZE) as usize);
        page.and_then(|page| self.shadow.get(page)).map_or(PLAIN_RAM, |state| state.load(Relaxed))
    }

    /// What answers reads at an address in the shadowed area.
    pub fn read_offset(&self, gpa: u64) -> RamOffset {
        if self.state(gpa) & READS_RAM != 0 {
            return gpa;
        }
        let (rom_size, below_end) = (self.rom_size.load(Relaxed), SHADOW_END - gpa);
        if below_end <= rom_size.min(LOW_ALIAS_SIZE) {
            self.rom_start() + rom_size - below_end
        } else {
            self.ones() + gpa % PAGE_SIZE
        }
    }

    /// Whether writes at an address reach RAM.
    pub fn is_writable(&self, gpa: u64) -> bool {
        self.state(gpa) & WRITES_RAM != 0
    }

    /// Whether the page of a RAM offset, or of the image, is not to be stored to as it is read.
    #[inline]
    pub fn is_protected(&self, offset: RamOffset) -> bool {
        offset >= self.ram_size || (SHADOW_BASE..SHADOW_END).contains(&offset) && self.state(offset) != PLAIN_RAM
    }

    /// Say who answers in a range, which consists of whole pages; what is outside of the area stays. Returns whether that has
    /// changed anything.
    pub fn set_shadow(&self, gpa: u64, len: u64, reads_ram: bool, writes_ram: bool) -> bool {
        let state = if reads_ram { READS_RAM } else { 0 } | if writes_ram { WRITES_RAM } else { 0 };
        let pages = (SHADOW_BASE..).step_by(PAGE_SIZE as usize).zip(&self.shadow);
        pages
            .filter(|&(page, _)| page >= gpa && page - gpa < len)
            .fold(false, |changed, (_, slot)| slot.swap(state, Relaxed) != state || changed)
    }
}
