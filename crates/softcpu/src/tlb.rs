//! The software TLB: linear pages to RAM, by the kind of access that is allowed without looking again.
//!
//! An entry exists only for RAM. It can be read through once the walk has set the accessed bit, and stored through once
//! the dirty bit is set, the page is marked dirty in [`guestmem`], and no decoded code lives in it; so the fast paths in
//! [`crate::mem`] have nothing left to check. Flushing everything when only something was asked for is always allowed (SDM vol. 3
//! section 4.10.4.1).

/// Who accesses. Each has entries of its own, so that changing between them costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MmuIndex {
    /// Supervisor who may touch user pages.
    Supervisor = 0,
    /// Supervisor kept from user pages by SMAP.
    SupervisorSmap = 1,
    /// CPL 3.
    User = 2,
    /// Every access must be looked at (data breakpoints, alignment checks): never holds an entry.
    Checked = 3,
}

const ENTRIES: usize = 1024;
/// Entries whose places are remembered, so that a flush of a few clears a few.
const MAX_FILLED: usize = 128;
/// No page has this address.
const INVALID: u64 = 1;

#[derive(Clone, Copy)]
struct Entry {
    read: u64,
    write: u64,
    /// Added to a linear address gives the RAM offset.
    addend: u64,
}

const EMPTY: Entry = Entry { read: INVALID, write: INVALID, addend: 0 };

/// Entries of the second level: 128 MiB worth of pages.
const SECOND_ENTRIES: usize = 1 << 15;

/// What the second level knows of a page: its linear address with [`STORABLE`] and the MMU index in the low bits, its RAM
/// offset, and the flush count under which it was made. Numbers, so that the allocator hands out a table that is zero and costs what
/// is touched.
type SecondEntry = [u64; 3];
/// In the first word of a [`SecondEntry`]: rights and dirty bit allow stores without a walk.
const STORABLE: u64 = 1 << 2;

#[derive(Clone, Copy)]
struct FetchEntry {
    page: u64,
    gpa: u64,
}

/// One vCPU's TLB.
pub struct Tlb {
    data: Box<[[Entry; ENTRIES]; 4]>,
    /// Places in `data` that were filled since the last flush; if there are [`MAX_FILLED`], there may be more.
    filled: Vec<(u8, u16)>,
    /// Behind the first level: larger, looked into only when that misses, and flushed by counting.
    second: Vec<SecondEntry>,
    /// Number of flushes, from 1: entries of the second level from before the last one do not count.
    flushes: u64,
    fetch: [[FetchEntry; 64]; 2],
    /// Gigabytes that were fetched from since `fetch` was flushed, by [`Tlb::gigabyte_bit`].
    fetched: u64,
    /// Some entry is a piece of a large page.
    large: bool,
    /// Counts flushes of what was fetched from; whatever is derived from translations of code is stale when it changes.
    pub epoch: u64,
    /// Counts whatever made this forget anything; what page tables were read for is stale when it changes.
    pub generation: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            data: Box::new([[EMPTY; ENTRIES]; 4]),
            filled: Vec::with_capacity(MAX_FILLED),
            second: vec![[0; 3]; SECOND_ENTRIES],
            flushes: 1,
            fetch: [[FetchEntry { page: INVALID, gpa: 0 }; 64]; 2],
            fetched: 0,
            large: false,
            epoch: 0,
            generation: 0,
        }
    }
}

#[inline(always)]
fn page_of(linear: u64) -> u64 {
    linear & !0xFFF
}

impl Tlb {
    /// RAM offset for reading `bytes` at `linear`, if all lie in one page that may be read.
    #[inline(always)]
    pub fn read(&self, index: MmuIndex, linear: u64, bytes: u64) -> Option<u64> {
        let entry = &self.data[index as usize & 3][(linear >> 12) as usize % ENTRIES];
        (page_of(linear.wrapping_add(bytes - 1)) == entry.read).then(|| linear.wrapping_add(entry.addend))
    }

    /// RAM offset for storing `bytes` at `linear`, if all lie in one page that may be stored to with nothing to check.
    #[inline(always)]
    pub fn write(&self, index: MmuIndex, linear: u64, bytes: u64) -> Option<u64> {
        let entry = &self.data[index as usize & 3][(linear >> 12) as usize % ENTRIES];
        (page_of(linear.wrapping_add(bytes - 1)) == entry.write).then(|| linear.wrapping_add(entry.addend))
    }

    fn second_slot(index: u8, linear: u64) -> usize {
        ((linear >> 12) as usize ^ usize::from(index) << 13) % SECOND_ENTRIES
    }

