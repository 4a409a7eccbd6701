//! Address translation: SDM vol. 3 chapter 4.
//!
//! [`Paging`] describes the tables that are in force and reads them without changing anything; [`Cpu::walk`] adds what an
//! access does (rights, accessed and dirty bits, #PF), [`Cpu::translate`] is for whoever looks from outside.

use x86defs::{cpuid, cr, paging::*};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::msr::Kept;
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

/// Bits of CR3 that locate the page-directory-pointer table of PAE paging.
pub const PDPT_MASK: u64 = 0xFFFF_FFE0;
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
    /// The table of the lowest level, if the walk went through it.
    lowest: Option<Start>,
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
    rights: Rights,
    dirty: bool,
    large: bool,
    key: u32,
}

/// Rights that entries grant.
#[derive(Clone, Copy, Debug)]
struct Rights {
    writable: bool,
    user: bool,
    executable: bool,
}

impl Rights {
    const ALL: Self = Self { writable: true, user: true, executable: true };

    /// What is left behind one more entry.
    fn through(self, entry: u64) -> Self {
        Self {
            writable: self.writable && entry & PTE_W != 0,
            user: self.user && entry & PTE_U != 0,
            executable: self.executable && entry & PTE_NX == 0,
        }
    }
}

/// Where a walk begins: at the root, or below it at a table that an earlier walk has reached.
#[derive(Clone, Copy, Debug)]
struct Start {
    level: u32,
    table: u64,
    rights: Rights,
}

/// log2 of what a table of the lowest level maps.
const REGION_SHIFT: u32 = 21;
const CACHED_REGIONS: usize = 64;

/// What is known of 2 MiB of linear addresses in long mode, as the paging-structure caches and large-page entries of a CPU know it
/// (SDM vol. 3 section 4.10): the table of the lowest level, or the large page. Accessed bits are set on the way there.
#[derive(Clone, Copy, Debug)]
struct Region {
    number: u64,
    /// [`crate::tlb::Tlb::generation`] under which it was learnt; any flush makes it void.
    generation: u64,
    known: Known,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    Table(Start),
    Large(Page),
}

/// Regions that walks went through lately.
#[derive(Clone, Debug)]
pub struct RegionCache {
    regions: Box<[Option<Region>; CACHED_REGIONS]>,
}

impl Default for RegionCache {
    fn default() -> Self {
        Self { regions: Box::new([None; CACHED_REGIONS]) }
    }
}

impl RegionCache {
    fn find(&self, linear: u64, generation: u64) -> Option<Known> {
        let number = linear >> REGION_SHIFT;
        let region = self.regions[number as usize % CACHED_REGIONS]?;
        (region.number == number && region.generation == generation).then_some(region.known)
    }

    fn keep(&mut self, linear: u64, generation: u64, known: Known) {
        let number = linear >> REGION_SHIFT;
        self.regions[number as usize % CACHED_REGIONS] = Some(Region { number, generation, known });
    }
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

    /// Bytes of an entry.
    fn entry_bytes(&self) -> u64 {
        if matches!(self.shape, Shape::Legacy { .. }) { 4 } else { 8 }
    }

    /// The first table for `linear`; `None` if there is none, which only PAE paging can say.
    fn start(&self, linear: u64) -> Option<Start> {
        let (level, table) = match self.shape {
            Shape::Legacy { .. } => (2, self.root),
            Shape::Pae => {
                // Reserved bits were checked when the PDPTEs were loaded; they grant all rights.
                let pdpte = self.pdptes[(linear >> 30 & 3) as usize];
                if pdpte & PTE_P == 0 {
                    return None;
                }
                (2, pdpte & ADDRESS)
            }
            Shape::Long { levels, .. } => (u32::from(levels), self.root),
        };
        Some(Start { level, table, rights: Rights::ALL })
    }

