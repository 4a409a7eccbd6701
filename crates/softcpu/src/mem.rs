//! Data accesses of instructions: a fast path through the TLB, and a slow one that walks, checks and calls devices.
//!
//! Addresses here are linear, already reduced to 32 bits outside 64-bit mode; [`crate::exec`] adds segment bases and checks
//! limits. `seg` is the segment register used, which decides between #SS and #GP for an address that is not canonical.

use vcpu::{Exit, Reply};
use x86defs::{cr, paging::PAGE_MASK, rflags, vector};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::mmu::{Access, Mapping};
use crate::op::{Answer, Stop, Width};
use crate::segment::SS;
use crate::tlb::MmuIndex;

impl Cpu {
    /// Load an operand.
    #[inline(always)]
    pub fn read<T: Width>(&mut self, env: &mut Env<'_>, linear: u64, seg: u8) -> Result<T, Stop> {
        match self.tlb.read(self.mmu_index, linear, T::BYTES) {
            Some(offset) => Ok(self.mem.load(offset)),
            None => self.read_slow(env, linear, T::BYTES, seg, false).map(T::from_u64),
        }
    }

    /// Load an operand that [`Cpu::write`] will be called for: faults as the write would.
    #[inline(always)]
    pub fn read_for_write<T: Width>(&mut self, env: &mut Env<'_>, linear: u64, seg: u8) -> Result<T, Stop> {
        match self.tlb.write(self.mmu_index, linear, T::BYTES) {
            Some(offset) => Ok(self.mem.load(offset)),
            None => self.read_slow(env, linear, T::BYTES, seg, true).map(T::from_u64),
        }
    }

    /// Store an operand. When it succeeds the instruction must go on to retire; end with [`Cpu::after_store`].
    #[inline(always)]
    pub fn write<T: Width>(&mut self, env: &mut Env<'_>, linear: u64, seg: u8, value: T) -> Result<(), Stop> {
        match self.tlb.write(self.mmu_index, linear, T::BYTES) {
            Some(offset) => {
                self.mem.store(offset, value);
                Ok(())
            }
            None => self.write_slow(env, linear, T::BYTES, seg, value.to_u64()),
        }
    }

    /// Check that `bytes` at `linear` can be written, without writing: for instructions that store more than once.
    pub fn probe_write(&mut self, env: &mut Env<'_>, linear: u64, bytes: u64, seg: u8) -> Result<(), Stop> {
        let mut done = 0;
        while done < bytes {
            let part = (bytes - done).min(8);
            if self.tlb.write(self.mmu_index, self.wrap(linear.wrapping_add(done)), part).is_none() {
                let access = self.data_access(true);
                let linear = self.untagged(linear);
                self.locate(env, self.wrap(linear.wrapping_add(done)), part, seg, access)?;
            }
            done += part;
        }
        Ok(())
    }

    /// How a handler that stored ends: the block stops if the store hit decoded code.
    #[inline(always)]
    pub fn after_store(&mut self) -> crate::op::Step {
        if self.code_written { Ok(crate::op::Flow::Sync) } else { Ok(crate::op::Flow::Next) }
    }

    /// Reduce a linear address to what the mode has.
    #[inline]
    pub fn wrap(&self, linear: u64) -> u64 {
        if self.mode.is_64() { linear } else { linear & 0xFFFF_FFFF }
    }

    /// The rights that an ordinary data access has now.
    #[inline]
    pub fn data_access(&self, write: bool) -> Access {
        Access {
            write,
            fetch: false,
            user: self.cpl == 3,
            smap: self.cpl != 3 && self.cr4 & cr::CR4_SMAP != 0 && self.system_flags & rflags::AC == 0,
            wide: self.mode.is_64(),
        }
    }

    /// The rights of an instruction fetch now.
    #[inline]
    pub fn fetch_access(&self) -> Access {
        Access { write: false, fetch: true, user: self.cpl == 3, smap: false, wide: self.mode.is_64() }
    }

    /// The rights of an access that the CPU makes by itself to GDT, LDT, IDT or TSS: supervisor at any CPL, and SMAP applies
    /// whatever RFLAGS.AC is (SDM vol. 3 section 4.6).
    #[inline]
    pub fn system_access(&self, write: bool) -> Access {
        Access { write, fetch: false, user: false, smap: self.cr4 & cr::CR4_SMAP != 0, wide: self.long_mode() }
    }

