//! A small PC: the bus that a vCPU sits on, with interrupt controllers, timers, a serial port and what a kernel expects
//! around them.
//!
//! May depend on `x86defs`, `guestmem`, `vcpu` and `virtio` only. There is no policy here and no name of a hypervisor: what is served
//! above the engine is *claimed* ([`Board::claim_ports`] and its relatives) and answered with [`vcpu::Reply::Exit`].
//!
//! Everything runs on virtual time, in the thread that calls, so equal runs behave equally. A device is one file: its
//! registers as named constants, a plain struct with its state that derives `Hash` (for the determinism hash), and methods
//! that take the time as a number. [`Board`] routes accesses, lines and messages between them.
#![forbid(unsafe_code)]

mod acpi_pm;
mod board;
mod bus;
mod claims;
mod console_watch;
mod coprocessor;
mod deadlines;
mod debug_exit;
mod fw_cfg;
mod handoff;
mod hpet;
mod i8042;
mod interrupts;
mod ioapic;
mod lapic;
mod mmio;
mod msrs;
mod output;
mod pci;
mod pic;
mod pit;
mod ports;
mod pv_eoi;
mod reset;
mod rtc;
mod serial;
mod testdev;
mod ticks;
mod uart;
mod upcall;

pub use board::{Board, BoardConfig, MAX_VCPUS, OptionalDevice, OptionalDevices};
pub use fw_cfg::{Error as FwCfgError, MAX_ITEM_SIZE};
pub use lapic::{ApicFeatures, DeliveryMode};
pub use reset::ResetKind;
