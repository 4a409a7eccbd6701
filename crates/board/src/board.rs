//! The board: its devices, how they are made and reset, and what the host does with them.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};

use guestmem::GuestMemory;
use vcpu::{Clock, Pending, StopReason};

use crate::acpi_pm::AcpiPm;
use crate::claims::{PortClaims, RangeSet};
use crate::coprocessor::Coprocessor;
use crate::deadlines::Deadlines;
use crate::debug_exit::ShutdownPort;
use crate::fw_cfg::{self, FwCfg};
use crate::hpet::Hpet;
use crate::i8042::I8042;
use crate::interrupts::StartUp;
use crate::ioapic::IoApic;
use crate::lapic::{ApicFeatures, LocalApic};
use crate::output::Output;
use crate::pci::Pci;
use crate::pic::Pic;
use crate::pit::Pit;
use crate::pv_eoi::PvEoi;
use crate::reset::ResetPorts;
use crate::rtc::Rtc;
use crate::serial::SerialPort;
use crate::testdev::TestDevice;
use crate::upcall::Upcall;

/// The most vCPUs a board has: as many as 8-bit APIC ids can name.
pub const MAX_VCPUS: usize = 255;

/// A device that a machine has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionalDevice {
    /// `pc-testdev`: latch 0xE0, interrupt lines 0x2000, memory at 0xFF000000.
    TestDevice,
    /// `isa-debug-exit` at 0xF4, and Bochs' shutdown port 0x8900.
    DebugExit,
    /// Debug consoles at 0xE9 and 0x402.
    DebugConsole,
    /// `pci-testdev`.
    PciTestDevice,
}

/// Which optional devices there are. By default all.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct OptionalDevices {
    /// See [`OptionalDevice::TestDevice`].
    pub test_device: bool,
    /// See [`OptionalDevice::DebugExit`].
    pub debug_exit: bool,
    /// See [`OptionalDevice::DebugConsole`].
    pub debug_console: bool,
    /// See [`OptionalDevice::PciTestDevice`].
    pub pci_test_device: bool,
}

impl Default for OptionalDevices {
    fn default() -> Self {
        Self { test_device: true, debug_exit: true, debug_console: true, pci_test_device: true }
    }
}

/// What a board is made from.
pub struct BoardConfig {
    /// Number of vCPUs, 1 to [`MAX_VCPUS`]. Their APIC ids are their indices; vCPU 0 is the boot processor.
    pub vcpus: usize,
    /// The machine's RAM, for devices that reach it by themselves.
    pub memory: GuestMemory,
    /// The reference TSC.
    pub clock: Clock,
    /// What the real-time clock shows at virtual time 0, in ns since 1970 UTC.
    pub start_unix_ns: u64,
    /// What CPUID announces about the local APIC.
    pub apic: ApicFeatures,
    /// Which optional devices there are.
    pub devices: OptionalDevices,
}

/// A small PC around the vCPUs. See the crate's head.
pub struct Board {
    pub(crate) memory: GuestMemory,
    pub(crate) devices: OptionalDevices,
    pub(crate) now_ns: u64,
    pub(crate) deadlines: Deadlines,
    pub(crate) stop: Option<StopReason>,
    /// Stops that only tell somebody above the engine something.
    pub(crate) notices: VecDeque<StopReason>,

    pub(crate) claimed_ports: PortClaims,
    pub(crate) claimed_mmio: RangeSet,
    pub(crate) claimed_msrs: RangeSet,

    pub(crate) apics: Vec<LocalApic>,
    /// What each vCPU would hear if it asked; kept up to date by [`Board::sync`].
    pub(crate) pending: Vec<Pending>,
    pub(crate) start_up: Vec<StartUp>,
    pub(crate) pv_eoi: Vec<PvEoi>,
    pub(crate) upcalls: Vec<Upcall>,
    pub(crate) ioapic: IoApic,
    pub(crate) pic: Pic,

    pub(crate) pit: Pit,
    pub(crate) rtc: Rtc,
    pub(crate) acpi_pm: AcpiPm,
    pub(crate) hpet: Hpet,
    pub(crate) pci: Pci,
    /// Interrupt lines that PCI functions pull, one bit each.
    pub(crate) pci_irqs: u32,
    /// Slot of the virtio console, if there is one.
    pub(crate) virtio_console: Option<u8>,
    pub(crate) serial: SerialPort,
    pub(crate) debug_console: Output,
    pub(crate) shutdown_port: ShutdownPort,
    pub(crate) fw_cfg: FwCfg,
    pub(crate) i8042: I8042,
    pub(crate) reset_ports: ResetPorts,
    pub(crate) coprocessor: Coprocessor,
    pub(crate) test_device: TestDevice,
    /// Port 0x80: POST codes, or a delay. Reads as the last value written.
    pub(crate) post_code: u8,
    /// Ports 0xB2 and 0xB3, likewise.
    pub(crate) apm: [u8; 2],
}

