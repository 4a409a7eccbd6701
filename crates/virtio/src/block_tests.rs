//! The disk, request by request.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use super::*;
use crate::driver::{BUFFERS, Driver};

const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x800;

/// Storage of zeros that forgets what is written.
pub struct Zeros(pub u64);

impl Storage for Zeros {
    fn len(&self) -> u64 {
        self.0
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&mut self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn hash_state(&self, _: &mut dyn Hasher) {}
}

/// An unnamed file with `sectors` sectors, each full of its number.
fn image(sectors: u8) -> File {
    let path =
        std::env::temp_dir().join(format!("virtio-block-{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for sector in 0..sectors {
        file.write_all(&[sector; 512]).unwrap();
    }
    file
}

fn driver(storage: impl Storage + 'static) -> Driver {
    let config = BlockConfig { id: "a name of more than twenty bytes".into() };
    Driver::new(Box::new(Block::new(Box::new(storage), &config)), 0, 0)
}

fn file_driver(file: &File, read_only: bool) -> Driver {
    driver(FileStorage::new(file.try_clone().unwrap(), read_only).unwrap())
}

/// Make a request with `len` bytes of data; its status and the bytes said to be written.
fn request(driver: &mut Driver, kind: u32, sector: u64, len: u32, device_writes: bool) -> (u8, u32) {
    let header = u128::from(kind) | u128::from(sector) << 64;
    driver.memory.write_bytes(HEADER, &header.to_le_bytes()).unwrap();
    driver.memory.write_bytes(STATUS, &[0xFF]).unwrap();
    match len {
        0 => driver.chain(&[(HEADER, 16, false), (STATUS, 1, true)]),
        _ => driver.chain(&[(HEADER, 16, false), (DATA, len, device_writes), (STATUS, 1, true)]),
    }
    let written = driver.request();
    assert!(!driver.needs_reset());
    (driver.bytes::<1>(STATUS)[0], written)
}

fn read(driver: &mut Driver, sector: u64, len: u32) -> (u8, u32) {
    request(driver, REQUEST_IN, sector, len, true)
}

fn write(driver: &mut Driver, sector: u64, data: &[u8]) -> u8 {
    driver.memory.write_bytes(DATA, data).unwrap();
    request(driver, REQUEST_OUT, sector, data.len() as u32, false).0
}

fn failures(driver: &mut Driver) -> Option<(u64, io::ErrorKind)> {
    let block: &mut Block = driver.transport.device_mut().as_any().downcast_mut().unwrap();
    block.take_failures().map(|(count, error)| (count, error.kind()))
}

#[test]
fn the_disk_has_the_bytes_of_the_file() {
    let file = image(8);
    let mut driver = file_driver(&file, false);
    assert_eq!(driver.transport.config(0), 8, "sectors");
    assert_eq!(read(&mut driver, 3, 1024), (STATUS_OK, 1025));
    assert_eq!(driver.bytes::<1024>(DATA)[510..514], [3, 3, 4, 4]);
    assert_eq!(write(&mut driver, 7, &[0xAB; 512]), STATUS_OK);
    assert_eq!(request(&mut driver, REQUEST_FLUSH, 0, 0, false), (STATUS_OK, 1));
    let (mut file, mut bytes) = (file, Vec::new());
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len(), &bytes[6 * 512..6 * 512 + 1], &bytes[7 * 512..]), (4096, &[6][..], &[0xAB; 512][..]));
}

#[test]
fn beyond_the_end_there_is_nothing_to_read_or_write() {
    let file = image(8);
    let mut driver = file_driver(&file, false);
    for sector in [7, 8, u64::MAX] {
        assert_eq!(read(&mut driver, sector, 1024).0, STATUS_IO_ERROR);
        assert_eq!(write(&mut driver, sector, &[0; 1024]), STATUS_IO_ERROR);
    }
    assert_ne!(read(&mut driver, 0, 100).0, STATUS_OK, "less than a sector");
    assert_eq!(file.metadata().unwrap().len(), 4096);
    assert_eq!(failures(&mut driver), None, "that was the guest's fault");
}

