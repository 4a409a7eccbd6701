//! Queues as a driver, good or bad, fills them.

use guestmem::GuestMemory;

use super::*;
use crate::driver::{BUFFERS, DESCRIPTORS, DEVICE, DRIVER, Driver, INDIRECT, MEMORY, NEXT, SIZE, WRITE};
use crate::{Console, Entropy, LATENCY_NS};

const EVENT_IDX: u64 = 1 << 29;

fn entropy() -> Driver {
    Driver::new(Box::new(Entropy::new([7; 32])), 0, 0)
}

/// What the device says of the chain at descriptor 0.
fn fault(driver: &mut Driver) -> Error {
    driver.offer(0);
    assert!(driver.run(), "a broken device says so");
    assert!(driver.needs_reset());
    assert_eq!(driver.used_index(), 0, "nothing is returned");
    driver.transport.fault().unwrap().clone()
}

#[test]
fn a_chain_is_served_a_fixed_time_after_its_notification_and_not_before() {
    let mut driver = entropy();
    driver.chain(&[(BUFFERS, 16, true), (BUFFERS + 0x100, 16, true)]);
    driver.offer(0);
    driver.transport.kick(0, 1000);
    driver.transport.kick(0, 2000);
    assert_eq!(driver.transport.due_ns(), Some(1000 + LATENCY_NS));
    assert_eq!(driver.used_index(), 0);
    driver.transport.serve(&driver.memory, 1000 + LATENCY_NS);
    assert_eq!((driver.used_index(), driver.used(0)), (1, (0, 32)));
    assert_ne!(driver.bytes::<16>(BUFFERS), [0; 16]);
    assert_ne!(driver.bytes::<16>(BUFFERS + 0x100), driver.bytes::<16>(BUFFERS));
    assert_eq!(driver.bytes::<16>(BUFFERS + 0x10), [0; 16], "between the buffers nothing is written");
    assert!(driver.memory.is_dirty(BUFFERS));
}

#[test]
fn the_ring_goes_round() {
    let mut driver = entropy();
    driver.chain(&[(BUFFERS, 1, true)]);
    for count in 1..=3 * SIZE {
        assert_eq!(driver.request(), 1);
        assert_eq!(driver.used_index(), count);
    }
}

#[test]
fn an_indirect_table_is_a_chain() {
    let mut driver = entropy();
    driver.describe(DESCRIPTORS, 0, BUFFERS, 32, INDIRECT, 0);
    driver.describe(BUFFERS, 0, BUFFERS + 0x1000, 8, WRITE | NEXT, 1);
    driver.describe(BUFFERS, 1, BUFFERS + 0x2000, 8, WRITE, 0);
    assert_eq!(driver.request(), 16);
}

#[test]
fn chains_that_make_no_sense_break_the_device() {
    type Describe = fn(&Driver);
    let cases: [(Describe, Error); 10] = [
        (|driver| driver.describe(DESCRIPTORS, 0, BUFFERS, 1, WRITE | NEXT, 0), Error::BadChain { index: 0 }),
        (|driver| driver.describe(DESCRIPTORS, 0, BUFFERS, 1, WRITE | NEXT, SIZE), Error::BadChain { index: SIZE }),
        (|driver| driver.chain(&[(BUFFERS, 1, true), (BUFFERS, 1, false)]), Error::ReadableAfterWritable),
        (|driver| driver.chain(&[(MEMORY - 1, 2, true)]), Error::BufferOutsideRam { gpa: MEMORY - 1, len: 2 }),
        (|driver| driver.chain(&[(u64::MAX, 2, true)]), Error::BufferOutsideRam { gpa: u64::MAX, len: 2 }),
        (|driver| driver.chain(&[(0, u32::MAX, true)]), Error::ChainTooLarge),
        (
            |driver| driver.describe(DESCRIPTORS, 0, BUFFERS, 17, INDIRECT, 0),
            Error::BadIndirectTable { gpa: BUFFERS, len: 17 },
        ),
        (
            |driver| driver.describe(DESCRIPTORS, 0, BUFFERS, 0, INDIRECT, 0),
            Error::BadIndirectTable { gpa: BUFFERS, len: 0 },
        ),
        (
            |driver| {
                driver.describe(DESCRIPTORS, 0, BUFFERS, 16, INDIRECT, 0);
                driver.describe(BUFFERS, 0, BUFFERS, 16, INDIRECT, 0);
            },
            Error::BadIndirectTable { gpa: BUFFERS, len: 16 },
        ),
        (|driver| driver.describe(DESCRIPTORS, 0, MEMORY, 16, INDIRECT, 0), Error::RingOutsideRam),
    ];
    for (describe, expected) in cases {
        let mut driver = entropy();
        describe(&driver);
        assert_eq!(fault(&mut driver), expected);
    }
}