    /// RAM offset of `linear` by the second level, and whether stores need no walk. What is found should be inserted.
    pub fn find(&self, index: MmuIndex, linear: u64) -> Option<(u64, bool)> {
        let [key, offset, flushes] = self.second[Self::second_slot(index as u8, linear)];
        (key & !STORABLE == page_of(linear) | index as u64 && flushes == self.flushes)
            .then_some((offset | linear & 0xFFF, key & STORABLE != 0))
    }

    /// Remember a walk's result in the second level. `storable`: rights and dirty bit allow stores without a walk.
    pub fn keep(&mut self, index: MmuIndex, linear: u64, offset: u64, storable: bool) {
        if index != MmuIndex::Checked {
            let key = page_of(linear) | index as u64 | if storable { STORABLE } else { 0 };
            self.second[Self::second_slot(index as u8, linear)] = [key, page_of(offset), self.flushes];
        }
    }

    /// Remember that the page of `linear` is the RAM page of `offset`, readable, and storable if `write`.
    pub fn insert(&mut self, index: MmuIndex, linear: u64, offset: u64, write: bool) {
        if index == MmuIndex::Checked {
            return;
        }
        let page = page_of(linear);
        let place = (linear >> 12) as usize % ENTRIES;
        let entry = &mut self.data[index as usize & 3][place];
        if entry.read == INVALID && self.filled.len() < MAX_FILLED {
            self.filled.push((index as u8, place as u16));
        }
        let addend = page_of(offset).wrapping_sub(page);
        let same = entry.read == page && entry.addend == addend;
        *entry =
            Entry { read: page, write: if write || (same && entry.write == page) { page } else { INVALID }, addend };
    }

    /// GPA of the page of `linear` for fetching, by supervisor (false) or user (true).
    #[inline(always)]
    pub fn fetch(&self, user: bool, linear: u64) -> Option<u64> {
        let entry = &self.fetch[usize::from(user)][(linear >> 12) as usize % 64];
        (page_of(linear) == entry.page).then_some(entry.gpa)
    }

    /// Remember where the page of `linear` is fetched from.
    pub fn insert_fetch(&mut self, user: bool, linear: u64, gpa: u64) {
        self.fetched |= Self::gigabyte_bit(linear);
        self.fetch[usize::from(user)][(linear >> 12) as usize % 64] =
            FetchEntry { page: page_of(linear), gpa: page_of(gpa) };
    }

    /// Forget everything.
    pub fn flush(&mut self) {
        if self.filled.len() < MAX_FILLED {
            for &(index, place) in &self.filled {
                self.data[usize::from(index)][usize::from(place)] = EMPTY;
            }
        } else {
            self.data.as_flattened_mut().fill(EMPTY);
        }
        self.filled.clear();
        self.flush_fetch();
        self.generation += 1;
        self.flushes += 1;
        self.large = false;
    }

    /// A piece of a large page is about to be inserted.
    pub fn note_large(&mut self) {
        self.large = true;
    }

    /// Forget the page of `linear`, of whatever size it is: pieces of large pages are dropped with all of their gigabyte, the
    /// size of the largest page.
    pub fn flush_page(&mut self, linear: u64) {
        self.generation += 1;
        if self.large {
            self.flush_data_gigabyte(linear);
            self.flushes += 1;
        } else {
            for (index, table) in self.data.iter_mut().enumerate() {
                table[(linear >> 12) as usize % ENTRIES] = EMPTY;
                self.second[Self::second_slot(index as u8, linear)][2] = 0;
            }
        }
        // What was not fetched from needs not be forgotten; and the jump table, which goes by `epoch`, stays as it is.
        if self.fetched & Self::gigabyte_bit(linear) != 0 {
            self.flush_fetch();
        }
    }

    fn flush_data_gigabyte(&mut self, linear: u64) {
        if self.filled.len() == MAX_FILLED {
            self.data.as_flattened_mut().fill(EMPTY);
            self.filled.clear();
            return;
        }
        let data = &mut self.data;
        self.filled.retain(|&(index, place)| {
            let entry = &mut data[usize::from(index)][usize::from(place)];
            let hit = entry.read >> 30 == linear >> 30;
            if hit {
                *entry = EMPTY;
            }
            !hit
        });
    }

    fn flush_fetch(&mut self) {
        self.fetch = [[FetchEntry { page: INVALID, gpa: 0 }; 64]; 2];
        self.fetched = 0;
        self.epoch += 1;
    }

    /// One of 64 bits for the gigabyte of an address.
    fn gigabyte_bit(linear: u64) -> u64 {
        1 << ((linear >> 30 ^ linear >> 36 ^ linear >> 42) % 64)
    }

    /// Forget which pages may be stored to without a look: dirty bits were cleared, or code was decoded.
    pub fn close_for_stores(&mut self) {
        for entry in self.data.iter_mut().flatten() {
            entry.write = INVALID;
        }
    }
}
