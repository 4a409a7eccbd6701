//! Address translation: SDM vol. 3 chapter 4.
//!
//! [`Paging`] describes the tables that are in force and reads them without changing anything; [`Cpu::walk`] adds what an
//! access does (rights, accessed and dirty bits, #PF), [`Cpu::translate`] is for whoever looks from outside.

use x86defs::{cpuid, cr, paging::*};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::Stop;

/// Rights and kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It writes.
    pub write: bool,
    /// It fetches instructions.
    pub fetch: bool,
    /// It has user rights (CPL 3, not a system access).
    pub user: bool,
    /// SMAP keeps it from user pages.
    pub smap: bool,
    /// Its linear address has 64 bits: 64-bit code, or the CPU itself in long mode. Otherwise 32.
    pub wide: bool,
}

/// Where a linear address leads.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Guest-physical address.
    pub gpa: u64,
    /// This kind of access may also write, and the dirty bit is set: stores need no further walk.
    pub storable: bool,
}

/// Bits 51:12 of a 64-bit entry: the address of what it points to.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Bit 12 of an entry for a large page: its PAT bit, not part of the address.
const LARGE_PAT: u64 = 1 << 12;
/// The most levels of tables.
const MAX_LEVELS: usize = 5;

/// The shape of the page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Two levels of 32-bit entries.
    Legacy { large: bool, pse36: bool },
    /// Two levels of 64-bit entries below four PDPTEs that were loaded with CR3.
    Pae,
    /// Four or five levels of 64-bit entries.
    Long { levels: u8, gigabyte: bool },
}

/// Everything that decides what page tables mean.
#[derive(Clone, Copy, Debug)]
struct Paging {
    shape: Shape,
    root: u64,
    nx: bool,
    physical_bits: u32,
    pdptes: [u64; 4],
}

/// An entry that was used.
#[derive(Clone, Copy, Debug, Default)]
struct Visited {
    gpa: u64,
    value: u64,
}

/// A way through the tables to a page.
#[derive(Clone, Copy, Debug)]
struct Walk {
    entries: [Visited; MAX_LEVELS],
    count: usize,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// An entry is not present.
    Missing,
    /// An entry has a reserved bit set.
    Reserved,
    /// The page.
    Page(Page),
}

/// A page, with the rights that all entries on the way grant.
#[derive(Clone, Copy, Debug)]
struct Page {
    gpa: u64,
    writable: bool,
    user: bool,
    executable: bool,
    dirty: bool,
    large: bool,
    key: u32,
}

impl Paging {
    /// How linear addresses are translated now; `None` if they are physical ones.
    fn of(cpu: &Cpu) -> Option<Self> {
        if cpu.cr0 & cr::CR0_PG == 0 {
            return None;
        }
        let shape = if cpu.long_mode() {
            Shape::Long {
                levels: if cpu.cr4 & cr::CR4_LA57 != 0 { 5 } else { 4 },
                gigabyte: cpu.features.x1_edx & cpuid::X1_EDX_PAGE1GB != 0,
            }
        } else if cpu.cr4 & cr::CR4_PAE != 0 {
            Shape::Pae
        } else {
            Shape::Legacy { large: cpu.cr4 & cr::CR4_PSE != 0, pse36: cpu.features.l1_edx & cpuid::L1_EDX_PSE36 != 0 }
        };
        let root = cpu.cr3 & if matches!(shape, Shape::Long { .. }) { ADDRESS } else { 0xFFFF_F000 };
        Some(Self {
            shape,
            root,
            nx: cpu.efer & cr::EFER_NXE != 0,
            physical_bits: cpu.features.physical_bits(),
            pdptes: cpu.pdptes,
        })
    }

