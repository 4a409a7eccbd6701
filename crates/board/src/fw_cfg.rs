//! QEMU's firmware configuration device, `docs/specs/fw_cfg` of QEMU: numbered items of bytes, read through a port or by DMA.

use std::collections::BTreeMap;

use guestmem::GuestMemory;

/// 16-bit selector (write).
pub const SELECTOR: u16 = 0x510;
/// 8-bit data (read).
pub const DATA: u16 = 0x511;
/// Upper half of the DMA descriptor's address, big-endian.
pub const DMA_HIGH: u16 = 0x514;
/// Lower half, whose write starts the transfer.
pub const DMA_LOW: u16 = 0x518;

/// The most bytes that one item may have.
pub const MAX_ITEM_SIZE: usize = 1 << 20;
/// The most bytes that one DMA request may move or skip; beyond the end of an item there are only zeros.
const MAX_DMA_LENGTH: u32 = 16 << 20;
const DMA_CHUNK: usize = 4096;

const KEY_SIGNATURE: u16 = 0x0000;
const KEY_ID: u16 = 0x0001;
const KEY_RAM_SIZE: u16 = 0x0003;
const KEY_VCPUS: u16 = 0x0005;
const KEY_MAX_VCPUS: u16 = 0x000F;
const KEY_FILE_DIRECTORY: u16 = 0x0019;
/// Files have the keys from here on.
const KEY_FIRST_FILE: u16 = 0x0020;
/// Bit 14 of a key once asked for writing; such items are the same here.
const KEY_MASK: u16 = 0xBFFF;

/// ID: the port interface, and DMA.
const ID_TRADITIONAL: u32 = 1 << 0;
const ID_DMA: u32 = 1 << 1;

/// "QEMU CFG", what the DMA address register reads as.
const DMA_SIGNATURE: u64 = 0x5145_4D55_2043_4647;

const DMA_ERROR: u32 = 1 << 0;
const DMA_READ: u32 = 1 << 1;
const DMA_SKIP: u32 = 1 << 2;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;

/// Longest file name, without the terminating zero.
const MAX_NAME: usize = 55;

/// Why an item is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The item has more than [`MAX_ITEM_SIZE`] bytes.
    TooLong {
        /// Bytes given.
        size: usize,
    },
    /// A file name is empty, longer than 55 bytes, or holds a zero byte.
    Name,
    /// There are no keys left for files.
    TooManyFiles,
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong { size } => {
                write!(formatter, "a fw_cfg item of {size} bytes is too long: at most {MAX_ITEM_SIZE}")
            }
            Self::Name => write!(formatter, "a fw_cfg file name has 1 to {MAX_NAME} bytes, none of them zero"),
            Self::TooManyFiles => write!(formatter, "too many fw_cfg files"),
        }
    }
}

impl std::error::Error for Error {}

/// The device.
#[derive(Clone, Debug, Hash)]
pub struct FwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    files: Vec<String>,
    selected: u16,
    position: usize,
    dma_high: u32,
}

impl FwCfg {
    /// A device that tells how many vCPUs and how many bytes of RAM there are.
    pub fn new(vcpus: usize, ram_size: u64) -> Self {
        let vcpus = (vcpus as u16).to_le_bytes().to_vec();
        let items = BTreeMap::from([
            (KEY_RAM_SIZE, ram_size.to_le_bytes().to_vec()),
            (KEY_VCPUS, vcpus.clone()),
            (KEY_MAX_VCPUS, vcpus),
            (KEY_SIGNATURE, b"QEMU".to_vec()),
            (KEY_ID, (ID_TRADITIONAL | ID_DMA).to_le_bytes().to_vec()),
            (KEY_FILE_DIRECTORY, 0u32.to_be_bytes().to_vec()),
        ]);
        Self { items, files: Vec::new(), selected: 0, position: 0, dma_high: 0 }
    }

    /// RESET. The items belong to the host.
    pub fn reset(&mut self) {
        self.selected = 0;
        self.position = 0;
        self.dma_high = 0;
    }

    /// Give an item its content.
    pub fn set_item(&mut self, key: u16, data: Vec<u8>) -> Result<(), Error> {
        if data.len() > MAX_ITEM_SIZE {
            return Err(Error::TooLong { size: data.len() });
        }
        self.items.insert(key & KEY_MASK, data);
        Ok(())
    }

