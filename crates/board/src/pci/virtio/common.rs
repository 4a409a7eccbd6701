//! `struct virtio_pci_common_cfg`, virtio 1.2 section 4.1.4.3.

use virtio::{Interrupts, Queue, Transport};

/// No message for this.
const NO_VECTOR: u16 = 0xFFFF;

const DEVICE_FEATURE_SELECT: u32 = 0x00;
const DEVICE_FEATURE: u32 = 0x04;
const DRIVER_FEATURE_SELECT: u32 = 0x08;
const DRIVER_FEATURE: u32 = 0x0C;
const CONFIG_VECTOR: u32 = 0x10;
const NUM_QUEUES: u32 = 0x12;
const DEVICE_STATUS: u32 = 0x14;
const CONFIG_GENERATION: u32 = 0x15;
const QUEUE_SELECT: u32 = 0x16;
const QUEUE_SIZE: u32 = 0x18;
const QUEUE_VECTOR: u32 = 0x1A;
const QUEUE_ENABLE: u32 = 0x1C;
const QUEUE_NOTIFY_OFFSET: u32 = 0x1E;
const QUEUE_DESCRIPTORS: u32 = 0x20;
const QUEUE_DRIVER: u32 = 0x28;
const QUEUE_DEVICE: u32 = 0x30;
/// Behind the last field.
const END: u32 = 0x38;

/// What the structure keeps besides what the transport has.
#[derive(Clone, Debug, Hash)]
pub struct CommonConfig {
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
    config_vector: u16,
    queue_vectors: Vec<u16>,
}

impl CommonConfig {
    pub fn new(queues: usize) -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
        }
    }

    pub fn reset(&mut self) {
        *self = Self::new(self.queue_vectors.len());
    }

    /// The messages for what has happened.
    pub fn vectors(&self, interrupts: Interrupts) -> Vec<u16> {
        let config = interrupts.config.then_some(self.config_vector);
        let queues = self.queue_vectors.iter().enumerate();
        let queues = queues.filter(|(queue, _)| interrupts.queues & 1 << queue != 0).map(|(_, &vector)| vector);
        config.into_iter().chain(queues).filter(|&vector| vector != NO_VECTOR).collect()
    }

    fn queue_index(&self) -> usize {
        self.queue_select.into()
    }

    // -- reading

    /// Read a field, or a part of one.
    pub fn read(&self, transport: &Transport, offset: u32, size: usize) -> u64 {
        (0..size as u32).rev().fold(0, |value, index| value << 8 | u64::from(self.byte(transport, offset + index)))
    }

    fn byte(&self, transport: &Transport, offset: u32) -> u8 {
        let (start, value) = self.field(transport, offset);
        value.to_le_bytes().get((offset - start) as usize).copied().unwrap_or(0)
    }

    /// The field in which an offset lies: where it begins, and its value.
    fn field(&self, transport: &Transport, offset: u32) -> (u32, u64) {
        let queue = transport.queue(self.queue_index());
        let of_queue = |read: fn(&Queue) -> u64| queue.map_or(0, read);
        match offset {
            DEVICE_FEATURE_SELECT..DEVICE_FEATURE => (DEVICE_FEATURE_SELECT, self.device_feature_select.into()),
            DEVICE_FEATURE..DRIVER_FEATURE_SELECT => {
                (DEVICE_FEATURE, half(transport.device_features(), self.device_feature_select).into())
            }
            DRIVER_FEATURE_SELECT..DRIVER_FEATURE => (DRIVER_FEATURE_SELECT, self.driver_feature_select.into()),
            DRIVER_FEATURE..CONFIG_VECTOR => {
                (DRIVER_FEATURE, half(transport.driver_features(), self.driver_feature_select).into())
            }
            CONFIG_VECTOR..NUM_QUEUES => (CONFIG_VECTOR, self.config_vector.into()),
            NUM_QUEUES..DEVICE_STATUS => (NUM_QUEUES, transport.num_queues() as u64),
            DEVICE_STATUS => (DEVICE_STATUS, transport.status().into()),
            // No device here changes its configuration.
            CONFIG_GENERATION => (CONFIG_GENERATION, 0),
            QUEUE_SELECT..QUEUE_SIZE => (QUEUE_SELECT, self.queue_select.into()),
            QUEUE_SIZE..QUEUE_VECTOR => (QUEUE_SIZE, of_queue(|queue| queue.size.into())),
            QUEUE_VECTOR..QUEUE_ENABLE => {
                (QUEUE_VECTOR, self.queue_vectors.get(self.queue_index()).map_or(NO_VECTOR, |&vector| vector).into())
            }
            QUEUE_ENABLE..QUEUE_NOTIFY_OFFSET => (QUEUE_ENABLE, of_queue(|queue| queue.is_enabled.into())),
            QUEUE_NOTIFY_OFFSET..QUEUE_DESCRIPTORS => (QUEUE_NOTIFY_OFFSET, self.queue_select.into()),
            QUEUE_DESCRIPTORS..QUEUE_DRIVER => (QUEUE_DESCRIPTORS, of_queue(|queue| queue.descriptors)),
            QUEUE_DRIVER..QUEUE_DEVICE => (QUEUE_DRIVER, of_queue(|queue| queue.driver)),
            QUEUE_DEVICE..END => (QUEUE_DEVICE, of_queue(|queue| queue.device)),
            _ => (offset, 0),
        }
    }

    // -- writing

    /// Write a field in its own width; 64-bit fields take halves, too. Other accesses are the driver's mistake, and do nothing
    /// (section 4.1.3.1). `vectors`: how many messages there are.
    pub fn write(&mut self, transport: &mut Transport, vectors: usize, offset: u32, size: usize, value: u64) {
        match (offset, size) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = value as u32,
            (DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = value as u32,
            (DRIVER_FEATURE, 4) => {
                let features = with_half(transport.driver_features(), self.driver_feature_select, value as u32);
                transport.set_driver_features(features);
            }
            (CONFIG_VECTOR, 2) => self.config_vector = possible_vector(value as u16, vectors),
            (DEVICE_STATUS, 1) => transport.set_status(value as u8),
            (QUEUE_SELECT, 2) => self.queue_select = value as u16,
            (QUEUE_VECTOR, 2) => {
                let index = self.queue_index();
                if let Some(vector) = self.queue_vectors.get_mut(index) {
                    *vector = possible_vector(value as u16, vectors);
                }
            }
            _ => {
                if let Some(queue) = transport.queue_mut(self.queue_index()).filter(|queue| !queue.is_enabled) {
                    write_queue(queue, offset, size, value);
                }
            }
        }
    }
}

