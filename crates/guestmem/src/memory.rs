//! The mapping and its page bits.
#![expect(unsafe_code, reason = "guest memory is reached through the address of its mapping")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use vm_memory::mmap::MmapRegion;

use crate::firmware::{self, Firmware};
use crate::{Error, HIGH_RAM_BASE, LOW_RAM_END, MAX_RAM_SIZE, MAX_ROM_SIZE, PAGE_SIZE, SHADOW_BASE, SHADOW_END};

/// Position of a byte in RAM, counted without the hole, or behind it in the firmware's image. Always in the mapping of the memory
/// that gave it out.
pub type RamOffset = u64;

/// Integers that guest memory is read and written as. Little-endian, any alignment.
pub trait Scalar: Copy + sealed::Sealed {}
mod sealed {
    /// Keeps [`super::Scalar`] to types for which every bit pattern is valid.
    pub trait Sealed {}
}
macro_rules! scalar { ($($t:ty)*) => { $(impl sealed::Sealed for $t {} impl Scalar for $t {})* } }
scalar!(u8 u16 u32 u64 u128);

/// One bit a page, allocated only where it is touched.
struct PageBits(Box<[AtomicU64]>);

impl PageBits {
    fn new(pages: u64) -> Self {
        // Zeroed by the allocator (calloc), so untouched words cost nothing.
        let words: Vec<u64> = vec![0; pages.div_ceil(64) as usize];
        Self(words.into_iter().map(AtomicU64::new).collect())
    }
    #[inline]
    fn get(&self, page: u64) -> bool {
        self.0[(page / 64) as usize].load(Relaxed) & 1 << (page % 64) != 0
    }
    #[inline]
    fn set(&self, page: u64) {
        self.0[(page / 64) as usize].fetch_or(1 << (page % 64), Relaxed);
    }
    #[inline]
    fn clear(&self, page: u64) {
        self.0[(page / 64) as usize].fetch_and(!(1 << (page % 64)), Relaxed);
    }
}

struct Inner {
    region: MmapRegion<()>,
    firmware: Firmware,
    dirty: PageBits,
    /// May hold something: written since it was zero.
    touched: PageBits,
    code: PageBits,
    /// Set when a page with its code bit was written through [`GuestMemory::write_bytes`].
    code_written: AtomicBool,
    code_written_pages: std::sync::Mutex<Vec<(u64, u64)>>,
    /// Set when dirty bits were cleared, so that engines withdraw the pages that they opened for stores.
    dirty_cleared: AtomicBool,
    /// Set when another offset than before is at some address, so that engines forget translations.
    moved: AtomicBool,
}

impl Inner {
    fn set_dirty(&self, page: u64) {
        self.dirty.set(page);
        self.touched.set(page);
    }
}

/// A machine's RAM. Clones are handles to the same memory.
#[derive(Clone)]
pub struct GuestMemory {
    // Those of `inner.region`: the hot path takes them from here.
    base: *mut u8,
    /// Bytes of RAM.
    size: u64,
    /// Bytes of the mapping.
    mapped: u64,
    inner: Arc<Inner>,
}

