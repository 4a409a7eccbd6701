//! I/O ports. Devices with registers wider than a byte are asked first; everything else is bytes, into which wide accesses
//! are split, as the ISA bus does.

use vcpu::StopReason;

use crate::acpi_pm::{self, PowerRequest};
use crate::board::Board;
use crate::mmio::all_ones;
use crate::pci::Space;
use crate::reset::{self, ResetKind};
use crate::{coprocessor, debug_exit, fw_cfg, i8042, pci, pic, pit, rtc, serial, testdev};

/// POST codes, and the port by which old programs wait a microsecond.
const POST_CODE: u16 = 0x80;
/// Advanced power management of the PIIX4: control, whose write would be a system management interrupt, and status. Both are kept.
const APM_CONTROL: u16 = 0xB2;
const APM_STATUS: u16 = 0xB3;
/// What a port reads as that nobody answers.
const FLOATING: u8 = 0xFF;

impl Board {
    pub(crate) fn read_ports(&mut self, port: u16, size: usize) -> u32 {
        if let Some(value) = self.read_wide(port, size) {
            return value;
        }
        (0..size as u16).rev().fold(0, |value, index| value << 8 | u32::from(self.read_byte(port.wrapping_add(index))))
    }

    pub(crate) fn write_ports(&mut self, port: u16, size: usize, value: u32) {
        if self.write_wide(port, size, value) {
            return;
        }
        for (index, byte) in value.to_le_bytes().into_iter().take(size).enumerate() {
            self.write_byte(port.wrapping_add(index as u16), byte);
        }
    }

    /// Registers of more than a byte. `None`: none is here.
    fn read_wide(&mut self, port: u16, size: usize) -> Option<u32> {
        match port {
            fw_cfg::DMA_HIGH | fw_cfg::DMA_LOW if size == 4 => Some(self.fw_cfg.read_dma(port - fw_cfg::DMA_HIGH)),
            debug_exit::EXIT_FIRST_PORT..=debug_exit::EXIT_LAST_PORT if self.devices.debug_exit => Some(0),
            acpi_pm::TIMER if size == 4 => Some(self.acpi_pm.timer(self.now_ns)),
            pci::ADDRESS if size == 4 => Some(self.pci.address()),
            pci::DATA..=pci::DATA_LAST if pci::is_within_data(port, size) => Some(self.read_pci_config(port, size)),
            _ => self.read_pci(Space::Io, port.into(), size).map(|value| value as u32),
        }
    }

    /// Registers of more than a byte. False: none is here.
    fn write_wide(&mut self, port: u16, size: usize, value: u32) -> bool {
        match port {
            fw_cfg::SELECTOR if size == 2 => self.fw_cfg.select(value as u16),
            fw_cfg::DMA_HIGH if size == 4 => self.fw_cfg.write_dma_high(value),
            fw_cfg::DMA_LOW if size == 4 => self.fw_cfg.write_dma_low(value, &self.memory),
            debug_exit::EXIT_FIRST_PORT..=debug_exit::EXIT_LAST_PORT if self.devices.debug_exit => {
                self.request_stop(StopReason::DebugExit(value & all_ones(size) as u32));
            }
            // One line, however wide the access.
            testdev::LINE_FIRST_PORT..=testdev::LINE_LAST_PORT if self.devices.test_device => {
                self.set_irq(u32::from(port - testdev::LINE_FIRST_PORT), value as u8 != 0);
            }
            pci::ADDRESS if size == 4 => self.pci.set_address(value),
            pci::DATA..=pci::DATA_LAST if pci::is_within_data(port, size) => self.write_pci_config(port, size, value),
            _ => return self.write_pci(Space::Io, port.into(), size, u64::from(value) & all_ones(size)),
        }
        true
    }

    fn read_byte(&mut self, port: u16) -> u8 {
        match port {
            serial::FIRST_PORT..=serial::LAST_PORT => {
                let value = self.serial.read(port);
                self.serial_changed();
                value
            }
            pic::MASTER_COMMAND
            | pic::MASTER_DATA
            | pic::SLAVE_COMMAND
            | pic::SLAVE_DATA
            | pic::MASTER_ELCR
            | pic::SLAVE_ELCR => self.read_pic(port),
            pit::CHANNEL_0..=pit::CONTROL => self.pit.read(port, self.now_ns),
            pit::SYSTEM_CONTROL_B => self.pit.read_system_control_b(self.now_ns),
            i8042::DATA => {
                let value = self.i8042.read_data();
                self.i8042_interrupt();
                value
            }
            i8042::COMMAND => self.i8042.read_status(),
            POST_CODE => self.post_code,
            APM_CONTROL..=APM_STATUS => self.apm[usize::from(port - APM_CONTROL)],
            rtc::DATA => {
                let value = self.rtc.read(self.now_ns);
                self.rtc_changed();
                value
            }
            acpi_pm::FIRST_PORT..=acpi_pm::LAST_PORT => self.acpi_pm.read(port, self.now_ns),
            pci::DATA..=pci::DATA_LAST => self.read_pci_config(port, 1) as u8,
            reset::SYSTEM_CONTROL_A => self.reset_ports.read_control_a(),
            reset::RESET_CONTROL => self.reset_ports.read_reset_control(),
            fw_cfg::DATA => self.fw_cfg.read_data(),
            debug_exit::CONSOLE_PORT | debug_exit::FIRMWARE_CONSOLE_PORT if self.devices.debug_console => {
                debug_exit::CONSOLE_PRESENT
            }
            testdev::LATCH_FIRST_PORT..=testdev::LATCH_LAST_PORT if self.devices.test_device => {
                self.test_device.read_latch(port)
            }
            testdev::BYTE_LATCH_PORT if self.devices.test_device => self.test_device.byte_latch(),
            _ => FLOATING,
        }
    }

