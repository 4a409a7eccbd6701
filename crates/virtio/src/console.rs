//! The console device, section 5.3, with one port.

use std::any::Any;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::chain::Chain;
use crate::device::{Device, Seat};
use crate::queue::Error;
use crate::transport::LATENCY_NS;

const DEVICE_ID: u16 = 3;
/// Queue with buffers for the guest's input.
pub const RECEIVE: usize = 0;
/// Queue with the guest's output.
const TRANSMIT: usize = 1;

/// How long the first input waits after a driver has offered buffers. Linux's offers them before it is ready to keep what comes,
/// and discards it: an input that is already there would be lost.
const FIRST_INPUT_NS: u64 = 100_000_000;

/// The device, and the host's end of it.
#[derive(Default)]
pub struct Console {
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// The driver has got some input since its reset.
    has_received: bool,
}

impl Console {
    /// A console that nobody has used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes for the guest to read. The transport must be told ([`crate::Transport::kick`] with queue 0).
    pub fn send(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
    }

    /// How many bytes wait for the guest to read them.
    pub fn waiting(&self) -> usize {
        self.input.len()
    }

    /// What the guest has printed since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn receive(&mut self, chain: &Chain, seat: &Seat<'_>) -> u32 {
        self.has_received = true;
        let count = chain.writable_len().min(self.input.len() as u64) as usize;
        let bytes: Vec<u8> = self.input.drain(..count).collect();
        chain.write_at(seat.memory, 0, &bytes) as u32
    }

    fn transmit(&mut self, chain: &Chain, seat: &Seat<'_>) {
        let start = self.output.len();
        self.output.resize(start + chain.readable_len() as usize, 0);
        let count = chain.read_at(seat.memory, 0, &mut self.output[start..]);
        self.output.truncate(start + count);
    }
}

impl Device for Console {
    fn id(&self) -> u16 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        2
    }

    /// Columns, rows and ports are valid only with features that are not offered.
    fn config(&self, _: usize) -> u8 {
        0
    }

    fn wants(&self, queue: usize) -> bool {
        queue != RECEIVE || !self.input.is_empty()
    }

    fn latency_ns(&self, queue: usize) -> u64 {
        if queue == RECEIVE && !self.has_received { FIRST_INPUT_NS } else { LATENCY_NS }
    }

    fn serve(&mut self, queue: usize, chain: &Chain, seat: &Seat<'_>) -> Result<u32, Error> {
        match queue {
            RECEIVE => Ok(self.receive(chain, seat)),
            TRANSMIT => {
                self.transmit(chain, seat);
                Ok(0)
            }
            _ => Err(Error::BadRequest("a console has two queues")),
        }
    }

    fn reset(&mut self) {
        self.has_received = false;
    }

    fn hash_state(&self, mut hasher: &mut dyn Hasher) {
        (&self.input, self.has_received).hash(&mut hasher);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