    /// Follow the tables from `start` to the page of `linear`. `load` reads an entry of 4 or 8 bytes.
    #[inline]
    fn follow<E>(
        &self,
        linear: u64,
        start: Option<Start>,
        mut load: impl FnMut(u64, u64) -> Result<u64, E>,
    ) -> Result<Walk, E> {
        let mut walk =
            Walk { entries: [Visited::default(); MAX_LEVELS], count: 0, lowest: None, outcome: Outcome::Missing };
        let Some(Start { level: levels, mut table, mut rights }) = start else { return Ok(walk) };
        let bytes = self.entry_bytes();
        let index_bits = if bytes == 4 { 10 } else { 9 };
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
            rights = rights.through(value);
            if leaf {
                let offset = (1u64 << shift) - 1;
                walk.outcome = Outcome::Page(Page {
                    gpa: self.page_address(level, value) & !offset | linear & offset,
                    rights,
                    dirty: value & PTE_D != 0,
                    large: level > 1,
                    key: (value >> PTE_PKEY_SHIFT & 15) as u32,
                });
                return Ok(walk);
            }
            table = if bytes == 8 { value & ADDRESS } else { value & 0xFFFF_F000 };
            walk.lowest = (level == 2).then_some(Start { level: 1, table, rights });
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
        if access.user && !self.rights.user {
            return false;
        }
        if access.fetch {
            let smep = !access.user && self.rights.user && cpu.cr4 & cr::CR4_SMEP != 0;
            return self.rights.executable && !smep;
        }
        if access.smap && self.rights.user {
            return false;
        }
        !access.write || self.rights.writable || !access.user && cpu.cr0 & cr::CR0_WP == 0
    }

    /// Whether protection keys forbid the access: SDM vol. 3 section 4.6.2.
    fn locked_by_key(&self, cpu: &Cpu, access: Access) -> bool {
        let (flag, register) =
            if self.rights.user { (cr::CR4_PKE, cpu.pkru) } else { (cr::CR4_PKS, cpu.msrs.get(Kept::Pkrs) as u32) };
        if cpu.cr4 & flag == 0 || !cpu.long_mode() || access.fetch {
            return false;
        }
        let rights = register >> (2 * self.key);
        let (access_disable, write_disable) = (rights & 1 != 0, rights & 2 != 0);
        access_disable || write_disable && access.write && (access.user || cpu.cr0 & cr::CR0_WP != 0)
    }
}

impl Cpu {
    /// Translate, setting accessed and dirty bits as the access does; #PF if it may not.
    pub fn walk(&mut self, env: &mut Env<'_>, linear: u64, access: Access) -> Result<Mapping, Stop> {
        let Some(paging) = Paging::of(self) else { return Ok(Mapping { gpa: linear, storable: true }) };
        if let Some(mapping) = self.walk_known_region(env, &paging, linear, access)? {
            return Ok(mapping);
        }
        self.walk_from(env, &paging, paging.start(linear), linear, access)
    }

    /// Translate by what earlier walks have learnt. `None`: they know nothing, or it is not allowed by what they know: a page
    /// fault is only raised by the tables as they are now, since it would have made the knowledge void (SDM vol. 3 section 4.10.4.1).
    fn walk_known_region(
        &mut self,
        env: &mut Env<'_>,
        paging: &Paging,
        linear: u64,
        access: Access,
    ) -> Result<Option<Mapping>, Stop> {
        if !matches!(paging.shape, Shape::Long { .. }) {
            return Ok(None);
        }
        let result = match self.regions.find(linear, self.tlb.generation) {
            Some(Known::Table(start)) => self.walk_from(env, paging, Some(start), linear, access),
            Some(Known::Large(page)) if page.dirty || !access.write => {
                let offset = (1 << REGION_SHIFT) - 1;
                self.grant(linear, access, Page { gpa: page.gpa & !offset | linear & offset, ..page })
            }
            _ => return Ok(None),
        };
        match result {
            Err(Stop::Fault) => Ok(None),
            other => other.map(Some),
        }
    }

