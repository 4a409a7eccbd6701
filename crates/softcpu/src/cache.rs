//! Decoded blocks, by physical address and mode, shared by all vCPUs.
//!
//! A block lies in one page. Direct branches within the page are *linked*: the block names its successors. That is safe
//! because all blocks of a page are dropped together, and because whoever runs in a page has its translation. Everything else
//! goes through the vCPU's jump table ([`JumpTable`]), which forgets when translations or blocks change.
//!
//! Memory is bounded: when the cache holds too many ops it is emptied.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::cpu::CodeMode;
use crate::op::Op;

/// Index of a block.
pub type BlockId = u32;
/// No block.
pub const NO_BLOCK: BlockId = BlockId::MAX;

/// The most ops kept in all, about 40 MiB.
const MAX_OPS: usize = 1 << 20;

/// Straight-line code.
pub struct Block {
    /// Its instructions, at least one.
    pub ops: Box<[Op]>,
    /// Successors in the same page: of the branch not taken (or the block's end), and taken.
    pub links: [BlockId; 2],
    /// RAM offset of its first byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: u32,
    /// How it is executed.
    pub kind: Kind,
}

/// What is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Instructions that are executed one after the other.
    Plain,
    /// One system instruction that concerns the vCPU alone: it needs no more than a look at what it has changed.
    Private,
    /// One instruction that touches the bus, or has to be executed carefully for another reason.
    Careful,
}

/// A fast hash for keys that are addresses.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing; the rotation brings the well-mixed high bits down to where the table looks.
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
}

type AddressMap<K, V> = HashMap<K, V, BuildHasherDefault<AddressHasher>>;

/// All decoded blocks.
#[derive(Default)]
pub struct CodeCache {
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    by_address: AddressMap<(u64, CodeMode), BlockId>,
    by_page: AddressMap<u64, Vec<(BlockId, CodeMode)>>,
    ops: usize,
    /// Counts removals: block ids from before are stale when it changes.
    pub epoch: u64,
    /// Blocks decoded so far.
    pub decoded: u64,
    /// Blocks dropped so far because their bytes were written.
    pub invalidated: u64,
}

impl CodeCache {
    /// The block decoded at RAM offset `offset` in `mode`.
    pub fn find(&self, offset: u64, mode: CodeMode) -> Option<BlockId> {
        self.by_address.get(&(offset, mode)).copied()
    }

    /// A block by a valid id.
    #[inline(always)]
    pub fn get(&self, id: BlockId) -> &Block {
        &self.blocks[id as usize]
    }

    /// Name the successor of `from`.
    pub fn link(&mut self, from: BlockId, slot: usize, to: BlockId) {
        self.blocks[from as usize].links[slot] = to;
    }

    /// Whether two blocks lie in the same page, so that one may name the other.
    pub fn same_page(&self, a: BlockId, b: BlockId) -> bool {
        self.get(a).offset >> 12 == self.get(b).offset >> 12
    }

    /// Whether there is room for more without emptying the cache.
    pub fn is_full(&self) -> bool {
        self.ops >= MAX_OPS
    }

    /// Add a block; the caller has marked its page as holding code.
    pub fn insert(&mut self, block: Block, mode: CodeMode) -> BlockId {
        self.decoded += 1;
        self.ops += block.ops.len();
        let (offset, page) = (block.offset, block.offset >> 12);
        let id = match self.free.pop() {
            Some(id) => {
                self.blocks[id as usize] = block;
                id
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as BlockId
            }
        };
        self.by_address.insert((offset, mode), id);
        self.by_page.entry(page).or_default().push((id, mode));
        id
    }

    /// Whether some block covers a byte of `offset..offset + len`, a range within one page.
    pub fn overlaps(&self, offset: u64, len: u64) -> bool {
        self.by_page.get(&(offset >> 12)).is_some_and(|blocks| {
            blocks.iter().any(|&(id, _)| {
                let block = self.get(id);
                block.offset < offset + len && offset < block.offset + u64::from(block.bytes)
            })
        })
    }

    /// Drop every block of the page of `offset`. Returns whether there was any.
    pub fn drop_page(&mut self, offset: u64) -> bool {
        let Some(blocks) = self.by_page.remove(&(offset >> 12)) else { return false };
        for &(id, mode) in &blocks {
            let block = &mut self.blocks[id as usize];
            self.by_address.remove(&(block.offset, mode));
            self.ops -= block.ops.len();
            block.ops = Box::default();
            self.free.push(id);
        }
        self.invalidated += blocks.len() as u64;
        self.epoch += 1;
        true
    }

    /// Drop everything; gives the pages (RAM offsets) that held code.
    pub fn clear(&mut self) -> Vec<u64> {
        let pages = self.by_page.keys().map(|page| page << 12).collect();
        let (decoded, invalidated, epoch) = (self.decoded, self.invalidated, self.epoch + 1);
        *self = Self { decoded, invalidated, epoch, ..Self::default() };
        pages
    }
}

const JUMP_ENTRIES: usize = 2048;

#[derive(Clone, Copy)]
struct Jump {
    rip: u64,
    /// What must be the same for the entry to hold: a stamp that changes with translations and blocks, mode and privilege.
    key: u64,
    block: BlockId,
}

/// A vCPU's shortcut from RIP to block.
pub struct JumpTable(Box<[Jump; JUMP_ENTRIES]>);

impl Default for JumpTable {
    fn default() -> Self {
        Self(Box::new([Jump { rip: 0, key: u64::MAX, block: NO_BLOCK }; JUMP_ENTRIES]))
    }
}

impl JumpTable {
    #[inline(always)]
    fn index(rip: u64) -> usize {
        (rip ^ rip >> 11) as usize % JUMP_ENTRIES
    }

    /// The block at `rip` under `key`.
    #[inline(always)]
    pub fn find(&self, rip: u64, key: u64) -> Option<BlockId> {
        let jump = &self.0[Self::index(rip)];
        (jump.rip == rip && jump.key == key).then_some(jump.block)
    }

    /// Remember a block.
    pub fn insert(&mut self, rip: u64, key: u64, block: BlockId) {
        self.0[Self::index(rip)] = Jump { rip, key, block };
    }
}