// SAFETY: `base` points into `inner.region`, which `inner` keeps alive; all else is Send and Sync by itself. Accesses through
// `base` are plain copies of integers whose every bit pattern is valid, as in any memory shared with a guest.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Map `size` bytes of zeroed RAM. Pages cost host memory once they are touched.
    ///
    /// # Errors
    /// [`Error::Size`] unless `size` is a positive multiple of 4096 up to [`MAX_RAM_SIZE`]; [`Error::Map`] if the host refuses.
    pub fn new(size: u64) -> Result<Self, Error> {
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) || size > MAX_RAM_SIZE {
            return Err(Error::Size { size, max: MAX_RAM_SIZE });
        }
        let mapped = size + firmware::AREA_SIZE;
        let region = MmapRegion::<()>::new(mapped as usize).map_err(|source| Error::Map { size, source })?;
        let base = region.as_ptr();
        let pages = mapped / PAGE_SIZE;
        let inner = Arc::new(Inner {
            dirty: PageBits::new(pages),
            touched: PageBits::new(pages),
            code: PageBits::new(pages),
            code_written: AtomicBool::new(false),
            code_written_pages: std::sync::Mutex::default(),
            dirty_cleared: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            firmware: Firmware::new(size),
            region,
        });
        Ok(Self { base, size, mapped, inner })
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        debug_assert_eq!(self.mapped, self.inner.region.size() as u64);
        self.size
    }

    /// RAM in guest-physical space: `(gpa, len)`, ascending. One range, or two when RAM goes on above the hole.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let low = self.size.min(LOW_RAM_END);
        let mut ranges = vec![(0, low)];
        if self.size > low {
            ranges.push((HIGH_RAM_BASE, self.size - low));
        }
        ranges
    }

    /// Where the byte at `gpa` is read: in RAM or in the firmware's image; `None` if it is neither. Valid for the whole page of
    /// `gpa`.
    #[inline]
    pub fn offset(&self, gpa: u64) -> Option<RamOffset> {
        if gpa < LOW_RAM_END {
            if (SHADOW_BASE..SHADOW_END).contains(&gpa) && SHADOW_END <= self.size {
                return Some(self.inner.firmware.read_offset(gpa));
            }
            (gpa < self.size).then_some(gpa)
        } else if gpa >= HIGH_RAM_BASE {
            let offset = (gpa - HIGH_RAM_BASE).checked_add(LOW_RAM_END)?;
            (offset < self.size).then_some(offset)
        } else {
            self.inner.firmware.rom_offset(gpa)
        }
    }

    /// Where a store to `gpa` goes when [`GuestMemory::open_for_stores`] has refused what is read there; `None`: nowhere. Marks
    /// the page dirty.
    pub fn offset_for_stores(&self, gpa: u64) -> Option<RamOffset> {
        let read = self.offset(gpa)?;
        let offset = if !self.inner.firmware.is_protected(read) {
            read
        } else if gpa < SHADOW_END && self.inner.firmware.is_writable(gpa) {
            gpa
        } else {
            return None;
        };
        self.inner.set_dirty(offset / PAGE_SIZE);
        Some(offset)
    }

    /// The guest-physical address of a byte: the inverse of [`GuestMemory::offset`], but for RAM behind an image.
    #[inline]
    pub fn gpa(&self, offset: RamOffset) -> u64 {
        if offset < LOW_RAM_END && offset < self.size {
            offset
        } else if offset < self.size {
            offset - LOW_RAM_END + HIGH_RAM_BASE
        } else {
            self.inner.firmware.rom_gpa(offset)
        }
    }

    /// Whether an offset is one of RAM, and not of the firmware's image.
    #[inline]
    pub fn is_ram(&self, offset: RamOffset) -> bool {
        offset < self.size
    }

    /// Put firmware's image where it ends at 4 GiB and, its last 128 KiB, below 1 MiB; who answers there is up to
    /// [`GuestMemory::set_shadow`], and is RAM at first. An empty image takes the last one away.
    ///
    /// # Errors
    /// [`Error::RomSize`] unless it is a multiple of 4096 up to [`MAX_ROM_SIZE`].
    pub fn set_rom(&self, image: &[u8]) -> Result<(), Error> {
        let size = image.len() as u64;
        if !size.is_multiple_of(PAGE_SIZE) || size > MAX_ROM_SIZE {
            return Err(Error::RomSize { size, max: MAX_ROM_SIZE });
        }
        let firmware = &self.inner.firmware;
        firmware.set_shadow(SHADOW_BASE, SHADOW_END - SHADOW_BASE, true, true);
        self.write_at(firmware.ones(), &[0xFF; PAGE_SIZE as usize]);
        self.write_at(firmware.rom_start(), image);
        firmware.set_rom_size(size);
        self.inner.moved.store(true, Relaxed);
        Ok(())
    }

    /// Whether there is an image.
    pub fn has_rom(&self) -> bool {
        self.inner.firmware.is_present()
    }

    /// Say who answers from 768 KiB to 1 MiB, in a range of whole pages: reads come from RAM or from the image, writes go to RAM
    /// or nowhere. Without an image, all stays RAM.
    pub fn set_shadow(&self, gpa: u64, len: u64, reads_ram: bool, writes_ram: bool) {
        if self.has_rom() && self.inner.firmware.set_shadow(gpa, len, reads_ram, writes_ram) {
            self.inner.moved.store(true, Relaxed);
        }
    }

    /// Whether something else than before is at some address since the last call: translations must be forgotten.
    #[inline]
    pub fn take_moved(&self) -> bool {
        self.inner.moved.load(Relaxed) && self.inner.moved.swap(false, Relaxed)
    }

    /// Copy bytes from an offset on, which lie in one page.
    ///
    /// # Panics
    /// If they reach beyond the mapping, which [`GuestMemory::offset`] rules out.
    pub fn read_at(&self, offset: RamOffset, buffer: &mut [u8]) {
        assert!(offset <= self.mapped && buffer.len() as u64 <= self.mapped - offset);
        // SAFETY: in bounds of the mapping by the assertion; `buffer` is not guest memory.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset as usize), buffer.as_mut_ptr(), buffer.len()) }
    }

    /// Copy bytes to an offset, whatever is there, with all that [`GuestMemory::write_bytes`] says.
    fn write_at(&self, offset: RamOffset, bytes: &[u8]) {
        assert!(offset <= self.mapped && bytes.len() as u64 <= self.mapped - offset);
        // SAFETY: as in `read_at`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset as usize), bytes.len()) }
        if !bytes.is_empty() {
            self.note_write(offset, bytes.len() as u64);
        }
    }

    /// Load an integer. The caller has checked that it does not cross a page.
    ///
    /// # Panics
    /// If it reaches beyond the mapping, which [`GuestMemory::offset`] rules out.
    #[inline(always)]
    pub fn load<T: Scalar>(&self, offset: RamOffset) -> T {
        assert!(offset <= self.mapped - size_of::<T>() as u64);
        // SAFETY: in bounds of the mapping by the assertion (its size is at least a page, so the subtraction holds);
        // any bit pattern is a valid `T`.
        unsafe { self.base.add(offset as usize).cast::<T>().read_unaligned() }
    }

    /// Store an integer in a page that [`GuestMemory::open_for_stores`] has opened. Does not cross a page.
    ///
    /// # Panics
    /// If it reaches beyond the mapping.
    #[inline(always)]
    pub fn store<T: Scalar>(&self, offset: RamOffset, value: T) {
        assert!(offset <= self.mapped - size_of::<T>() as u64);
        // SAFETY: as in `load`.
        unsafe { self.base.add(offset as usize).cast::<T>().write_unaligned(value) }
    }

    /// Copy `len` bytes within RAM to a page that [`GuestMemory::open_for_stores`] has opened; neither range crosses a page.
    ///
    /// # Panics
    /// If a range reaches beyond the mapping.
    #[inline]
    pub fn copy_run(&self, from: RamOffset, to: RamOffset, len: u64) {
        assert!(len <= self.mapped && from <= self.mapped - len && to <= self.mapped - len);
        // SAFETY: both ranges are in bounds of the mapping by the assertion; `copy` allows them to overlap.
        unsafe { std::ptr::copy(self.base.add(from as usize), self.base.add(to as usize), len as usize) }
    }

    /// Mark the page of `offset` dirty, and say whether [`GuestMemory::store`] may be used on it from now on: not if it
    /// holds decoded code, or is protected.
    #[inline]
    pub fn open_for_stores(&self, offset: RamOffset) -> bool {
        if self.inner.firmware.is_protected(offset) {
            return false;
        }
        let page = offset / PAGE_SIZE;
        self.inner.set_dirty(page);
        !self.inner.code.get(page)
    }

    /// Whether every byte of a range is RAM.
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        self.find_range(gpa, len).is_ok()
    }

    /// Copy what is read from `gpa` on into `buffer`.
    ///
    /// # Errors
    /// [`Error::NotRam`] if some byte is neither RAM nor of the image; `buffer` is then unspecified.
    pub fn read_bytes(&self, gpa: u64, buffer: &mut [u8]) -> Result<(), Error> {
        if !self.may_be_shadowed(gpa, buffer.len() as u64) {
            if let Some(offset) = self.find_range(gpa, buffer.len() as u64)? {
                self.read_at(offset, buffer);
            }
            return Ok(());
        }
        for (gpa, range) in pages(gpa, buffer.len()) {
            let error = Error::NotRam { gpa, len: range.len() as u64 };
            self.read_at(self.offset(gpa).ok_or(error)?, &mut buffer[range]);
        }
        Ok(())
    }

    /// Copy `bytes` to guest memory at `gpa`, mark the pages dirty, and report writes to pages with decoded code
    /// ([`GuestMemory::take_code_writes`]).
    ///
    /// # Errors
    /// [`Error::NotRam`] if some byte is not RAM, or protected; nothing is then written.
    pub fn write_bytes(&self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        if !self.may_be_shadowed(gpa, bytes.len() as u64) {
            if let Some(offset) = self.find_range(gpa, bytes.len() as u64)? {
                self.write_at(offset, bytes);
            }
            return Ok(());
        }
        let error = Error::NotRam { gpa, len: bytes.len() as u64 };
        let targets: Option<Vec<_>> =
            pages(gpa, bytes.len()).map(|(gpa, range)| Some((self.offset_for_stores(gpa)?, range))).collect();
        for (offset, range) in targets.ok_or(error)? {
            self.write_at(offset, &bytes[range]);
        }
        Ok(())
    }

    /// Whether a range touches addresses where an image may answer: then it must be looked at page by page.
    #[inline]
    fn may_be_shadowed(&self, gpa: u64, len: u64) -> bool {
        self.has_rom()
            && (gpa < SHADOW_END && gpa.saturating_add(len) > SHADOW_BASE
                || (LOW_RAM_END..HIGH_RAM_BASE).contains(&gpa))
    }

    /// Zero `len` bytes at `gpa`, as [`GuestMemory::write_bytes`] would. Pages that are zero anyway cost nothing, so that it
    /// takes as long as what was written there before did.
    ///
    /// # Errors
    /// [`Error::NotRam`] if some byte is not RAM; nothing is then written.
    pub fn clear(&self, gpa: u64, len: u64) -> Result<(), Error> {
        if self.may_be_shadowed(gpa, len) {
            return self.clear_shadowed(gpa, len);
        }
        let Some(offset) = self.find_range(gpa, len)? else { return Ok(()) };
        let end = offset + len;
        let word_of = |offset: u64| (offset / PAGE_SIZE / 64) as usize;
        for (index, word) in (word_of(offset)..).zip(&self.inner.touched.0[word_of(offset)..=word_of(end - 1)]) {
            let mut bits = word.load(Relaxed);
            while bits != 0 {
                let page = index as u64 * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                let (from, to) = (offset.max(page * PAGE_SIZE), end.min((page + 1) * PAGE_SIZE));
                if from < to {
                    self.clear_in_page(page, from, to - from);
                }
            }
        }
        Ok(())
    }

    /// [`GuestMemory::clear`] where an image may be.
    fn clear_shadowed(&self, gpa: u64, len: u64) -> Result<(), Error> {
        let error = Error::NotRam { gpa, len };
        if len > self.size {
            return Err(error);
        }
        let targets: Option<Vec<_>> =
            pages(gpa, len as usize).map(|(gpa, range)| Some((self.offset_for_stores(gpa)?, range))).collect();
        for (offset, range) in targets.ok_or(error)? {
            self.clear_in_page(offset / PAGE_SIZE, offset, range.len() as u64);
        }
        Ok(())
    }

    /// Zero `len` bytes at `offset`, which lie in `page`.
    fn clear_in_page(&self, page: u64, offset: RamOffset, len: u64) {
        assert!(offset <= self.size && len <= self.size - offset);
        // SAFETY: in bounds of RAM, and so of the mapping, by the assertion.
        unsafe { self.base.add(offset as usize).write_bytes(0, len as usize) };
        self.note_write(offset, len);
        if len == PAGE_SIZE {
            self.inner.touched.clear(page);
            // Engines that opened the page for stores must open it again, which marks it touched.
            self.inner.dirty_cleared.store(true, Relaxed);
        }
    }

    /// Where a guest-physical range is in RAM; `None` if it is empty. Below and above the hole are not adjacent in
    /// guest-physical space, so a valid range lies in one of them.
    fn find_range(&self, gpa: u64, len: u64) -> Result<Option<RamOffset>, Error> {
        if len == 0 {
            return Ok(None);
        }
        let error = Error::NotRam { gpa, len };
        let (Some(first), Some(last_gpa)) = (self.offset(gpa), gpa.checked_add(len - 1)) else {
            return Err(error);
        };
        match self.offset(last_gpa) {
            Some(last) if last >= first && last - first == len - 1 => Ok(Some(first)),
            _ => Err(error),
        }
    }

    /// Mark a written range dirty and queue it if it touches decoded code. `len` is in bytes, at least 1.
    fn note_write(&self, offset: RamOffset, len: u64) {
        for page in offset / PAGE_SIZE..=(offset + len - 1) / PAGE_SIZE {
            self.inner.set_dirty(page);
            if self.inner.code.get(page) {
                let start = offset.max(page * PAGE_SIZE);
                let end = (offset + len).min((page + 1) * PAGE_SIZE);
                self.inner
                    .code_written_pages
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push((start, end - start));
                self.inner.code_written.store(true, Relaxed);
            }
        }
    }

    /// The writes to pages with decoded code since the last call, as `(offset, len)` within one page each.
    pub fn take_code_writes(&self) -> Vec<(RamOffset, u64)> {
        if !(self.inner.code_written.load(Relaxed) && self.inner.code_written.swap(false, Relaxed)) {
            return Vec::new();
        }
        let mut pages = self.inner.code_written_pages.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut pages)
    }

    /// Say whether the page of `offset` holds decoded code. Before setting it an engine withdraws the page from every
    /// software TLB that may store to it.
    pub fn set_code(&self, offset: RamOffset, holds_code: bool) {
        let page = offset / PAGE_SIZE;
        if holds_code { self.inner.code.set(page) } else { self.inner.code.clear(page) }
    }

    /// Whether the page of `offset` holds decoded code.
    #[inline]
    pub fn is_code(&self, offset: RamOffset) -> bool {
        self.inner.code.get(offset / PAGE_SIZE)
    }

    /// Whether the page of `offset` was written since its dirty bit was last taken.
    pub fn is_dirty(&self, offset: RamOffset) -> bool {
        self.inner.dirty.get(offset / PAGE_SIZE)
    }

    /// Guest-physical addresses of the pages written since the last call, ascending; their dirty bits are cleared.
    pub fn take_dirty_pages(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for (index, word) in self.inner.dirty.0.iter().enumerate() {
            if word.load(Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Relaxed);
            while bits != 0 {
                let page = index as u64 * 64 + u64::from(bits.trailing_zeros());
                pages.push(self.gpa(page * PAGE_SIZE));
                bits &= bits - 1;
            }
        }
        self.inner.dirty_cleared.store(true, Relaxed);
        pages
    }

    /// Offsets of the pages that may hold something, ascending: all others are zero.
    pub fn touched_pages(&self) -> impl Iterator<Item = RamOffset> + '_ {
        self.inner.touched.0.iter().enumerate().filter(|(_, word)| word.load(Relaxed) != 0).flat_map(|(index, word)| {
            let bits = word.load(Relaxed);
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| (index as u64 * 64 + bit) * PAGE_SIZE)
        })
    }

    /// Whether dirty bits were cleared since the last call: pages opened for stores must then be opened again.
    #[inline]
    pub fn take_dirty_cleared(&self) -> bool {
        self.inner.dirty_cleared.load(Relaxed) && self.inner.dirty_cleared.swap(false, Relaxed)
    }
}