/// Whether a write resets the device.
pub fn is_reset(offset: u32, size: usize, value: u64) -> bool {
    (offset, size, value as u8) == (DEVICE_STATUS, 1, 0)
}

/// A register of a queue that is not enabled yet.
fn write_queue(queue: &mut Queue, offset: u32, size: usize, value: u64) {
    match (offset, size) {
        (QUEUE_SIZE, 2) => queue.size = value as u16,
        (QUEUE_ENABLE, 2) => queue.is_enabled = value == 1,
        (QUEUE_DESCRIPTORS..END, 4 | 8) => {
            let field = match offset & !7 {
                QUEUE_DESCRIPTORS => &mut queue.descriptors,
                QUEUE_DRIVER => &mut queue.driver,
                _ => &mut queue.device,
            };
            match (offset & 7, size) {
                (0, 8) => *field = value,
                (0, 4) => *field = with_half(*field, 0, value as u32),
                (4, 4) => *field = with_half(*field, 1, value as u32),
                _ => {}
            }
        }
        _ => {}
    }
}

/// What software reads back if it asks for a message that there is not (section 4.1.5.1.2.1).
fn possible_vector(vector: u16, vectors: usize) -> u16 {
    if usize::from(vector) < vectors { vector } else { NO_VECTOR }
}

/// Bits 31:0 or 63:32; there are no further features.
fn half(value: u64, index: u32) -> u32 {
    match index {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn with_half(value: u64, index: u32, half: u32) -> u64 {
    match index {
        0 => value & !0xFFFF_FFFF | u64::from(half),
        1 => value & 0xFFFF_FFFF | u64::from(half) << 32,
        _ => value,
    }
}
