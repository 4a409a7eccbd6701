//! Descriptor chains: what a driver offers for one request, checked before anything of it is used. Section 2.7.

use guestmem::GuestMemory;

use crate::queue::Error;

/// The most bytes that the buffers of one chain may have together.
pub const MAX_CHAIN_BYTES: u64 = 32 << 20;
/// The most descriptors of a chain, in an indirect table too.
const MAX_DESCRIPTORS: u32 = 1024;

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: u64 = 16;
const NEXT: u16 = 1 << 0;
const WRITE: u16 = 1 << 1;
const INDIRECT: u16 = 1 << 2;

/// `struct virtq_desc`.
#[derive(Clone, Copy)]
struct Descriptor {
    gpa: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(memory: &GuestMemory, table: u64, index: u16) -> Result<Self, Error> {
        let mut bytes = [0; DESCRIPTOR_SIZE as usize];
        let gpa = table.checked_add(u64::from(index) * DESCRIPTOR_SIZE).ok_or(Error::RingOutsideRam)?;
        memory.read_bytes(gpa, &mut bytes).map_err(|_| Error::RingOutsideRam)?;
        let value = u128::from_le_bytes(bytes);
        Ok(Self {
            gpa: value as u64,
            len: (value >> 64) as u32,
            flags: (value >> 96) as u16,
            next: (value >> 112) as u16,
        })
    }
}

/// A run of guest memory.
#[derive(Clone, Copy, Debug)]
struct Span {
    gpa: u64,
    len: u64,
}

/// The buffers of one request: all of them RAM, bounded in number and size.
#[derive(Debug)]
pub struct Chain {
    /// Index of the first descriptor, by which the driver knows the request.
    pub head: u16,
    readable: Vec<Span>,
    writable: Vec<Span>,
}

impl Chain {
    /// Collect the chain that begins at descriptor `head` of a table with `size` entries.
    ///
    /// # Errors
    /// If the driver has broken a rule of section 2.7.5.
    pub(crate) fn collect(memory: &GuestMemory, table: u64, size: u16, head: u16) -> Result<Self, Error> {
        let mut chain = Self { head, readable: Vec::new(), writable: Vec::new() };
        let mut walk = Walk { memory, table, size, count: 0, bytes: 0, is_indirect: false };
        let mut next = Some(head);
        while let Some(index) = next {
            let descriptor = walk.descriptor(index)?;
            if descriptor.flags & INDIRECT != 0 {
                walk.enter_table(descriptor)?;
                next = Some(0);
                continue;
            }
            walk.check(descriptor)?;
            let is_writable = descriptor.flags & WRITE != 0;
            if !is_writable && !chain.writable.is_empty() {
                return Err(Error::ReadableAfterWritable);
            }
            let spans = if is_writable { &mut chain.writable } else { &mut chain.readable };
            spans.push(Span { gpa: descriptor.gpa, len: descriptor.len.into() });
            next = (descriptor.flags & NEXT != 0).then_some(descriptor.next);
        }
        Ok(chain)
    }

    /// Bytes that the device may read.
    pub fn readable_len(&self) -> u64 {
        self.readable.iter().map(|span| span.len).sum()
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> u64 {
        self.writable.iter().map(|span| span.len).sum()
    }

    /// Read from the readable part, `offset` bytes behind its beginning. Returns how many bytes there were.
    pub fn read_at(&self, memory: &GuestMemory, offset: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        for (gpa, len) in parts(&self.readable, offset, buffer.len()) {
            if memory.read_bytes(gpa, &mut buffer[done..done + len]).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Write to the writable part, likewise.
    pub fn write_at(&self, memory: &GuestMemory, offset: u64, bytes: &[u8]) -> usize {
        let mut done = 0;
        for (gpa, len) in parts(&self.writable, offset, bytes.len()) {
            if memory.write_bytes(gpa, &bytes[done..done + len]).is_err() {
                break;
            }
            done += len;
        }
        done
    }
}

/// Where we are in a chain, and how much of it there was.
struct Walk<'a> {
    memory: &'a GuestMemory,
    table: u64,
    size: u16,
    count: u32,
    bytes: u64,
    is_indirect: bool,
}

impl Walk<'_> {
    fn descriptor(&mut self, index: u16) -> Result<Descriptor, Error> {
        // A chain that is longer than its table goes round in it.
        self.count += 1;
        if index >= self.size || self.count > u32::from(self.size) {
            return Err(Error::BadChain { index });
        }
        Descriptor::read(self.memory, self.table, index)
    }

    /// Go on in the table that an indirect descriptor names: not from within one, and as the last of a chain (section 2.7.5.3.1).
    fn enter_table(&mut self, descriptor: Descriptor) -> Result<(), Error> {
        let count = u64::from(descriptor.len) / DESCRIPTOR_SIZE;
        let is_whole = u64::from(descriptor.len) % DESCRIPTOR_SIZE == 0;
        if self.is_indirect
            || descriptor.flags & NEXT != 0
            || !is_whole
            || !(1..=u64::from(MAX_DESCRIPTORS)).contains(&count)
        {
            return Err(Error::BadIndirectTable { gpa: descriptor.gpa, len: descriptor.len });
        }
        (self.table, self.size, self.count, self.is_indirect) = (descriptor.gpa, count as u16, 0, true);
        Ok(())
    }

    fn check(&mut self, descriptor: Descriptor) -> Result<(), Error> {
        self.bytes += u64::from(descriptor.len);
        if self.bytes > MAX_CHAIN_BYTES {
            return Err(Error::ChainTooLarge);
        }
        if !self.memory.contains(descriptor.gpa, descriptor.len.into()) {
            return Err(Error::BufferOutsideRam { gpa: descriptor.gpa, len: descriptor.len });
        }
        Ok(())
    }
}

/// The runs of guest memory that make up `len` bytes from `offset` on, as far as the spans reach.
fn parts(spans: &[Span], offset: u64, len: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
    let (mut skip, mut left) = (offset, len as u64);
    spans.iter().filter_map(move |span| {
        let skipped = skip.min(span.len);
        skip -= skipped;
        let count = (span.len - skipped).min(left);
        left -= count;
        (count > 0).then_some((span.gpa + skipped, count as usize))
    })
}