#[test]
fn rings_that_make_no_sense_break_the_device() {
    type Spoil = fn(&mut Queue);
    let cases: [(Spoil, Error); 7] = [
        (|queue| queue.size = 0, Error::BadQueue),
        (|queue| queue.size = 3, Error::BadQueue),
        (|queue| queue.size = 512, Error::BadQueue),
        (|queue| queue.descriptors += 8, Error::BadQueue),
        (|queue| queue.driver = MEMORY, Error::RingOutsideRam),
        (|queue| queue.driver = u64::MAX - 1, Error::RingOutsideRam),
        (|queue| queue.device = u64::MAX - 3, Error::RingOutsideRam),
    ];
    for (spoil, expected) in cases {
        let mut driver = entropy();
        driver.chain(&[(BUFFERS, 1, true)]);
        spoil(driver.transport.queue_mut(0).unwrap());
        assert_eq!(fault(&mut driver), expected);
    }
}

#[test]
fn more_chains_than_entries_cannot_be_available() {
    let mut driver = entropy();
    driver.memory.write_bytes(DRIVER + 2, &(SIZE + 1).to_le_bytes()).unwrap();
    assert!(driver.run());
    assert_eq!(driver.transport.fault(), Some(&Error::BadIndex { count: SIZE + 1, size: SIZE }));
}

#[test]
fn a_broken_device_waits_for_its_reset() {
    let mut driver = entropy();
    driver.chain(&[(MEMORY, 1, true)]);
    fault(&mut driver);
    driver.chain(&[(BUFFERS, 1, true)]);
    driver.offer(0);
    assert!(!driver.run());
    driver.transport.set_status(0);
    assert_eq!((driver.transport.status(), driver.transport.fault()), (0, None));
}

#[test]
fn the_driver_says_whether_it_wants_interrupts() {
    let mut driver = entropy();
    driver.chain(&[(BUFFERS, 1, true)]);
    driver.offer(0);
    assert!(driver.run());
    driver.memory.write_bytes(DRIVER, &1u16.to_le_bytes()).unwrap();
    driver.offer(0);
    assert!(!driver.run());
    assert!(!driver.run(), "nothing was returned");
}

#[test]
fn an_event_index_says_which_chain_interrupts() {
    let mut driver = Driver::new(Box::new(Entropy::new([7; 32])), 0, EVENT_IDX);
    let used_event = DRIVER + 4 + 2 * u64::from(SIZE);
    let available_event = DEVICE + 4 + 8 * u64::from(SIZE);
    driver.chain(&[(BUFFERS, 1, true)]);
    driver.memory.write_bytes(used_event, &2u16.to_le_bytes()).unwrap();
    for (expected, count) in [(false, 1), (false, 2), (true, 3), (false, 4)] {
        driver.offer(0);
        assert_eq!(driver.run(), expected, "chain {count}");
        assert_eq!(u16::from_le_bytes(driver.bytes(available_event)), count);
    }
}

#[test]
fn input_waits_for_buffers_and_buffers_for_input() {
    let mut driver = Driver::new(Box::new(Console::new()), 0, 0);
    driver.chain(&[(BUFFERS, 4, true)]);
    driver.offer(0);
    assert!(!driver.run());
    let console = |driver: &mut Driver| -> usize {
        let console: &mut Console = driver.transport.device_mut().as_any().downcast_mut().unwrap();
        console.send(b"abcdef");
        console.waiting()
    };
    assert_eq!(console(&mut driver), 6);
    let before = driver.now_ns;
    assert!(driver.run());
    assert_eq!(driver.now_ns - before, 100_000_000, "the driver is given time to get ready");
    assert_eq!((driver.used(0), driver.bytes(BUFFERS)), ((0, 4), *b"abcd"));
    driver.offer(0);
    assert!(driver.run());
    assert_eq!((driver.used(1), driver.bytes(BUFFERS)), ((0, 2), *b"efcd"));
}