    /// Add or replace a named file; returns its key.
    pub fn set_file(&mut self, name: &str, data: Vec<u8>) -> Result<u16, Error> {
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
            return Err(Error::Name);
        }
        let index = self.files.iter().position(|file| file == name).unwrap_or(self.files.len());
        let key = u16::try_from(index).ok().and_then(|index| KEY_FIRST_FILE.checked_add(index));
        let key = key.filter(|&key| key <= KEY_MASK & 0x3FFF).ok_or(Error::TooManyFiles)?;
        self.set_item(key, data)?;
        if index == self.files.len() {
            self.files.push(name.to_owned());
        }
        self.items.insert(KEY_FILE_DIRECTORY, self.directory());
        Ok(key)
    }

    fn directory(&self) -> Vec<u8> {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for (key, name) in (KEY_FIRST_FILE..).zip(&self.files) {
            let size = self.items.get(&key).map_or(0, Vec::len) as u32;
            directory.extend(size.to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(name.as_bytes());
            directory.resize(directory.len() + MAX_NAME + 1 - name.len(), 0);
        }
        directory
    }

    pub fn select(&mut self, key: u16) {
        self.selected = key & KEY_MASK;
        self.position = 0;
    }

    /// The next byte of the selected item; zero beyond its end.
    pub fn read_data(&mut self) -> u8 {
        let byte = self.items.get(&self.selected).and_then(|item| item.get(self.position)).copied();
        self.position = self.position.saturating_add(1);
        byte.unwrap_or(0)
    }

    /// Read from the DMA address register. `offset` is 0 for its upper half, 4 for the lower.
    pub fn read_dma(&self, offset: u16) -> u32 {
        // As every register of the DMA interface it is big-endian.
        ((DMA_SIGNATURE >> (32 - u32::from(offset & 4) * 8)) as u32).swap_bytes()
    }

    pub fn write_dma_high(&mut self, value: u32) {
        self.dma_high = value.swap_bytes();
    }

    /// Write the lower half of the descriptor's address, and carry the request out.
    pub fn write_dma_low(&mut self, value: u32, memory: &GuestMemory) {
        let descriptor = u64::from(self.dma_high) << 32 | u64::from(value.swap_bytes());
        self.dma_high = 0;
        let mut bytes = [0; 16];
        if memory.read_bytes(descriptor, &mut bytes).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = bytes;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let failed = self.dma(control, length, u64::from_be_bytes(address), memory).is_err();
        let result = if failed { DMA_ERROR } else { 0 };
        // The guest polls this word; if it is not RAM the guest has fooled itself.
        let _ = memory.write_bytes(descriptor, &result.to_be_bytes());
    }

    fn dma(&mut self, control: u32, length: u32, address: u64, memory: &GuestMemory) -> Result<(), ()> {
        if control & DMA_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        if length > MAX_DMA_LENGTH || control & DMA_WRITE != 0 {
            // No item can be written.
            return Err(());
        }
        if control & DMA_READ != 0 {
            return self.dma_read(length as usize, address, memory);
        }
        if control & DMA_SKIP != 0 {
            self.position = self.position.saturating_add(length as usize);
        }
        Ok(())
    }

    fn dma_read(&mut self, length: usize, address: u64, memory: &GuestMemory) -> Result<(), ()> {
        let item = self.items.get(&self.selected).map_or(&[][..], Vec::as_slice);
        let mut done = 0;
        while done < length {
            let count = DMA_CHUNK.min(length - done);
            let rest = item.get(self.position..).unwrap_or(&[]);
            let mut chunk = [0; DMA_CHUNK];
            let from_item = count.min(rest.len());
            chunk[..from_item].copy_from_slice(&rest[..from_item]);
            let target = address.checked_add(done as u64).ok_or(())?;
            memory.write_bytes(target, &chunk[..count]).map_err(|_| ())?;
            self.position = self.position.saturating_add(count);
            done += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(device: &mut FwCfg, key: u16, count: usize) -> Vec<u8> {
        device.select(key);
        (0..count).map(|_| device.read_data()).collect()
    }

    #[test]
    fn an_item_reads_byte_by_byte_and_zero_beyond() {
        let mut device = FwCfg::new(1, 0x10000);
        device.set_item(5, vec![4, 0]).unwrap();
        assert_eq!(read(&mut device, 5, 4), [4, 0, 0, 0]);
        assert_eq!(read(&mut device, 0, 5), b"QEMU\0");
        assert_eq!(read(&mut device, KEY_RAM_SIZE, 8), 0x10000u64.to_le_bytes());
        assert_eq!(read(&mut device, KEY_MAX_VCPUS, 2), [1, 0]);
        assert_eq!(read(&mut device, 0x7777, 2), [0, 0]);
    }

    #[test]
    fn files_are_listed_in_the_directory() {
        let mut device = FwCfg::new(1, 0x10000);
        device.set_file("etc/a", vec![1, 2, 3]).unwrap();
        let key = device.set_file("opt/b", vec![9]).unwrap();
        device.set_file("etc/a", vec![7; 300]).unwrap();
        let directory = read(&mut device, KEY_FILE_DIRECTORY, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..12], [0, 0, 1, 44, 0, 0x20, 0, 0]);
        assert_eq!(&directory[12..18], b"etc/a\0");
        assert_eq!(directory[72..74], key.to_be_bytes());
        assert_eq!(read(&mut device, key, 1), [9]);
    }

    #[test]
    fn bad_items_are_refused() {
        let mut device = FwCfg::new(1, 0x10000);
        assert_eq!(device.set_item(5, vec![0; MAX_ITEM_SIZE + 1]), Err(Error::TooLong { size: MAX_ITEM_SIZE + 1 }));
        assert_eq!(device.set_file("", vec![]), Err(Error::Name));
        assert_eq!(device.set_file(&"x".repeat(56), vec![]), Err(Error::Name));
    }

    /// Put a descriptor at 0x1000, start it, and return its control word afterwards.
    fn dma(device: &mut FwCfg, memory: &GuestMemory, control: u32, length: u32, address: u64) -> u32 {
        let mut descriptor = Vec::new();
        descriptor.extend(control.to_be_bytes());
        descriptor.extend(length.to_be_bytes());
        descriptor.extend(address.to_be_bytes());
        memory.write_bytes(0x1000, &descriptor).unwrap();
        device.write_dma_high(0);
        device.write_dma_low(0x1000u32.swap_bytes(), memory);
        let mut control = [0; 4];
        memory.read_bytes(0x1000, &mut control).unwrap();
        u32::from_be_bytes(control)
    }

    #[test]
    fn dma_selects_skips_and_reads() {
        let memory = GuestMemory::new(0x10000).unwrap();
        let mut device = FwCfg::new(1, 0x10000);
        device.set_item(0x20, (0..100).collect()).unwrap();
        assert_eq!(dma(&mut device, &memory, 0x20 << 16 | DMA_SELECT | DMA_SKIP, 10, 0), 0);
        assert_eq!(dma(&mut device, &memory, DMA_READ, 4, 0x2000), 0);
        let mut bytes = [0; 4];
        memory.read_bytes(0x2000, &mut bytes).unwrap();
        assert_eq!(bytes, [10, 11, 12, 13]);
    }

    #[test]
    fn hostile_dma_is_an_error_of_the_guest() {
        let memory = GuestMemory::new(0x10000).unwrap();
        let mut device = FwCfg::new(1, 0x10000);
        assert_eq!(dma(&mut device, &memory, DMA_READ, u32::MAX, 0), DMA_ERROR);
        assert_eq!(dma(&mut device, &memory, DMA_READ, 8, u64::MAX), DMA_ERROR);
        assert_eq!(dma(&mut device, &memory, DMA_READ, 0x2000, 0xF000), DMA_ERROR);
        assert_eq!(dma(&mut device, &memory, DMA_WRITE, 1, 0x2000), DMA_ERROR);
        device.write_dma_high(u32::MAX);
        device.write_dma_low(u32::MAX, &memory);
    }

    #[test]
    fn the_dma_register_shows_its_signature() {
        let device = FwCfg::new(1, 0x10000);
        assert_eq!(device.read_dma(0).to_le_bytes(), *b"QEMU");
        assert_eq!(device.read_dma(4).to_le_bytes(), *b" CFG");
    }
}