    fn write_byte(&mut self, port: u16, value: u8) {
        match port {
            serial::FIRST_PORT..=serial::LAST_PORT => self.write_serial(port, value),
            pic::MASTER_COMMAND
            | pic::MASTER_DATA
            | pic::SLAVE_COMMAND
            | pic::SLAVE_DATA
            | pic::MASTER_ELCR
            | pic::SLAVE_ELCR => self.write_pic(port, value),
            pit::CHANNEL_0..=pit::CONTROL => {
                self.pit.write(port, value, self.now_ns);
                self.pit_changed();
            }
            pit::SYSTEM_CONTROL_B => self.pit.write_system_control_b(value, self.now_ns),
            i8042::DATA => {
                let reset = self.i8042.write_data(value);
                self.i8042_interrupt();
                self.request_reset(reset);
            }
            i8042::COMMAND => {
                let reset = self.i8042.write_command(value);
                self.request_reset(reset);
            }
            POST_CODE => self.post_code = value,
            APM_CONTROL..=APM_STATUS => self.apm[usize::from(port - APM_CONTROL)] = value,
            coprocessor::CLEAR_BUSY => {
                self.coprocessor.clear_busy();
                self.coprocessor_changed();
            }
            rtc::INDEX => self.rtc.select(value),
            rtc::DATA => {
                self.rtc.write(value, self.now_ns);
                self.rtc_changed();
            }
            acpi_pm::FIRST_PORT..=acpi_pm::LAST_PORT => self.write_acpi(port, value),
            pci::DATA..=pci::DATA_LAST => self.write_pci_config(port, 1, value.into()),
            reset::SYSTEM_CONTROL_A => {
                let reset = self.reset_ports.write_control_a(value);
                self.request_reset(reset);
            }
            reset::RESET_CONTROL => {
                let reset = self.reset_ports.write_reset_control(value);
                self.request_reset(reset);
            }
            debug_exit::CONSOLE_PORT | debug_exit::FIRMWARE_CONSOLE_PORT if self.devices.debug_console => {
                self.write_debug_console(value);
            }
            debug_exit::SHUTDOWN_PORT if self.devices.debug_exit => self.write_shutdown_port(value),
            testdev::LATCH_FIRST_PORT..=testdev::LATCH_LAST_PORT if self.devices.test_device => {
                self.test_device.write_latch(port, value);
            }
            testdev::BYTE_LATCH_PORT if self.devices.test_device => self.test_device.set_byte_latch(value),
            // So are the test device's ports 0xE4 to 0xE7, which unmap and map a page again: nothing that a guest could see.
            _ => {}
        }
    }

    fn read_pic(&mut self, port: u16) -> u8 {
        // Reading changes something after a poll command.
        let before = self.pic.output();
        let value = self.pic.read(port);
        self.pic_changed(before);
        self.schedule_pit();
        value
    }

    fn write_pic(&mut self, port: u16, value: u8) {
        let before = self.pic.output();
        self.pic.write(port, value);
        self.pic_changed(before);
        self.schedule_pit();
    }

    fn write_serial(&mut self, port: u16, value: u8) {
        if self.serial.write(port, value).is_err() {
            self.request_stop(StopReason::HostError);
        }
        if let Some(text) = self.serial.take_text() {
            self.request_stop(StopReason::ConsoleText(text));
        }
        self.serial_changed();
    }

    fn write_acpi(&mut self, port: u16, value: u8) {
        match self.acpi_pm.write(port, value, self.now_ns) {
            PowerRequest::Off => self.request_stop(StopReason::PowerOff),
            PowerRequest::Suspend => self.request_stop(StopReason::Suspend),
            PowerRequest::None => {}
        }
        self.acpi_changed();
    }

    fn write_debug_console(&mut self, value: u8) {
        if !self.debug_console.put(value) {
            self.request_stop(StopReason::HostError);
        }
    }

    fn write_shutdown_port(&mut self, value: u8) {
        if self.shutdown_port.write(value) {
            self.request_stop(StopReason::PowerOff);
        }
    }

    fn i8042_interrupt(&mut self) {
        if let Some(irq) = self.i8042.take_interrupt() {
            self.pulse_irq(irq);
        }
    }

    fn request_reset(&mut self, kind: Option<ResetKind>) {
        match kind {
            Some(ResetKind::Hard) => self.request_stop(StopReason::Reset),
            Some(ResetKind::Soft) => self.request_stop(StopReason::SoftReset),
            None => {}
        }
    }
}