#[test]
fn what_is_printed_arrives_in_one_piece() {
    let mut driver = Driver::new(Box::new(Console::new()), 1, 0);
    driver.memory.write_bytes(BUFFERS, b"hello world").unwrap();
    driver.chain(&[(BUFFERS, 6, false), (BUFFERS + 6, 5, false)]);
    assert_eq!(driver.request(), 0);
    let console: &mut Console = driver.transport.device_mut().as_any().downcast_mut().unwrap();
    assert_eq!(console.take_output(), b"hello world");
}

#[test]
fn features_must_be_those_offered_and_modern() {
    for (features, accepted) in [(0, false), (1 << 32, true), (1 << 32 | 1 << 40, false), (1 << 32 | EVENT_IDX, true)] {
        let mut transport = crate::Transport::new(Box::new(Entropy::new([0; 32])));
        transport.set_driver_features(features);
        transport.set_status(11);
        assert_eq!(transport.status() & 8 != 0, accepted, "{features:#x}");
    }
}

#[test]
fn equal_seeds_give_equal_bytes() {
    let bytes = |seed| {
        let mut driver = Driver::new(Box::new(Entropy::new([seed; 32])), 0, 0);
        driver.chain(&[(BUFFERS, 32, true)]);
        driver.request();
        driver.bytes::<32>(BUFFERS)
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

/// Whatever is in the rings, nothing panics, takes for ever or writes outside of RAM.
#[test]
fn random_rings_do_no_harm() {
    let mut random = Random(1);
    for round in 0..3000 {
        let device: Box<dyn crate::Device> = match round % 3 {
            0 => Box::new(Entropy::new([1; 32])),
            1 => Box::new(Console::new()),
            _ => Box::new(crate::Block::new(
                Box::new(crate::Snapshot::new(crate::block::tests::Zeros(1 << 16), 1 << 14)),
                &Default::default(),
            )),
        };
        let queue = usize::from(round % 3 == 1 && round % 2 == 0);
        let mut driver = Driver::new(device, queue, if round % 2 == 0 { EVENT_IDX } else { 0 });
        fill(&driver.memory, &mut random);
        for _ in 0..4 {
            driver.run();
            driver.offer(random.below(20) as u16);
        }
    }
}

/// Rings and tables of numbers that are sometimes likely ones.
fn fill(memory: &GuestMemory, random: &mut Random) {
    for table in [DESCRIPTORS, BUFFERS] {
        for index in 0..u64::from(SIZE) {
            let gpa = match random.below(8) {
                0 => random.next(),
                1 => MEMORY - random.below(64),
                2 => BUFFERS,
                3 => DESCRIPTORS,
                _ => BUFFERS + random.below(0x8000),
            };
            let len = match random.below(6) {
                0 => random.next() as u32,
                1 => 16 * random.below(20) as u32,
                _ => random.below(2000) as u32,
            };
            let flags = [0, NEXT, NEXT, WRITE, WRITE | NEXT, INDIRECT, 0xFFFF, WRITE][random.below(8) as usize];
            let next = random.below(u64::from(SIZE) + 2);
            let value =
                u128::from(gpa) | u128::from(len) << 64 | u128::from(flags) << 96 | u128::from(next as u16) << 112;
            memory.write_bytes(table + 16 * index, &value.to_le_bytes()).unwrap();
        }
    }
    // Request types and sectors where buffers often begin.
    for at in (0..0x8000).step_by(512) {
        let header = u128::from(random.below(15)) | u128::from(random.below(140)) << 64;
        memory.write_bytes(BUFFERS + 0x1000 + at, &header.to_le_bytes()).unwrap();
    }
}

/// A generator that is good enough for tests: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 32) % limit
    }
}