/// Split a guest-physical range at page boundaries: the address of each part, and its place in the range.
fn pages(gpa: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let here = gpa.wrapping_add(done as u64);
        let part = ((PAGE_SIZE - here % PAGE_SIZE) as usize).min(len - done);
        done += part;
        (part != 0).then(|| (here, done - part..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// 2 MiB of RAM, and an image whose bytes are the numbers of its pages.
    fn with_firmware() -> GuestMemory {
        let memory = GuestMemory::new(2 * MIB).unwrap();
        let image: Vec<u8> = (0..256 << 10).map(|at| (at / PAGE_SIZE) as u8).collect();
        memory.set_rom(&image).unwrap();
        memory
    }

    fn byte(memory: &GuestMemory, gpa: u64) -> u8 {
        memory.load(memory.offset(gpa).unwrap())
    }

    #[test]
    fn an_image_ends_at_4_gib_and_cannot_be_written() {
        let memory = with_firmware();
        assert!(memory.take_moved());
        assert!(!memory.take_moved());
        assert_eq!([0xFFFC_0000, 0xFFFF_FFFF].map(|gpa| byte(&memory, gpa)), [0, 63]);
        assert_eq!(memory.offset(0xFFFB_E000), None);
        let offset = memory.offset(0xFFFF_0000).unwrap();
        assert_eq!((memory.gpa(offset), memory.is_ram(offset)), (0xFFFF_0000, false));
        assert!(!memory.open_for_stores(offset));
        assert_eq!(memory.offset_for_stores(0xFFFF_0000), None);
        assert!(memory.write_bytes(0xFFFF_FFFF, &[1]).is_err());
        assert!(memory.read_bytes(0xFFFF_FFFF, &mut [0; 2]).is_err(), "RAM does not reach 4 GiB");
    }

    #[test]
    fn each_page_below_1_mib_is_ram_or_image_for_reads_and_for_writes() {
        let memory = with_firmware();
        let (gpa, last_page) = (0xF_F000, 63);
        memory.write_bytes(gpa, &[0xAA]).unwrap();
        for (reads_ram, writes_ram, read, target) in [
            (true, true, 0xAA, Some(gpa)),
            (true, false, 0xAA, None),
            (false, true, last_page, Some(gpa)),
            (false, false, last_page, None),
        ] {
            memory.set_shadow(gpa, PAGE_SIZE, reads_ram, writes_ram);
            assert_eq!(byte(&memory, gpa), read);
            assert_eq!(memory.offset_for_stores(gpa), target);
            assert_eq!(memory.open_for_stores(memory.offset(gpa).unwrap()), reads_ram && writes_ram);
        }
        assert_eq!(byte(&memory, 0xF_E000), 0, "the page beside is RAM");
        memory.set_shadow(0xC_0000, 0x4_0000, false, false);
        assert_eq!([0xD_FFFF, 0xE_0000].map(|gpa| byte(&memory, gpa)), [0xFF, 32], "128 KiB appear");
    }

    #[test]
    fn ranges_across_the_border_are_read_and_written_as_the_processors_see_them() {
        let memory = with_firmware();
        memory.set_shadow(0xF_F000, PAGE_SIZE, false, false);
        let mut bytes = [0; 4];
        memory.read_bytes(0xF_FFFE, &mut bytes).unwrap();
        assert_eq!(bytes, [63, 63, 0, 0]);
        assert!(memory.write_bytes(0xF_EFFF, &[1, 2]).is_err());
        assert_eq!(byte(&memory, 0xF_EFFF), 0, "all or nothing");
        memory.set_shadow(0xF_F000, PAGE_SIZE, false, true);
        memory.write_bytes(0xF_EFFF, &[1, 2]).unwrap();
        memory.set_shadow(0xF_F000, PAGE_SIZE, true, true);
        memory.read_bytes(0xF_EFFF, &mut bytes[..2]).unwrap();
        assert_eq!(bytes[..2], [1, 2]);
    }

    #[test]
    fn an_image_can_be_taken_away() {
        let memory = with_firmware();
        memory.set_shadow(0xC_0000, 0x4_0000, false, false);
        assert!(memory.clear(0xB_F000, 0x2000).is_err());
        memory.set_rom(&[]).unwrap();
        assert_eq!((memory.offset(0xFFFF_0000), memory.offset(0xF_0000)), (None, Some(0xF_0000)));
        memory.clear(0xB_F000, 0x2000).unwrap();
    }

    #[test]
    fn without_an_image_nothing_is_shadowed() {
        let memory = GuestMemory::new(2 * MIB).unwrap();
        memory.set_shadow(0xC_0000, 0x4_0000, false, false);
        assert_eq!(memory.offset_for_stores(0xF_0000), Some(0xF_0000));
        assert_eq!(memory.offset(0xFFFF_FFF0), None);
        assert!(!memory.take_moved());
        for size in [100, MAX_ROM_SIZE + PAGE_SIZE] {
            assert!(matches!(memory.set_rom(&vec![0; size as usize]), Err(Error::RomSize { .. })));
        }
    }

    #[test]
    fn ram_goes_on_above_the_hole() {
        let memory = GuestMemory::new(LOW_RAM_END + 0x2000).unwrap();
        assert_eq!(memory.ranges(), [(0, LOW_RAM_END), (HIGH_RAM_BASE, 0x2000)]);
        assert_eq!(memory.offset(LOW_RAM_END), None);
        assert_eq!(memory.offset(HIGH_RAM_BASE), Some(LOW_RAM_END));
        assert_eq!(memory.gpa(LOW_RAM_END), HIGH_RAM_BASE);
        assert_eq!(memory.offset(HIGH_RAM_BASE + 0x2000), None);
        assert_eq!(memory.offset(u64::MAX), None);
        assert!(memory.write_bytes(LOW_RAM_END - 1, &[1, 2]).is_err());
        assert!(memory.read_bytes(u64::MAX, &mut [0; 2]).is_err());
        assert!(memory.contains(LOW_RAM_END - 1, 1) && !memory.contains(LOW_RAM_END - 1, 2));
    }

    #[test]
    fn what_is_written_is_dirty_once() {
        let memory = GuestMemory::new(0x10000).unwrap();
        memory.write_bytes(0x1fff, &[1, 2]).unwrap();
        assert_eq!(memory.take_dirty_pages(), [0x1000, 0x2000]);
        assert!(memory.take_dirty_cleared());
        assert!(memory.take_dirty_pages().is_empty());
        let mut bytes = [0; 2];
        memory.read_bytes(0x1fff, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2]);
    }

    #[test]
    fn a_write_to_decoded_code_is_reported_with_its_range() {
        let memory = GuestMemory::new(0x10000).unwrap();
        memory.set_code(0x3000, true);
        assert!(!memory.open_for_stores(0x3008));
        memory.write_bytes(0x2ffe, &[0; 4]).unwrap();
        assert_eq!(memory.take_code_writes(), [(0x3000, 2)]);
        assert!(memory.take_code_writes().is_empty());
        memory.set_code(0x3000, false);
        assert!(memory.open_for_stores(0x3008));
    }

    #[test]
    fn clearing_zeroes_just_the_range() {
        let memory = GuestMemory::new(0x10_0000).unwrap();
        memory.write_bytes(0x1000, &[1; 0x3000]).unwrap();
        memory.set_code(0x3000, true);
        memory.take_dirty_pages();
        memory.clear(0x1800, 0x2000).unwrap();
        let mut bytes = [0; 0x4000];
        memory.read_bytes(0x1000, &mut bytes).unwrap();
        let ones = |range: std::ops::Range<usize>| bytes[range].iter().filter(|&&byte| byte == 1).count();
        assert_eq!((ones(0..0x800), ones(0x800..0x2800), ones(0x2800..0x3000)), (0x800, 0, 0x800));
        assert_eq!(memory.take_dirty_pages(), [0x1000, 0x2000, 0x3000]);
        assert_eq!(memory.take_code_writes(), [(0x3000, 0x800)]);
        assert_eq!(memory.touched_pages().collect::<Vec<_>>(), [0x1000, 0x3000], "a page of zeros is as good as new");
        assert!(memory.clear(0x10_0000 - 1, 2).is_err());
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for size in [0, 1, 4097, MAX_RAM_SIZE + PAGE_SIZE, u64::MAX] {
            assert!(matches!(GuestMemory::new(size), Err(Error::Size { .. })));
        }
    }

    #[test]
    #[should_panic(expected = "offset <=")]
    fn a_load_beyond_ram_panics_instead_of_reading() {
        let memory = GuestMemory::new(0x1000).unwrap();
        memory.load::<u64>(memory.mapped - 4);
    }
}