#[test]
fn a_snapshot_leaves_the_file_alone() {
    let file = image(16);
    let base = FileStorage::new(file.try_clone().unwrap(), true).unwrap();
    let mut driver = driver(Snapshot::new(base, 4096));
    assert_eq!(write(&mut driver, 1, &[0xAB; 512]), STATUS_OK);
    assert_eq!(read(&mut driver, 0, 1536).0, STATUS_OK);
    let data = driver.bytes::<1536>(DATA);
    assert_eq!([data[0], data[511], data[512], data[1023], data[1024]], [0, 0, 0xAB, 0xAB, 2]);
    // The first 4096 bytes have a copy; there may not be a second.
    assert_eq!(write(&mut driver, 7, &[0xAB; 512]), STATUS_OK);
    assert_eq!(write(&mut driver, 8, &[0xAB; 512]), STATUS_IO_ERROR);
    assert_eq!(failures(&mut driver), Some((1, io::ErrorKind::StorageFull)));
    let mut bytes = Vec::new();
    (&file).seek(SeekFrom::Start(0)).unwrap();
    (&file).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[512..514], [1, 1]);
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let mut driver = file_driver(&image(8), true);
    assert_ne!(driver.transport.device_features() & READ_ONLY, 0);
    assert_eq!(write(&mut driver, 0, &[1; 512]), STATUS_IO_ERROR);
    assert_eq!(read(&mut driver, 0, 512).0, STATUS_OK);
    assert_eq!(driver.bytes::<1>(DATA), [0]);
}

#[test]
fn a_file_that_shrinks_is_an_io_error() {
    let file = image(8);
    let mut driver = file_driver(&file, false);
    file.set_len(1024).unwrap();
    assert_eq!(read(&mut driver, 0, 1024).0, STATUS_OK);
    assert_eq!(read(&mut driver, 4, 512), (STATUS_IO_ERROR, 0));
    assert_eq!(read(&mut driver, 5, 512).0, STATUS_IO_ERROR);
    assert_eq!(failures(&mut driver), Some((2, io::ErrorKind::UnexpectedEof)));
    assert_eq!(failures(&mut driver), None);
}

#[test]
fn the_disk_has_a_name_of_20_bytes() {
    let mut driver = file_driver(&image(8), false);
    assert_eq!(request(&mut driver, REQUEST_GET_ID, 0, 20, true), (STATUS_OK, 21));
    assert_eq!(&driver.bytes(DATA), b"a name of more than ");
}

#[test]
fn zeroes_can_be_written_without_being_sent() {
    let file = image(8);
    let mut driver = file_driver(&file, false);
    let zeroes = |driver: &mut Driver, sector: u64, count: u32| {
        let range = u128::from(sector) | u128::from(count) << 64;
        driver.memory.write_bytes(DATA, &range.to_le_bytes()).unwrap();
        request(driver, REQUEST_WRITE_ZEROES, 0, 16, false).0
    };
    assert_eq!(zeroes(&mut driver, 2, 2), STATUS_OK);
    assert_ne!(zeroes(&mut driver, 7, 2), STATUS_OK);
    assert_ne!(zeroes(&mut driver, 0, u32::MAX), STATUS_OK);
    assert_eq!(read(&mut driver, 1, 2048).0, STATUS_OK);
    let data = driver.bytes::<2048>(DATA);
    assert_eq!([data[511], data[512], data[1535], data[1536]], [1, 0, 0, 4]);
}

#[test]
fn what_is_no_request_is_told_so() {
    let mut driver = file_driver(&image(8), false);
    assert_eq!(request(&mut driver, 99, 0, 512, true), (STATUS_UNSUPPORTED, 0));
    driver.chain(&[(HEADER, 15, false), (STATUS, 1, true)]);
    driver.request();
    assert!(driver.needs_reset(), "a header that is too short");
    let mut driver = file_driver(&image(8), false);
    driver.chain(&[(HEADER, 16, false)]);
    driver.request();
    assert!(driver.needs_reset(), "no room for the status");
}

#[test]
fn a_large_request_goes_through_in_pieces() {
    let mut driver = file_driver(&image(255), false);
    let len = 255 * 512;
    assert_eq!(read(&mut driver, 0, len), (STATUS_OK, len + 1));
    for sector in 0..255u8 {
        assert_eq!(driver.bytes::<1>(DATA + 512 * u64::from(sector)), [sector]);
    }
}
