//! Reset, and the state that firmware would leave behind for a guest that is started without any.

use crate::board::Board;
use crate::interrupts::StartUp;
use crate::pic::{MASTER_COMMAND, MASTER_DATA, SLAVE_COMMAND, SLAVE_DATA};
use crate::pit;
use crate::reset::ResetKind;
use vcpu::{Bus, Pending};

/// What a BIOS writes to the 8259s: edge-triggered, cascaded, vectors 8 and 0x70; all masked but timer and cascade.
const PIC_SET_UP: [(u16, u8); 10] = [
    (MASTER_COMMAND, 0x11),
    (SLAVE_COMMAND, 0x11),
    (MASTER_DATA, 0x08),
    (SLAVE_DATA, 0x70),
    (MASTER_DATA, 1 << 2),
    (SLAVE_DATA, 2),
    (MASTER_DATA, 1),
    (SLAVE_DATA, 1),
    (MASTER_DATA, 0xFA),
    (SLAVE_DATA, 0xFF),
];

/// What a BIOS writes to the 8254: channel 0 in mode 2, count 65536, so 18.2 interrupts a second.
const PIT_SET_UP: [(u16, u8); 3] = [(pit::CONTROL, 0x34), (pit::CHANNEL_0, 0), (pit::CHANNEL_0, 0)];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How a processor reset goes on; 0: as after power-on.
const CMOS_SHUTDOWN: u8 = 0x0F;
const CMOS_BASE_KIB: u8 = 0x15;
const CMOS_EXTENDED_KIB: u8 = 0x17;
const CMOS_EXTENDED_KIB_COPY: u8 = 0x30;
const CMOS_ABOVE_16_MIB: u8 = 0x34;
/// Three bytes.
const CMOS_ABOVE_4_GIB: u8 = 0x5B;
/// As QEMU's machines tell SeaBIOS.
const CMOS_OTHER_PROCESSORS: u8 = 0x5F;

impl Board {
    /// Bring the board into the state in which firmware hands over to a boot loader: size of RAM in the
    /// CMOS, PCI devices at their addresses, 8259s and 8254 programmed, virtual wire mode on the boot processor.
    /// Firmware itself, if there is any, does all but the CMOS, by which it learns how much there is.
    pub fn firmware_handoff(&mut self) {
        self.set_cmos_sizes();
        if self.memory.has_rom() {
            return;
        }
        self.pci.assign();
        for (port, value) in PIT_SET_UP.into_iter().chain(PIC_SET_UP) {
            self.write_ports(port, 1, value.into());
        }
        self.apics[0].set_virtual_wire();
        self.sync_all();
    }

    /// What a BIOS leaves in the CMOS about the RAM: 640 KiB below 1 MiB, and what lies above 1 MiB (in KiB, up to 64 MiB),
    /// above 16 MiB and above 4 GiB (both in units of 64 KiB); and how many processors there are besides the first.
    fn set_cmos_sizes(&mut self) {
        let ranges = self.memory.ranges();
        let below_4_gib = ranges.first().map_or(0, |&(_, len)| len);
        let above_4_gib = ranges.get(1).map_or(0, |&(_, len)| len);
        let extended_kib = (below_4_gib.saturating_sub(MIB) / KIB).min(63 * 1024);
        let above_16_mib = (below_4_gib.saturating_sub(16 * MIB) / (64 * KIB)).min(0xFFFF);
        let above_4_gib = (above_4_gib / (64 * KIB)).min(0xFF_FFFF);
        for (index, value) in [
            (CMOS_BASE_KIB, 640),
            (CMOS_EXTENDED_KIB, extended_kib),
            (CMOS_EXTENDED_KIB_COPY, extended_kib),
            (CMOS_ABOVE_16_MIB, above_16_mib),
            (CMOS_ABOVE_4_GIB, above_4_gib),
        ] {
            self.set_cmos(index, value as u8);
            self.set_cmos(index + 1, (value >> 8) as u8);
        }
        self.set_cmos(CMOS_ABOVE_4_GIB + 2, (above_4_gib >> 16) as u8);
        self.set_cmos(CMOS_OTHER_PROCESSORS, (self.vcpus() - 1) as u8);
        if !self.memory.has_rom() {
            self.set_cmos(CMOS_SHUTDOWN, 0);
        }
    }

    /// Reset. [`ResetKind::Hard`]: all devices are as after power-on; what belongs to the host (consoles, claims, fw_cfg
    /// items) stays, and so do time and the CMOS with its battery. [`ResetKind::Soft`]: the local APICs are as after INIT.
    pub fn reset(&mut self, kind: ResetKind) {
        for vcpu in 0..self.vcpus() {
            self.reset_vcpu(vcpu, kind);
        }
        if kind == ResetKind::Hard {
            self.reset_devices();
        }
        self.stop = None;
        self.sync_all();
        self.pit_changed();
        self.rtc_changed();
        self.acpi_changed();
        self.pci_changed();
    }

    /// When the machine wakes that has been suspended to RAM, by what the guest has enabled for that; `None`: it never does.
    pub fn wake_ns(&mut self) -> Option<u64> {
        if !self.acpi_pm.wakes_by_rtc() {
            None
        } else if self.rtc.irq_level(self.now_ns) {
            Some(self.now_ns)
        } else {
            self.rtc.next_event_ns(self.now_ns)
        }
    }

    /// Wake at that time: as a hard reset, but the clock and what woke the machine have had power (ACPI 6.5 section 16.1.3).
    pub fn wake(&mut self, now_ns: u64) {
        self.advance(now_ns);
        let (rtc, acpi_pm) = (self.rtc.clone(), self.acpi_pm.clone());
        self.reset(ResetKind::Hard);
        (self.rtc, self.acpi_pm) = (rtc, acpi_pm);
        self.acpi_pm.note_wake();
        self.rtc_changed();
        self.acpi_changed();
        self.hpet_changed();
    }

    fn reset_vcpu(&mut self, vcpu: usize, kind: ResetKind) {
        self.pv_eoi_forget(vcpu);
        match kind {
            ResetKind::Hard => self.apics[vcpu].reset(),
            ResetKind::Soft => self.apics[vcpu].init(),
        }
        self.pending[vcpu] = Pending::default();
        self.start_up[vcpu] = StartUp::new(vcpu);
    }

    fn reset_devices(&mut self) {
        self.pv_eoi_reset();
        self.upcalls_reset();
        self.ioapic.reset();
        self.pic.reset();
        self.pit = pit::Pit::new();
        self.rtc.reset();
        self.acpi_pm = Default::default();
        self.hpet = Default::default();
        self.pci.reset();
        self.memory.set_shadow(guestmem::SHADOW_BASE, guestmem::SHADOW_END - guestmem::SHADOW_BASE, false, false);
        self.serial.reset();
        self.serial_changed();
        self.fw_cfg.reset();
        self.i8042 = crate::i8042::I8042::new();
        self.reset_ports.reset();
        self.coprocessor = Default::default();
        self.shutdown_port = Default::default();
        self.test_device = crate::testdev::TestDevice::new();
        self.post_code = 0;
        self.apm = [0; 2];
        for vcpu in 0..self.vcpus() {
            // RESET clears the TSC's offset with the TSC itself.
            self.set_tsc_offset(vcpu, 0);
        }
    }
}
