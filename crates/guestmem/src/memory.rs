//! The mapping and its page bits.
#![expect(unsafe_code, reason = "guest memory is reached through the address of its mapping")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use vm_memory::mmap::MmapRegion;

use crate::{Error, HIGH_RAM_BASE, LOW_RAM_END, MAX_RAM_SIZE, PAGE_SIZE};

/// Position of a byte in RAM, counted without the hole. Always below the size of the memory that gave it out.
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
    dirty: PageBits,
    /// May hold something: written since it was zero.
    touched: PageBits,
    code: PageBits,
    /// Set when a page with its code bit was written through [`GuestMemory::write_bytes`].
    code_written: AtomicBool,
    code_written_pages: std::sync::Mutex<Vec<(u64, u64)>>,
    /// Set when dirty bits were cleared, so that engines withdraw the pages that they opened for stores.
    dirty_cleared: AtomicBool,
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
    size: u64,
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
        let region = MmapRegion::<()>::new(size as usize).map_err(|source| Error::Map { size, source })?;
        let base = region.as_ptr();
        let pages = size / PAGE_SIZE;
        let inner = Arc::new(Inner {
            dirty: PageBits::new(pages),
            touched: PageBits::new(pages),
            code: PageBits::new(pages),
            code_written: AtomicBool::new(false),
            code_written_pages: std::sync::Mutex::default(),
            dirty_cleared: AtomicBool::new(false),
            region,
        });
        Ok(Self { base, size, inner })
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        debug_assert_eq!(self.size, self.inner.region.size() as u64);
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

    /// Where the byte at `gpa` lies in RAM; `None` if it is not RAM. Valid for the whole page of `gpa`.
    #[inline]
    pub fn offset(&self, gpa: u64) -> Option<RamOffset> {
        if gpa < LOW_RAM_END {
            (gpa < self.size).then_some(gpa)
        } else {
            let offset = gpa.checked_sub(HIGH_RAM_BASE)?.checked_add(LOW_RAM_END)?;
            (offset < self.size).then_some(offset)
        }
    }

    /// The guest-physical address of a byte of RAM: the inverse of [`GuestMemory::offset`].
    #[inline]
    pub fn gpa(&self, offset: RamOffset) -> u64 {
        if offset < LOW_RAM_END { offset } else { offset - LOW_RAM_END + HIGH_RAM_BASE }
    }

    /// Load an integer. The caller has checked that it does not cross a page.
    ///
    /// # Panics
    /// If it reaches beyond RAM, which [`GuestMemory::offset`] rules out.
    #[inline(always)]
    pub fn load<T: Scalar>(&self, offset: RamOffset) -> T {
        assert!(offset <= self.size - size_of::<T>() as u64);
        // SAFETY: in bounds of the mapping by the assertion (its size is at least a page, so the subtraction holds);
        // any bit pattern is a valid `T`.
        unsafe { self.base.add(offset as usize).cast::<T>().read_unaligned() }
    }

    /// Store an integer in a page that [`GuestMemory::open_for_stores`] has opened. Does not cross a page.
    ///
    /// # Panics
    /// If it reaches beyond RAM.
    #[inline(always)]
    pub fn store<T: Scalar>(&self, offset: RamOffset, value: T) {
        assert!(offset <= self.size - size_of::<T>() as u64);
        // SAFETY: as in `load`.
        unsafe { self.base.add(offset as usize).cast::<T>().write_unaligned(value) }
    }

    /// Copy `len` bytes within RAM to a page that [`GuestMemory::open_for_stores`] has opened; neither range crosses a page.
    ///
    /// # Panics
    /// If a range reaches beyond RAM.
    #[inline]
    pub fn copy_run(&self, from: RamOffset, to: RamOffset, len: u64) {
        assert!(len <= self.size && from <= self.size - len && to <= self.size - len);
        // SAFETY: both ranges are in bounds of the mapping by the assertion; `copy` allows them to overlap.
        unsafe { std::ptr::copy(self.base.add(from as usize), self.base.add(to as usize), len as usize) }
    }

    /// Mark the page of `offset` dirty, and say whether [`GuestMemory::store`] may be used on it from now on: not if it
    /// holds decoded code.
    #[inline]
    pub fn open_for_stores(&self, offset: RamOffset) -> bool {
        let page = offset / PAGE_SIZE;
        self.inner.set_dirty(page);
        !self.inner.code.get(page)
    }

    /// Copy guest memory from `gpa` into `buffer`.
    ///
    /// # Errors
    /// [`Error::NotRam`] if some byte is not RAM; `buffer` is then unspecified.
    pub fn read_bytes(&self, gpa: u64, buffer: &mut [u8]) -> Result<(), Error> {
        if let Some(offset) = self.find_range(gpa, buffer.len() as u64)? {
            // SAFETY: `find_range` found that many bytes inside the mapping; `buffer` is not guest memory.
            unsafe {
                std::ptr::copy_nonoverlapping(self.base.add(offset as usize), buffer.as_mut_ptr(), buffer.len());
            }
        }
        Ok(())
    }

    /// Copy `bytes` to guest memory at `gpa`, mark the pages dirty, and report writes to pages with decoded code
    /// ([`GuestMemory::take_code_writes`]).
    ///
    /// # Errors
    /// [`Error::NotRam`] if some byte is not RAM; nothing is then written.
    pub fn write_bytes(&self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        if let Some(offset) = self.find_range(gpa, bytes.len() as u64)? {
            // SAFETY: as in `read_bytes`.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset as usize), bytes.len());
            }
            self.note_write(offset, bytes.len() as u64);
        }
        Ok(())
    }

    /// Zero `len` bytes at `gpa`, as [`GuestMemory::write_bytes`] would. Pages that are zero anyway cost nothing, so that it
    /// takes as long as what was written there before did.
    ///
    /// # Errors
    /// [`Error::NotRam`] if some byte is not RAM; nothing is then written.
    pub fn clear(&self, gpa: u64, len: u64) -> Result<(), Error> {
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

    /// Zero `len` bytes at `offset`, which lie in `page`.
    fn clear_in_page(&self, page: u64, offset: RamOffset, len: u64) {
        assert!(offset <= self.size && len <= self.size - offset);
        // SAFETY: in bounds of the mapping by the assertion.
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
        if !self.inner.code_written.swap(false, Relaxed) {
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

    /// RAM offsets of the pages that may hold something, ascending: all others are zero.
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

#[cfg(test)]
mod tests {
    use super::*;

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
        GuestMemory::new(0x1000).unwrap().load::<u64>(0xffc);
    }
}
