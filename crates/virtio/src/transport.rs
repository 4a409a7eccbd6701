//! What all transports share: the handshake of features and status (section 3.1), and when queues are served.

use std::hash::{Hash, Hasher};

use guestmem::GuestMemory;

use crate::device::{Device, Seat};
use crate::queue::{Error, MAX_QUEUE_SIZE, Queue};

/// Virtual time between a notification and the device's answer, in ns.
pub const LATENCY_NS: u64 = 20_000;
/// How many bytes a device moves, and how many chains it serves, before it lets the vCPUs go on.
const MAX_BYTES_AT_ONCE: u64 = 4 << 20;
const MAX_CHAINS_AT_ONCE: u32 = MAX_QUEUE_SIZE as u32;

/// Device status bits, section 2.1.
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;

/// Features of queues and transport, section 6.
const RING_INDIRECT_DESC: u64 = 1 << 28;
const RING_EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

/// What the driver is to be told.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct Interrupts {
    /// Queues in which chains were returned, one bit each.
    pub queues: u32,
    /// The configuration has changed, or the device needs a reset.
    pub config: bool,
}

/// A device with its queues, as a driver handles it.
pub struct Transport {
    device: Box<dyn Device>,
    queues: Vec<Queue>,
    status: u8,
    driver_features: u64,
    interrupts: Interrupts,
    /// When to look at each queue; `None`: nothing has happened to it.
    due_ns: Vec<Option<u64>>,
    /// Why the device needs a reset.
    fault: Option<Error>,
}

impl Transport {
    /// The device as after power-on.
    pub fn new(device: Box<dyn Device>) -> Self {
        let queues: Vec<_> = (0..device.queues()).map(|_| Queue::new(MAX_QUEUE_SIZE)).collect();
        Self {
            device,
            due_ns: vec![None; queues.len()],
            queues,
            status: 0,
            driver_features: 0,
            interrupts: Interrupts::default(),
            fault: None,
        }
    }

    /// The device itself.
    pub fn device_mut(&mut self) -> &mut dyn Device {
        self.device.as_mut()
    }

    /// Its type.
    pub fn device_id(&self) -> u16 {
        self.device.id()
    }

    /// How many queues there are.
    pub fn num_queues(&self) -> usize {
        self.queues.len()
    }

    /// A queue's registers; `None`: there is no such queue.
    pub fn queue(&self, index: usize) -> Option<&Queue> {
        self.queues.get(index)
    }

    /// Likewise, to be changed before the driver is ready.
    pub fn queue_mut(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get_mut(index)
    }

    /// A byte of the device's configuration.
    pub fn config(&self, offset: usize) -> u8 {
        self.device.config(offset)
    }

    // -- the handshake

    /// What the device offers.
    pub fn device_features(&self) -> u64 {
        self.device.features() | VERSION_1 | RING_INDIRECT_DESC | RING_EVENT_IDX
    }

    /// What the driver has accepted.
    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// The driver accepts features. Once it has said that these are all, nothing changes any more.
    pub fn set_driver_features(&mut self, features: u64) {
        if self.status & FEATURES_OK == 0 {
            self.driver_features = features;
        }
    }

    /// Device status.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Write the device status; 0 resets the device.
    pub fn set_status(&mut self, status: u8) {
        if status == 0 {
            self.reset();
            return;
        }
        let mut new = status & !NEEDS_RESET | self.status & NEEDS_RESET;
        if new & !self.status & FEATURES_OK != 0 && !self.accept_features() {
            new &= !FEATURES_OK;
        }
        self.status = new;
    }

    /// Section 3.1.1 step 5: a set of features that the device can work with. Legacy drivers are not among them.
    fn accept_features(&mut self) -> bool {
        let accepted = self.driver_features & !self.device_features() == 0 && self.driver_features & VERSION_1 != 0;
        let has_event_index = accepted && self.driver_features & RING_EVENT_IDX != 0;
        self.queues.iter_mut().for_each(|queue| queue.has_event_index = has_event_index);
        accepted
    }