    /// Follow the tables to the page of `linear`. `load` reads an entry of 4 or 8 bytes.
    fn follow<E>(&self, linear: u64, mut load: impl FnMut(u64, u64) -> Result<u64, E>) -> Result<Walk, E> {
        let mut walk = Walk { entries: [Visited::default(); MAX_LEVELS], count: 0, outcome: Outcome::Missing };
        let (levels, index_bits, bytes) = match self.shape {
            Shape::Legacy { .. } => (2, 10, 4),
            Shape::Pae => (2, 9, 8),
            Shape::Long { levels, .. } => (u32::from(levels), 9, 8),
        };
        let mut table = self.root;
        if self.shape == Shape::Pae {
            // Reserved bits were checked when the PDPTEs were loaded; they grant all rights.
            let pdpte = self.pdptes[(linear >> 30 & 3) as usize];
            if pdpte & PTE_P == 0 {
                return Ok(walk);
            }
            table = pdpte & ADDRESS;
        }
        let mut page =
            Page { gpa: 0, writable: true, user: true, executable: true, dirty: false, large: false, key: 0 };
        for level in (1..=levels).rev() {
            let shift = PAGE_SHIFT + (level - 1) * index_bits;
            let index = linear >> shift & ((1 << index_bits) - 1);
            let gpa = table + index * bytes;
            let value = load(gpa, bytes)?;
            if value & PTE_P == 0 {
                return Ok(walk);
            }
            let leaf = level == 1 || self.is_large(level, value);
            if value & self.reserved(level, leaf) != 0 {
                walk.outcome = Outcome::Reserved;
                return Ok(walk);
            }
            walk.entries[walk.count] = Visited { gpa, value };
            walk.count += 1;
            page.writable &= value & PTE_W != 0;
            page.user &= value & PTE_U != 0;
            page.executable &= value & PTE_NX == 0;
            if leaf {
                let offset = (1u64 << shift) - 1;
                page.gpa = self.page_address(level, value) & !offset | linear & offset;
                page.dirty = value & PTE_D != 0;
                page.large = level > 1;
                page.key = (value >> PTE_PKEY_SHIFT & 15) as u32;
                walk.outcome = Outcome::Page(page);
                return Ok(walk);
            }
            table = if bytes == 8 { value & ADDRESS } else { value & 0xFFFF_F000 };
        }
        Ok(walk)
    }

    /// Whether an entry above the lowest level maps a page.
    fn is_large(&self, level: u32, value: u64) -> bool {
        let possible = match self.shape {
            Shape::Legacy { large, .. } => large && level == 2,
            Shape::Pae => level == 2,
            Shape::Long { gigabyte, .. } => level == 2 || level == 3 && gigabyte,
        };
        possible && value & PTE_PS != 0
    }

    /// Bits that must be zero in an entry: SDM vol. 3 sections 4.3 to 4.5.
    fn reserved(&self, level: u32, leaf: bool) -> u64 {
        let large = leaf && level > 1;
        match self.shape {
            // Bits 20:13 are bits 39:32 of the address as far as such addresses exist.
            Shape::Legacy { pse36, .. } => match (large, pse36) {
                (false, _) => 0,
                (true, true) => bits(13 + self.physical_bits.min(40) - 32, 21),
                (true, false) => bits(13, 21),
            },
            Shape::Pae => {
                let large = if large { bits(13, 20) } else { 0 };
                large | bits(self.physical_bits, 62) | if self.nx { 0 } else { PTE_NX }
            }
            Shape::Long { gigabyte, .. } => {
                let size = match (level, large) {
                    (2, true) => bits(13, 20),
                    (3, true) => bits(13, 29),
                    (3, false) if gigabyte => 0,
                    (3.., false) => PTE_PS,
                    _ => 0,
                };
                size | bits(self.physical_bits, 51) | if self.nx { 0 } else { PTE_NX }
            }
        }
    }

    /// Address of the page that a leaf entry maps.
    fn page_address(&self, level: u32, value: u64) -> u64 {
        match self.shape {
            Shape::Legacy { .. } if level == 2 => value & 0xFFC0_0000 | (value >> 13 & 0xFF) << 32,
            Shape::Legacy { .. } => value & 0xFFFF_F000,
            _ if level > 1 => value & ADDRESS & !LARGE_PAT,
            _ => value & ADDRESS,
        }
    }
}

/// Bits `first..=last`; none if `first` is above `last`.
fn bits(first: u32, last: u32) -> u64 {
    if first > last { 0 } else { (u64::MAX >> (63 - last)) & (u64::MAX << first) }
}

impl Page {
    /// Whether the access is within the page's rights, keys apart: SDM vol. 3 section 4.6.1.
    fn allows(&self, cpu: &Cpu, access: Access) -> bool {
        if access.user && !self.user {
            return false;
        }
        if access.fetch {
            let smep = !access.user && self.user && cpu.cr4 & cr::CR4_SMEP != 0;
            return self.executable && !smep;
        }
        if access.smap && self.user {
            return false;
        }
        !access.write || self.writable || !access.user && cpu.cr0 & cr::CR0_WP == 0
    }

    /// Whether protection keys forbid the access: SDM vol. 3 section 4.6.2.
    fn locked_by_key(&self, cpu: &Cpu, access: Access) -> bool {
        if cpu.cr4 & cr::CR4_PKE == 0 || !cpu.long_mode() || !self.user || access.fetch {
            return false;
        }
        let rights = cpu.pkru >> (2 * self.key);
        let (access_disable, write_disable) = (rights & 1 != 0, rights & 2 != 0);
        access_disable || write_disable && access.write && (access.user || cpu.cr0 & cr::CR0_WP != 0)
    }
}