    /// Load from a system table.
    pub fn read_system<T: Width>(&mut self, env: &mut Env<'_>, linear: u64) -> Result<T, Stop> {
        let access = self.system_access(false);
        self.load_with(env, linear, T::BYTES, crate::segment::DS, access).map(T::from_u64)
    }

    /// Store to a system table.
    pub fn write_system<T: Width>(&mut self, env: &mut Env<'_>, linear: u64, value: T) -> Result<(), Stop> {
        let access = self.system_access(true);
        self.store_with(env, linear, T::BYTES, crate::segment::DS, access, value.to_u64())
    }

    #[cold]
    #[inline(never)]
    fn read_slow(&mut self, env: &mut Env<'_>, linear: u64, bytes: u64, seg: u8, write: bool) -> Result<u64, Stop> {
        self.check_alignment(linear, bytes)?;
        let linear = self.untagged(linear);
        let access = self.data_access(write);
        let value = self.load_with(env, linear, bytes, seg, access)?;
        if self.mmu_index == MmuIndex::Checked {
            self.debug.note_data(linear, bytes, write);
        }
        Ok(value)
    }

    #[cold]
    #[inline(never)]
    fn write_slow(&mut self, env: &mut Env<'_>, linear: u64, bytes: u64, seg: u8, value: u64) -> Result<(), Stop> {
        self.check_alignment(linear, bytes)?;
        let linear = self.untagged(linear);
        let access = self.data_access(true);
        self.store_with(env, linear, bytes, seg, access, value)?;
        if self.mmu_index == MmuIndex::Checked {
            self.debug.note_data(linear, bytes, true);
        }
        Ok(())
    }

    /// #AC: SDM vol. 3 section 6.15. Only at CPL 3 with RFLAGS.AC and CR0.AM, which [`MmuIndex::Checked`] stands for too.
    /// An address that is not canonical is reported as such first.
    pub fn check_alignment(&mut self, linear: u64, bytes: u64) -> Result<(), Stop> {
        if self.mmu_index == MmuIndex::Checked
            && self.cpl == 3
            && self.system_flags & rflags::AC != 0
            && self.cr0 & cr::CR0_AM != 0
            && linear & (bytes - 1) != 0
            && (!self.mode.is_64() || self.is_canonical(linear))
        {
            return Err(self.raise_with(vector::AC, 0));
        }
        Ok(())
    }

    /// Load up to 8 bytes with given rights, wherever they lie.
    pub fn load_with(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        bytes: u64,
        seg: u8,
        access: Access,
    ) -> Result<u64, Stop> {
        let (first, second) = self.locate(env, linear, bytes, seg, access)?;
        let Some((second, second_bytes)) = second else { return self.load_physical(env, first, bytes) };
        let first_bytes = bytes - second_bytes;
        let low = self.load_physical_bytes(env, first, first_bytes)?;
        let high = self.load_physical_bytes(env, second, second_bytes)?;
        Ok(low | high << (8 * first_bytes))
    }

    /// Store up to 8 bytes with given rights, wherever they lie: all or nothing, but for an exit in the middle, which is
    /// restarted.
    pub fn store_with(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        bytes: u64,
        seg: u8,
        access: Access,
        value: u64,
    ) -> Result<(), Stop> {
        let (first, second) = self.locate(env, linear, bytes, seg, access)?;
        let Some((second, second_bytes)) = second else { return self.store_physical(env, first, bytes, value) };
        let first_bytes = bytes - second_bytes;
        if !self.careful && (self.mem.offset(first).is_none() || self.mem.offset(second).is_none()) {
            return Err(Stop::Careful);
        }
        self.store_physical_bytes(env, first, first_bytes, value)?;
        self.store_physical_bytes(env, second, second_bytes, value >> (8 * first_bytes))
    }

    /// Load `N` bytes (at most a page), wherever they lie.
    #[cold]
    #[inline(never)]
    pub fn read_bytes<const N: usize>(&mut self, env: &mut Env<'_>, linear: u64, seg: u8) -> Result<[u8; N], Stop> {
        let linear = self.untagged(linear);
        let access = self.data_access(false);
        let (first, second) = self.locate(env, linear, N as u64, seg, access)?;
        let mut bytes = [0; N];
        let (low, high) = bytes.split_at_mut(N - second.map_or(0, |(_, count)| count as usize));
        self.load_run(env, first, low)?;
        if let Some((second, _)) = second {
            self.load_run(env, second, high)?;
        }
        if self.mmu_index == MmuIndex::Checked {
            self.debug.note_data(linear, N as u64, false);
        }
        Ok(bytes)
    }