    /// Reset by the driver or by the bus.
    pub fn reset(&mut self) {
        self.queues.iter_mut().for_each(Queue::reset);
        self.status = 0;
        self.driver_features = 0;
        self.interrupts = Interrupts::default();
        self.postpone();
        self.fault = None;
        self.device.reset();
    }

    /// Whether the driver is ready, and the device not broken.
    pub fn is_live(&self) -> bool {
        self.status & DRIVER_OK != 0 && self.status & NEEDS_RESET == 0
    }

    /// What the driver has done wrong, if the device needs a reset for it.
    pub fn fault(&self) -> Option<&Error> {
        self.fault.as_ref()
    }

    // -- work

    /// Something has happened to a queue: the driver has notified us, or the host has something for it.
    pub fn kick(&mut self, queue: usize, now_ns: u64) {
        if let Some(due_ns) = self.due_ns.get_mut(queue)
            && self.status & DRIVER_OK != 0
            && self.fault.is_none()
        {
            due_ns.get_or_insert(now_ns.saturating_add(self.device.latency_ns(queue)));
        }
    }

    /// The device does not work now: it looks at its queues after the next notification.
    pub fn postpone(&mut self) {
        self.due_ns.fill(None);
    }

    /// When [`Transport::serve`] wants to be called.
    pub fn due_ns(&self) -> Option<u64> {
        self.due_ns.iter().flatten().copied().min()
    }

    /// Look at the queues whose time has come, the first first.
    pub fn serve(&mut self, memory: &GuestMemory, now_ns: u64) {
        for queue in 0..self.queues.len() {
            if self.due_ns[queue].is_none_or(|due| due > now_ns) || !self.is_live() {
                continue;
            }
            self.due_ns[queue] = None;
            match self.serve_queue(queue, memory) {
                Ok(true) => {}
                Ok(false) => self.due_ns[queue] = Some(now_ns.saturating_add(LATENCY_NS)),
                Err(fault) => self.break_down(fault),
            }
        }
    }

    /// Serve the chains of one queue. Returns false if there may be more.
    fn serve_queue(&mut self, index: usize, memory: &GuestMemory) -> Result<bool, Error> {
        let mut budget = Budget { chains: MAX_CHAINS_AT_ONCE, bytes: MAX_BYTES_AT_ONCE };
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.is_enabled) else { return Ok(true) };
        let seat = Seat { memory, features: self.driver_features };
        let mut emptied = false;
        while !emptied && budget.is_left() {
            match if self.device.wants(index) { queue.pop(memory)? } else { None } {
                Some(chain) => {
                    budget.spend(&chain);
                    let written = self.device.serve(index, &chain, &seat)?;
                    queue.push(memory, chain.head, written)?;
                }
                None => emptied = true,
            }
        }
        if queue.settle(memory)? {
            self.interrupts.queues |= 1 << index;
        }
        Ok(emptied)
    }

    fn break_down(&mut self, fault: Error) {
        self.status |= NEEDS_RESET;
        self.fault = Some(fault);
        self.postpone();
        self.interrupts.config = true;
    }

    /// What the driver is to be told since the last call.
    pub fn take_interrupts(&mut self) -> Interrupts {
        std::mem::take(&mut self.interrupts)
    }

    /// Feed everything that can influence the guest's future to `hasher`.
    pub fn hash_state(&self, mut hasher: &mut dyn Hasher) {
        self.queues.hash(&mut hasher);
        (self.status, self.driver_features, self.interrupts, &self.due_ns).hash(&mut hasher);
        self.device.hash_state(hasher);
    }
}

/// What a device may still do at this time.
struct Budget {
    chains: u32,
    bytes: u64,
}

impl Budget {
    fn is_left(&self) -> bool {
        self.chains > 0 && self.bytes > 0
    }

    fn spend(&mut self, chain: &crate::Chain) {
        self.chains -= 1;
        self.bytes = self.bytes.saturating_sub(chain.readable_len() + chain.writable_len());
    }
}