/// Timers of the board besides the local APICs', which have the numbers of their vCPUs: added to the number of vCPUs.
pub(crate) const TIMER_PIT: usize = 0;
pub(crate) const TIMER_RTC: usize = 1;
pub(crate) const TIMER_ACPI: usize = 2;
pub(crate) const TIMER_PCI: usize = 3;
pub(crate) const TIMER_ALARM: usize = 4;
pub(crate) const TIMER_HPET: usize = 5;
/// How many such timers there are.
const OTHER_TIMERS: usize = 6;

impl Board {
    /// Make a board, everything as after power-on.
    ///
    /// # Panics
    /// If `config.vcpus` is 0 or above [`MAX_VCPUS`].
    pub fn new(config: BoardConfig) -> Self {
        let (vcpus, ram_size) = (config.vcpus, config.memory.size());
        assert!((1..=MAX_VCPUS).contains(&vcpus), "a board has 1 to {MAX_VCPUS} vCPUs, not {vcpus}");
        let mut pci = Pci::new();
        pci.set_test_device(config.devices.pci_test_device);
        Self {
            memory: config.memory,
            devices: config.devices,
            now_ns: 0,
            deadlines: Deadlines::new(vcpus + OTHER_TIMERS),
            stop: None,
            notices: VecDeque::new(),
            claimed_ports: PortClaims::new(),
            claimed_mmio: RangeSet::default(),
            claimed_msrs: RangeSet::default(),
            apics: (0..vcpus).map(|vcpu| LocalApic::new(vcpu, config.clock, config.apic)).collect(),
            pending: vec![Pending::default(); vcpus],
            start_up: (0..vcpus).map(StartUp::new).collect(),
            pv_eoi: vec![PvEoi::default(); vcpus],
            upcalls: vec![Upcall::default(); vcpus],
            ioapic: IoApic::new(),
            pic: Pic::new(),
            pit: Pit::new(),
            rtc: Rtc::new(config.start_unix_ns),
            acpi_pm: AcpiPm::default(),
            hpet: Hpet::default(),
            pci,
            pci_irqs: 0,
            virtio_console: None,
            serial: SerialPort::new(),
            debug_console: Output::default(),
            shutdown_port: ShutdownPort::default(),
            fw_cfg: FwCfg::new(vcpus, ram_size),
            i8042: I8042::new(),
            reset_ports: ResetPorts::default(),
            coprocessor: Coprocessor::default(),
            test_device: TestDevice::new(),
            post_code: 0,
            apm: [0; 2],
        }
    }

    /// Number of vCPUs.
    pub fn vcpus(&self) -> usize {
        self.apics.len()
    }

    /// What CPUID announces about the local APIC from now on. APIC modes that are in use stay.
    pub fn set_features(&mut self, features: ApicFeatures) {
        for apic in &mut self.apics {
            apic.set_features(features);
        }
    }

    /// Add or remove an optional device. To be done before the guest runs.
    pub fn set_optional(&mut self, device: OptionalDevice, present: bool) {
        let devices = &mut self.devices;
        *match device {
            OptionalDevice::TestDevice => &mut devices.test_device,
            OptionalDevice::DebugExit => &mut devices.debug_exit,
            OptionalDevice::DebugConsole => &mut devices.debug_console,
            OptionalDevice::PciTestDevice => &mut devices.pci_test_device,
        } = present;
        self.pci.set_test_device(self.devices.pci_test_device);
    }

    // -- claims

    /// Ports `first..=last` are served above the engine, whatever device of the board is there.
    pub fn claim_ports(&mut self, first: u16, last: u16) {
        self.claimed_ports.set(first, last, true);
    }

    /// Undo [`Board::claim_ports`].
    pub fn release_ports(&mut self, first: u16, last: u16) {
        self.claimed_ports.set(first, last, false);
    }

    /// MSRs `first..=last` are served above the engine.
    pub fn claim_msrs(&mut self, first: u32, last: u32) {
        self.claimed_msrs.insert(first.into(), last.into());
    }

    /// Undo [`Board::claim_msrs`].
    pub fn release_msrs(&mut self, first: u32, last: u32) {
        self.claimed_msrs.remove(first.into(), last.into());
    }

    /// Guest-physical addresses `first..=last` that are not RAM are served above the engine.
    pub fn claim_mmio(&mut self, first: u64, last: u64) {
        self.claimed_mmio.insert(first, last);
    }

    /// Undo [`Board::claim_mmio`].
    pub fn release_mmio(&mut self, first: u64, last: u64) {
        self.claimed_mmio.remove(first, last);
    }