impl Cpu {
    /// Translate, setting accessed and dirty bits as the access does; #PF if it may not.
    pub fn walk(&mut self, env: &mut Env<'_>, linear: u64, access: Access) -> Result<Mapping, Stop> {
        let Some(paging) = Paging::of(self) else { return Ok(Mapping { gpa: linear, storable: true }) };
        let walk = paging.follow(linear, |gpa, bytes| self.load_physical(env, gpa, bytes))?;
        let mut entries = walk.entries;
        let used = &mut entries[..walk.count];
        let entry_bytes = if matches!(paging.shape, Shape::Legacy { .. }) { 4 } else { 8 };
        let page = match walk.outcome {
            Outcome::Page(page) => page,
            Outcome::Missing | Outcome::Reserved => {
                self.mark(env, used, PTE_A, entry_bytes)?;
                let why = if matches!(walk.outcome, Outcome::Reserved) { PF_P | PF_RSVD } else { 0 };
                return Err(self.refuse(linear, access, why));
            }
        };
        let (above, leaf) = used.split_at_mut(walk.count - 1);
        self.mark(env, above, PTE_A, entry_bytes)?;
        let locked = page.locked_by_key(self, access);
        if locked || !page.allows(self, access) {
            return Err(self.refuse(linear, access, if locked { PF_P | PF_PK } else { PF_P }));
        }
        self.mark(env, leaf, if access.write { PTE_A | PTE_D } else { PTE_A }, entry_bytes)?;
        if page.large {
            self.tlb.note_large();
        }
        let write = Access { write: true, ..access };
        let storable = (page.dirty || access.write)
            && !access.fetch
            && page.allows(self, write)
            && !page.locked_by_key(self, write);
        Ok(Mapping { gpa: page.gpa, storable })
    }

    /// Set bits in entries that lack them.
    fn mark(&mut self, env: &mut Env<'_>, entries: &mut [Visited], flags: u64, bytes: u64) -> Result<(), Stop> {
        for entry in entries {
            if entry.value & flags != flags {
                entry.value |= flags;
                self.store_physical(env, entry.gpa, bytes, entry.value)?;
            }
        }
        Ok(())
    }

    /// #PF: SDM vol. 3 section 4.7.
    fn refuse(&mut self, linear: u64, access: Access, why: u32) -> Stop {
        let tells_fetches =
            self.cr4 & cr::CR4_SMEP != 0 || self.cr4 & cr::CR4_PAE != 0 && self.efer & cr::EFER_NXE != 0;
        let flag = |condition: bool, flag: u32| if condition { flag } else { 0 };
        let code = why | flag(access.write, PF_W) | flag(access.user, PF_U) | flag(access.fetch && tells_fetches, PF_I);
        self.page_fault(linear, code)
    }

    /// Guest-physical address of a linear one, by the tables in RAM and without any trace. `None` if it is not mapped, or not
    /// so: for writing if `write`, with rights of CPL 3 (`user` is true) or CPL 0 (false), or whatever the rights.
    pub fn translate(&self, linear: u64, write: bool, user: Option<bool>) -> Option<u64> {
        if self.long_mode() && !self.is_canonical(linear) {
            return None;
        }
        let linear = if self.long_mode() { linear } else { linear & 0xFFFF_FFFF };
        let Some(paging) = Paging::of(self) else { return Some(linear) };
        let load = |gpa, bytes| -> Result<u64, ()> {
            let offset = self.mem.offset(gpa).ok_or(())?;
            Ok(if bytes == 4 { self.mem.load::<u32>(offset).into() } else { self.mem.load::<u64>(offset) })
        };
        let Ok(Walk { outcome: Outcome::Page(page), .. }) = paging.follow(linear, load) else { return None };
        let allowed = user.is_none_or(|user| {
            let access = Access { write, fetch: false, user, smap: false, wide: true };
            page.allows(self, access) && !page.locked_by_key(self, access)
        });
        allowed.then_some(page.gpa)
    }

    /// Load the four PDPTEs of PAE paging as MOV to CR3 does; #GP(0) if one has a reserved bit set, and nothing changes (SDM
    /// vol. 3 section 4.4.1).
    pub fn load_pdptes(&mut self, env: &mut Env<'_>, cr3: u64) -> Result<(), Stop> {
        /// Bits 2:1 and 8:5.
        const LOW_RESERVED: u64 = 0x1E6;
        let mut pdptes = [0; 4];
        for (i, pdpte) in pdptes.iter_mut().enumerate() {
            *pdpte = self.load_physical(env, (cr3 & 0xFFFF_FFE0) + 8 * i as u64, 8)?;
            let reserved = LOW_RESERVED | bits(self.features.physical_bits(), 63);
            if *pdpte & PTE_P != 0 && *pdpte & reserved != 0 {
                return Err(self.gp0());
            }
        }
        self.pdptes = pdptes;
        Ok(())
    }
}