    fn walk_from(
        &mut self,
        env: &mut Env<'_>,
        paging: &Paging,
        start: Option<Start>,
        linear: u64,
        access: Access,
    ) -> Result<Mapping, Stop> {
        let walk = paging.follow(linear, start, |gpa, bytes| self.load_physical(env, gpa, bytes))?;
        let bytes = paging.entry_bytes();
        let mut entries = walk.entries;
        let used = &mut entries[..walk.count];
        let mut page = match walk.outcome {
            Outcome::Page(page) => page,
            Outcome::Missing | Outcome::Reserved => {
                self.mark(env, used, PTE_A, bytes)?;
                let why = if matches!(walk.outcome, Outcome::Reserved) { PF_P | PF_RSVD } else { 0 };
                return Err(self.refuse(linear, access, why));
            }
        };
        let (above, leaf) = used.split_at_mut(walk.count - 1);
        self.mark(env, above, PTE_A, bytes)?;
        page.dirty |= access.write;
        let mapping = self.grant(linear, access, page)?;
        self.mark(env, leaf, if access.write { PTE_A | PTE_D } else { PTE_A }, bytes)?;
        if page.large {
            self.tlb.note_large();
            self.regions.keep(linear, self.tlb.generation, Known::Large(page));
        } else if let Some(start) = walk.lowest {
            self.regions.keep(linear, self.tlb.generation, Known::Table(start));
        }
        Ok(mapping)
    }

    /// Whether the access may reach the page; #PF if not.
    fn grant(&mut self, linear: u64, access: Access, page: Page) -> Result<Mapping, Stop> {
        let locked = page.locked_by_key(self, access);
        if locked || !page.allows(self, access) {
            return Err(self.refuse(linear, access, if locked { PF_P | PF_PK } else { PF_P }));
        }
        let write = Access { write: true, ..access };
        let storable = page.dirty && !access.fetch && page.allows(self, write) && !page.locked_by_key(self, write);
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
        let Ok(Walk { outcome: Outcome::Page(page), .. }) = paging.follow(linear, paging.start(linear), load) else {
            return None;
        };
        let allowed = user.is_none_or(|user| {
            let access = Access { write, fetch: false, user, smap: false, wide: true };
            page.allows(self, access) && !page.locked_by_key(self, access)
        });
        allowed.then_some(page.gpa)
    }

    /// Load the four PDPTEs of PAE paging as MOV to CR3 does; #GP(0) if one has a reserved bit set, and nothing changes (SDM
    /// vol. 3 section 4.4.1).
    pub fn load_pdptes(&mut self, env: &mut Env<'_>, cr3: u64) -> Result<(), Stop> {
        let reserved = self.reserved_in_pdptes();
        let mut pdptes = [0; 4];
        for (i, pdpte) in pdptes.iter_mut().enumerate() {
            *pdpte = self.load_physical(env, (cr3 & PDPT_MASK) + 8 * i as u64, 8)?;
            if *pdpte & PTE_P != 0 && *pdpte & reserved != 0 {
                return Err(self.gp0());
            }
        }
        self.pdptes = pdptes;
        Ok(())
    }