    /// Do `f` as if nothing were claimed: what a claimed access would have met.
    pub fn without_claims<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        let ports = std::mem::replace(&mut self.claimed_ports, PortClaims::new());
        let mmio = std::mem::take(&mut self.claimed_mmio);
        let msrs = std::mem::take(&mut self.claimed_msrs);
        let result = f(self);
        (self.claimed_ports, self.claimed_mmio, self.claimed_msrs) = (ports, mmio, msrs);
        result
    }

    // -- consoles

    /// Where the serial port writes, unbuffered. `None`: bytes are kept for [`Board::take_console`], up to 64 MiB.
    pub fn set_console(&mut self, sink: Option<Box<dyn Write + Send>>) {
        self.serial.output().set_sink(sink);
    }

    /// What the guest wrote to the serial port since the last call, if it has no sink.
    pub fn take_console(&mut self) -> Vec<u8> {
        self.serial.output().take_captured()
    }

    /// Print for the guest, as if it had written to the serial port.
    ///
    /// # Errors
    /// The sink's.
    pub fn print_console(&mut self, bytes: &[u8]) -> io::Result<()> {
        let output = self.serial.output();
        output.write_all(bytes).map_err(|error| output.take_error().unwrap_or(error))
    }

    /// The last bytes that the guest wrote to the serial port, at most 8 KiB, wherever they went.
    pub fn recent_console(&mut self) -> Vec<u8> {
        self.serial.output().recent()
    }

    /// Stop with [`StopReason::ConsoleText`] when the kernel, not one of its programs, ends a line on the serial port that
    /// begins with one of these; a timestamp in brackets may stand before it.
    pub fn watch_console(&mut self, texts: Vec<Vec<u8>>) {
        self.serial.watch(texts);
    }

    /// Bytes for the guest to receive: from the virtio console if there is one, else from the serial port.
    pub fn console_input(&mut self, bytes: &[u8]) {
        if self.virtio_console_input(bytes) {
            return;
        }
        self.serial.receive(bytes);
        self.serial_changed();
    }

    /// A break on the serial port's wire, behind all input.
    pub fn console_break(&mut self) {
        self.serial.receive_break();
        self.serial_changed();
    }

    /// How many bytes of input the guest would take now; 0 if it does not listen.
    pub fn console_room(&mut self) -> usize {
        self.virtio_console_room().unwrap_or_else(|| self.serial.input_room())
    }

    /// Where the debug consoles (ports 0xE9 and 0x402) write, as [`Board::set_console`].
    pub fn set_debug_console(&mut self, sink: Option<Box<dyn Write + Send>>) {
        self.debug_console.set_sink(sink);
    }

    /// What the guest wrote to the debug consoles since the last call, if they have no sink.
    pub fn take_debug_console(&mut self) -> Vec<u8> {
        self.debug_console.take_captured()
    }

    /// The reason for the last [`StopReason::HostError`].
    pub fn take_host_error(&mut self) -> Option<io::Error> {
        self.serial.output().take_error().or_else(|| self.debug_console.take_error())
    }

    // -- configuration that the guest reads

    /// Content of a fw_cfg item.
    ///
    /// # Errors
    /// If it has more than [`fw_cfg::MAX_ITEM_SIZE`] bytes.
    pub fn set_fw_cfg(&mut self, key: u16, data: Vec<u8>) -> Result<(), fw_cfg::Error> {
        self.fw_cfg.set_item(key, data)
    }

    /// Content of a named fw_cfg file; returns its key.
    ///
    /// # Errors
    /// If it is too long, or the name is not possible.
    pub fn set_fw_cfg_file(&mut self, name: &str, data: Vec<u8>) -> Result<u16, fw_cfg::Error> {
        self.fw_cfg.set_file(name, data)
    }

    /// A byte of the CMOS memory: `index` 0x0E to 0x7F. Time and registers below that are the clock's own.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        self.rtc.set_memory(index, value);
    }

    /// A byte of the CMOS memory.
    pub fn get_cmos(&self, index: u8) -> u8 {
        self.rtc.memory(index)
    }

    // -- stopping and hashing

    /// Ask the engine to stop; the first reason wins.
    pub(crate) fn request_stop(&mut self, reason: StopReason) {
        self.stop.get_or_insert(reason);
    }

    /// Feed everything that can influence the guest's future to `hasher`. RAM is not part of it.
    pub fn hash_state(&self, hasher: &mut impl Hasher) {
        self.now_ns.hash(hasher);
        self.devices.hash(hasher);
        self.apics.hash(hasher);
        self.pending.hash(hasher);
        self.start_up.hash(hasher);
        self.pv_eoi.hash(hasher);
        self.upcalls.hash(hasher);
        self.ioapic.hash(hasher);
        self.pic.hash(hasher);
        self.pit.hash(hasher);
        self.rtc.hash(hasher);
        self.acpi_pm.hash(hasher);
        self.hpet.hash(hasher);
        self.pci.hash(hasher);
        self.pci_irqs.hash(hasher);
        self.serial.hash(hasher);
        self.shutdown_port.hash(hasher);
        self.fw_cfg.hash(hasher);
        self.i8042.hash(hasher);
        self.reset_ports.hash(hasher);
        self.coprocessor.hash(hasher);
        self.test_device.hash(hasher);
        self.post_code.hash(hasher);
        self.apm.hash(hasher);
    }
}