    /// Store bytes (at most a page), wherever they lie: all or nothing, but for an exit in the middle, which is restarted. End
    /// the handler as [`Cpu::write`] says.
    #[cold]
    #[inline(never)]
    pub fn write_bytes(&mut self, env: &mut Env<'_>, linear: u64, seg: u8, bytes: &[u8]) -> Result<(), Stop> {
        let linear = self.untagged(linear);
        let access = self.data_access(true);
        let (first, second) = self.locate(env, linear, bytes.len() as u64, seg, access)?;
        let in_ram = |gpa: u64| self.mem.offset(gpa).is_some();
        let all_in_ram = in_ram(first) && second.is_none_or(|(gpa, _)| in_ram(gpa));
        if !(self.careful || all_in_ram) {
            return Err(Stop::Careful);
        }
        let (low, high) = bytes.split_at(bytes.len() - second.map_or(0, |(_, count)| count as usize));
        self.store_run(env, first, low)?;
        if let Some((second, _)) = second {
            self.store_run(env, second, high)?;
        }
        if self.mmu_index == MmuIndex::Checked {
            self.debug.note_data(linear, bytes.len() as u64, true);
        }
        Ok(())
    }

    /// Load bytes that lie in one page; of a device in pieces of 8, then of 1.
    fn load_run(&mut self, env: &mut Env<'_>, gpa: u64, bytes: &mut [u8]) -> Result<(), Stop> {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        let behind = gpa + 8 * words.len() as u64;
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.load_physical(env, gpa + 8 * i as u64, 8)?.to_le_bytes();
        }
        for (i, byte) in rest.iter_mut().enumerate() {
            *byte = self.load_physical(env, behind + i as u64, 1)? as u8;
        }
        Ok(())
    }

    /// Store bytes that lie in one page; to a device in pieces of 8, then of 1.
    fn store_run(&mut self, env: &mut Env<'_>, gpa: u64, bytes: &[u8]) -> Result<(), Stop> {
        let (words, rest) = bytes.as_chunks::<8>();
        let behind = gpa + 8 * words.len() as u64;
        for (i, word) in words.iter().enumerate() {
            self.store_physical(env, gpa + 8 * i as u64, 8, u64::from_le_bytes(*word))?;
        }
        for (i, &byte) in rest.iter().enumerate() {
            self.store_physical(env, behind + i as u64, 1, byte.into())?;
        }
        Ok(())
    }

    /// Translate the one or two pages of an access: the GPA of the first byte, and the GPA and count of the bytes in
    /// a second page.
    fn locate(
        &mut self,
        env: &mut Env<'_>,
        linear: u64,
        bytes: u64,
        seg: u8,
        access: Access,
    ) -> Result<(u64, Option<(u64, u64)>), Stop> {
        let mask = if access.wide { u64::MAX } else { 0xFFFF_FFFF };
        let linear = linear & mask;
        let last = linear.wrapping_add(bytes - 1) & mask;
        if access.wide && !(self.is_canonical(linear) && self.is_canonical(last)) {
            let vector = if seg == SS { vector::SS } else { vector::GP };
            return Err(self.raise_with(vector, 0));
        }
        let first = self.map(env, linear, access)?;
        if linear & !PAGE_MASK == last & !PAGE_MASK {
            return Ok((first, None));
        }
        let second = self.map(env, last & !PAGE_MASK, access)?;
        Ok((first, Some((second, (last & PAGE_MASK) + 1))))
    }

    /// Translate one address and remember the page in the TLB if it is RAM.
    fn map(&mut self, env: &mut Env<'_>, linear: u64, access: Access) -> Result<u64, Stop> {
        // Rights of system accesses differ from those that `mmu_index` stands for.
        let ordinary = access == self.data_access(access.write);
        if ordinary
            && let Some((offset, storable)) = self.tlb.find(self.mmu_index, linear)
            && (storable || !access.write)
        {
            self.remember(linear, offset, storable);
            return Ok(self.mem.gpa(offset));
        }
        let Mapping { gpa, storable } = self.walk(env, linear, access)?;
        // What is read from firmware's image may be written elsewhere, so every access to it is looked at.
        if let Some(offset) = self.mem.offset(gpa)
            && ordinary
            && self.mem.is_ram(offset)
        {
            self.tlb.keep(self.mmu_index, linear, offset, storable);
            self.remember(linear, offset, storable);
        }
        Ok(gpa)
    }

    fn remember(&mut self, linear: u64, offset: u64, storable: bool) {
        let write = storable && self.mem.open_for_stores(offset);
        self.tlb.insert(self.mmu_index, linear, offset, write);
    }

    /// Load 1, 2, 4 or 8 bytes that lie in one page.
    pub fn load_physical(&mut self, env: &mut Env<'_>, gpa: u64, bytes: u64) -> Result<u64, Stop> {
        match (self.mem.offset(gpa), bytes) {
            (Some(offset), 1) => Ok(self.mem.load::<u8>(offset).into()),
            (Some(offset), 2) => Ok(self.mem.load::<u16>(offset).into()),
            (Some(offset), 4) => Ok(self.mem.load::<u32>(offset).into()),
            (Some(offset), 8) => Ok(self.mem.load::<u64>(offset)),
            _ => self.load_device(env, gpa, bytes),
        }
    }

    fn load_physical_bytes(&mut self, env: &mut Env<'_>, gpa: u64, bytes: u64) -> Result<u64, Stop> {
        (0..bytes).try_fold(0, |value, i| Ok(value | self.load_physical(env, gpa + i, 1)? << (8 * i)))
    }

    /// Store 1, 2, 4 or 8 bytes that lie in one page.
    pub fn store_physical(&mut self, env: &mut Env<'_>, gpa: u64, bytes: u64, value: u64) -> Result<(), Stop> {
        let Some(mut offset) = self.mem.offset(gpa) else { return self.store_device(env, gpa, bytes, value) };
        if !self.mem.open_for_stores(offset) {
            match self.mem.offset_for_stores(gpa) {
                Some(target) => offset = target,
                None => return Ok(()), // A ROM.
            }
            if env.code.overlaps(offset, bytes) {
                env.code_writes.push(offset);
                self.code_written = true;
            }
        }
        match bytes {
            1 => self.mem.store(offset, value as u8),
            2 => self.mem.store(offset, value as u16),
            4 => self.mem.store(offset, value as u32),
            _ => self.mem.store(offset, value),
        }
        Ok(())
    }

    fn store_physical_bytes(&mut self, env: &mut Env<'_>, gpa: u64, bytes: u64, value: u64) -> Result<(), Stop> {
        (0..bytes).try_for_each(|i| self.store_physical(env, gpa + i, 1, value >> (8 * i)))
    }

    fn load_device(&mut self, env: &mut Env<'_>, gpa: u64, bytes: u64) -> Result<u64, Stop> {
        self.ask_bus(
            env,
            |cpu, env| env.bus.mmio_read(cpu, gpa, bytes as usize),
            |vcpu| Exit::MmioRead { vcpu, gpa, size: bytes as u8 },
        )
    }

    fn store_device(&mut self, env: &mut Env<'_>, gpa: u64, bytes: u64, value: u64) -> Result<(), Stop> {
        let value = if bytes < 8 { value & ((1 << (8 * bytes)) - 1) } else { value };
        self.ask_bus(
            env,
            |cpu, env| match env.bus.mmio_write(cpu, gpa, bytes as usize, value) {
                Reply::Done(()) => Reply::Done(0),
                Reply::Fault => Reply::Fault,
                Reply::Exit => Reply::Exit,
            },
            |vcpu| Exit::MmioWrite { vcpu, gpa, size: bytes as u8, value },
        )
        .map(|_| ())
    }

    /// Put one question to the bus, once: when the instruction is restarted the recorded answer is used. Not in careful
    /// execution, the instruction is first run again carefully.
    pub fn ask_bus(
        &mut self,
        env: &mut Env<'_>,
        question: impl FnOnce(usize, &mut Env<'_>) -> Reply<u64>,
        exit: impl FnOnce(usize) -> Exit,
    ) -> Result<u64, Stop> {
        if !self.careful {
            return Err(Stop::Careful);
        }
        match self.replay.take() {
            Some(Answer::Value(value)) => return Ok(value),
            Some(Answer::Fault) => return Err(self.gp0()),
            Some(Answer::Done | Answer::Cpuid(_)) => return Ok(0),
            None => {}
        }
        env.charge_exit();
        let now = env.now_ns();
        env.bus.advance(now);
        match question(self.index, env) {
            Reply::Done(value) => {
                self.replay.record(Answer::Value(value));
                Ok(value)
            }
            Reply::Fault => Err(self.gp0()),
            Reply::Exit => Err(self.ask(exit(self.index))),
        }
    }
}