    /// Bits that a present PDPTE of PAE paging must not have: 2:1, 8:5, and those above physical addresses.
    pub fn reserved_in_pdptes(&self) -> u64 {
        0x1E6 | bits(self.features.physical_bits(), 63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use x86defs::vector;

    /// A page that tests map as they like: its address, its PDE and its PTE.
    const PAGE: u64 = 0x4000_0000;
    const TABLE: u64 = 0x20_0000;
    const PDE: u64 = TABLE + 0x1000;
    const PTE: u64 = TABLE + 0x2000;
    const FRAME: u64 = 0x30_0000;
    const RW: u64 = PTE_P | PTE_W;
    const USER: u64 = RW | PTE_U;

    /// Long mode, with [`PAGE`] mapped by entries that grant everything.
    fn machine() -> Machine {
        let mut machine = Machine::long64();
        // The second GiB, in the PDPT that `long64` has made.
        machine.store64(Machine::TABLES + 0x1008, PDE | USER);
        machine.store64(PDE, PTE | USER);
        machine.store64(PTE, FRAME | USER);
        machine
    }

    const READ: Access = Access { write: false, fetch: false, user: false, smap: false, wide: true };
    const WRITE: Access = Access { write: true, ..READ };
    const FETCH: Access = Access { fetch: true, ..READ };
    const USER_READ: Access = Access { user: true, ..READ };
    const USER_WRITE: Access = Access { write: true, ..USER_READ };
    const USER_FETCH: Access = Access { fetch: true, ..USER_READ };
    const SMAP_READ: Access = Access { smap: true, ..READ };

    fn walk(machine: &mut Machine, linear: u64, access: Access) -> Result<u64, u32> {
        let result = machine.with(|cpu, env| cpu.walk(env, linear, access));
        machine.outcome(result).map(|mapping| mapping.gpa).map_err(|(number, code)| {
            assert_eq!((number, machine.cpu.fault.payload), (vector::PF, linear));
            code.expect("#PF has an error code")
        })
    }

    #[test]
    fn rights_of_a_page() {
        const P: u32 = PF_P;
        for (pte, access, expected) in [
            (0, READ, Err(0)),
            (0, USER_WRITE, Err(PF_W | PF_U)),
            (0, FETCH, Err(PF_I)),
            (RW, WRITE, Ok(())),
            (RW, USER_READ, Err(P | PF_U)),
            (PTE_P, READ, Ok(())),
            (PTE_P, WRITE, Err(P | PF_W)),
            (PTE_P | PTE_U, USER_READ, Ok(())),
            (PTE_P | PTE_U, USER_WRITE, Err(P | PF_U | PF_W)),
            (USER, USER_WRITE, Ok(())),
            (USER | PTE_NX, READ, Ok(())),
            (USER | PTE_NX, USER_FETCH, Err(P | PF_U | PF_I)),
            (USER | 1 << 50, READ, Err(P | PF_RSVD)),
            (1 << 50, READ, Err(0)),
        ] {
            let mut machine = machine();
            machine.store64(PTE, FRAME | pte);
            let result = walk(&mut machine, PAGE + 0x123, access);
            assert_eq!(result, expected.map(|()| FRAME + 0x123), "{pte:#x} {access:?}");
        }
    }

    #[test]
    fn supervisor_modes() {
        const P: u32 = PF_P;
        for (cr4, access, expected) in [
            (0, FETCH, Ok(())),
            (cr::CR4_SMEP, FETCH, Err(P | PF_I)),
            (cr::CR4_SMEP, USER_FETCH, Ok(())),
            (cr::CR4_SMAP, SMAP_READ, Err(P)),
            (cr::CR4_SMAP, READ, Ok(())),
        ] {
            let mut machine = machine();
            machine.cpu.cr4 |= cr4;
            assert_eq!(walk(&mut machine, PAGE, access), expected.map(|()| FRAME), "{cr4:#x} {access:?}");
        }
        // Without WP the supervisor writes anywhere.
        let mut machine = machine();
        machine.store64(PTE, FRAME | PTE_P | PTE_U);
        machine.cpu.cr0 &= !cr::CR0_WP;
        assert_eq!(walk(&mut machine, PAGE, WRITE), Ok(FRAME));
    }

    #[test]
    fn protection_keys() {
        const P: u32 = PF_P;
        // Key 5: access-disable is bit 10 of PKRU, write-disable bit 11.
        for (pkru, wp, access, expected) in [
            (1 << 10, true, USER_READ, Err(P | PF_U | PF_PK)),
            (1 << 10, true, READ, Err(P | PF_PK)),
            (1 << 10, true, USER_FETCH, Ok(())),
            (1 << 11, true, READ, Ok(())),
            (1 << 11, true, WRITE, Err(P | PF_W | PF_PK)),
            (1 << 11, false, WRITE, Ok(())),
            (1 << 11, false, USER_WRITE, Err(P | PF_U | PF_W | PF_PK)),
            (!(3 << 10), true, USER_WRITE, Ok(())),
        ] {
            let mut machine = machine();
            machine.store64(PTE, FRAME | USER | 5 << PTE_PKEY_SHIFT);
            machine.cpu.cr4 |= cr::CR4_PKE;
            machine.cpu.pkru = pkru;
            if !wp {
                machine.cpu.cr0 &= !cr::CR0_WP;
            }
            assert_eq!(walk(&mut machine, PAGE, access), expected.map(|()| FRAME), "{pkru:#x} {access:?}");
        }
    }

    #[test]
    fn protection_keys_of_supervisor_pages() {
        use crate::msr::{MsrWrite, When};
        let mut machine = machine();
        machine.cpu.cr4 |= cr::CR4_PKS;
        machine.store64(PTE, FRAME | RW | 5 << PTE_PKEY_SHIFT);
        for (pkrs, access, expected) in [
            (0, WRITE, Ok(FRAME)),
            (1 << 10, READ, Err(PF_P | PF_PK)),
            (1 << 11, READ, Ok(FRAME)),
            (1 << 11, WRITE, Err(PF_P | PF_W | PF_PK)),
            (!(3 << 10) & 0xFFFF_FFFF, WRITE, Ok(FRAME)),
        ] {
            let index = x86defs::msr::PKRS;
            assert_eq!(machine.cpu.write_msr(index, pkrs, When::zero()), MsrWrite::Done);
            assert_eq!(walk(&mut machine, PAGE, access), expected, "{pkrs:#x} {access:?}");
        }
        machine.cpu.pkru = u32::MAX;
        machine.cpu.cr4 |= cr::CR4_PKE;
        assert_eq!(walk(&mut machine, PAGE, WRITE), Ok(FRAME), "PKRU is for user pages");
    }

    #[test]
    fn accessed_and_dirty_bits() {
        let mut machine = machine();
        machine.store64(PTE, FRAME | PTE_P | PTE_U);
        assert_eq!(walk(&mut machine, PAGE, WRITE), Err(PF_P | PF_W));
        assert_eq!(machine.load64(PDE) & PTE_A, PTE_A);
        assert_eq!(machine.load64(PTE) & (PTE_A | PTE_D), 0, "a refused access does not use the page");
        machine.store64(PTE, FRAME | USER);
        assert_eq!(walk(&mut machine, PAGE, READ), Ok(FRAME));
        assert_eq!(machine.load64(PTE) & (PTE_A | PTE_D), PTE_A);
        let mapping = machine.with(|cpu, env| cpu.walk(env, PAGE, READ)).expect("mapped");
        assert!(!mapping.storable, "the dirty bit is not set yet");
        let mapping = machine.with(|cpu, env| cpu.walk(env, PAGE, WRITE)).expect("mapped");
        assert!(mapping.storable);
        assert_eq!(machine.load64(PTE) & (PTE_A | PTE_D), PTE_A | PTE_D);
    }

    #[test]
    fn reserved_bits_of_large_pages_and_upper_levels() {
        for (at, value, nx, reserved) in [
            (PDE, FRAME & !0x1F_FFFF | USER | PTE_PS, true, false),
            (PDE, FRAME & !0x1F_FFFF | USER | PTE_PS | 1 << 12, true, false),
            (PDE, FRAME & !0x1F_FFFF | USER | PTE_PS | 1 << 13, true, true),
            (PDE, PTE | USER | PTE_NX, false, true),
            (Machine::TABLES + 0x1008, USER | PTE_PS, true, false),
            (Machine::TABLES + 0x1008, USER | PTE_PS | 1 << 21, true, true),
            (Machine::TABLES, (Machine::TABLES + 0x1000) | USER | PTE_PS, true, true),
        ] {
            let mut machine = machine();
            if !nx {
                machine.cpu.efer &= !cr::EFER_NXE;
            }
            machine.store64(at, value);
            let result = walk(&mut machine, PAGE, READ);
            assert_eq!(result.is_err(), reserved, "{at:#x} {value:#x}");
            assert!(result.is_ok() || result == Err(PF_P | PF_RSVD));
        }
        let mut machine = machine();
        machine.cpu.features.x1_edx &= !cpuid::X1_EDX_PAGE1GB;
        machine.store64(Machine::TABLES + 0x1008, USER | PTE_PS);
        assert_eq!(walk(&mut machine, PAGE, READ), Err(PF_P | PF_RSVD), "1 GiB pages are not announced");
    }

    #[test]
    fn five_levels() {
        let mut machine = machine();
        machine.store64(TABLE, Machine::TABLES | USER);
        machine.cpu.cr3 = TABLE;
        machine.cpu.cr4 |= cr::CR4_LA57;
        assert_eq!(walk(&mut machine, PAGE, READ), Ok(FRAME));
        assert_eq!(walk(&mut machine, PAGE | 1 << 48, READ), Err(0));
    }

    /// 32-bit paging with the directory at [`TABLE`].
    fn legacy(cr4: u64) -> Machine {
        let mut machine = Machine::protected32();
        machine.cpu.cr3 = TABLE;
        machine.cpu.cr4 = cr4;
        machine.cpu.cr0 |= cr::CR0_PG | cr::CR0_WP;
        machine.cpu.mode_changed();
        machine
    }

    #[test]
    fn legacy_paging() {
        let mut machine = legacy(cr::CR4_PSE);
        machine.store32(TABLE + 4 * (PAGE >> 22), (PTE | USER) as u32);
        machine.store32(PTE, (FRAME | RW) as u32);
        assert_eq!(walk(&mut machine, PAGE, WRITE), Ok(FRAME));
        assert_eq!(machine.load32(PTE) as u64 & 0xFFF, RW | PTE_A | PTE_D);
        assert_eq!(walk(&mut machine, PAGE, USER_FETCH), Err(PF_P | PF_U), "fetches are not told apart");
        // A 4 MiB page above 4 GiB: bits 20:13 are address bits 39:32, bit 21 is reserved.
        machine.store32(TABLE + 4, (0x80_0000 | 3 << 13 | USER | PTE_PS) as u32);
        assert_eq!(walk(&mut machine, 0x40_0123, READ), Ok(0x3_0080_0123));
        machine.store32(TABLE + 4, (0x80_0000 | 1 << 21 | USER | PTE_PS) as u32);
        assert_eq!(walk(&mut machine, 0x40_0123, READ), Err(PF_P | PF_RSVD));
        machine.cpu.cr4 = 0;
        machine.store32(TABLE + 4, (PTE | USER | PTE_PS) as u32);
        assert_eq!(walk(&mut machine, 0x40_0123, READ), Ok(FRAME + 0x123), "PS is ignored");
    }

    #[test]
    fn pae_paging_keeps_the_pdptes() {
        let mut machine = legacy(cr::CR4_PAE);
        machine.store64(TABLE + 8, PDE | PTE_P);
        machine.store64(PDE, PTE | USER);
        machine.store64(PTE, FRAME | USER);
        machine.with(|cpu, env| cpu.load_pdptes(env, TABLE)).expect("no reserved bit");
        assert_eq!(walk(&mut machine, PAGE, USER_WRITE), Ok(FRAME));
        machine.store64(TABLE + 8, 0);
        machine.cpu.tlb.flush();
        assert_eq!(walk(&mut machine, PAGE, READ), Ok(FRAME), "as loaded");
        machine.store64(TABLE + 24, PTE_P | PTE_W);
        let result = machine.with(|cpu, env| cpu.load_pdptes(env, TABLE));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
        machine.store64(PTE, FRAME | USER | 1 << 60);
        assert_eq!(walk(&mut machine, PAGE, READ), Err(PF_P | PF_RSVD), "no ignored bits as in long mode");
    }

    #[test]
    fn what_was_learnt_never_makes_a_fault() {
        let mut machine = machine();
        machine.store64(PTE, FRAME | PTE_P);
        assert_eq!(walk(&mut machine, PAGE, READ), Ok(FRAME));
        // Another table, with more rights, and nobody told the CPU.
        let other = TABLE + 0x3000;
        machine.store64(other, FRAME | USER);
        machine.store64(PDE, other | USER);
        assert_eq!(walk(&mut machine, PAGE, USER_WRITE), Ok(FRAME));
        machine.store64(PDE, 0);
        machine.cpu.tlb.flush_page(PAGE);
        assert_eq!(walk(&mut machine, PAGE, READ), Err(0), "after INVLPG it is gone");
    }

    #[test]
    fn looking_leaves_no_trace() {
        let machine = machine();
        let cpu = &machine.cpu;
        assert_eq!(cpu.translate(PAGE + 5, true, Some(true)), Some(FRAME + 5));
        assert_eq!(cpu.translate(PAGE + 0x1000, false, None), None);
        assert_eq!(cpu.translate(1 << 47, false, None), None, "not canonical");
        assert_eq!(machine.load64(PTE), FRAME | USER);
        assert_eq!(machine.load64(PDE), PTE | USER);
    }
}
