//! The ACPI fixed hardware: PM1a event and control blocks and the PM timer, ACPI specification 6.5 section 4.8, at the ports of
//! QEMU's PIIX4. ACPI mode is always on: there is no SMI command to switch it.

use crate::ticks::TickRate;

/// PM1a event block: status at 0, enable at 2.
pub const FIRST_PORT: u16 = 0x600;
/// PM timer, 32 bits.
pub const TIMER: u16 = 0x608;
/// Last port of the timer.
pub const LAST_PORT: u16 = 0x60B;
/// System control interrupt.
pub const SCI: u8 = 9;

const STATUS: u16 = 0;
const ENABLE: u16 = 2;
const CONTROL: u16 = 4;
const TIMER_OFFSET: u16 = 8;

/// Status and enable: the timer's highest bit has changed.
const TIMER_EVENT: u16 = 1 << 0;
/// Status and enable: the real-time clock's alarm.
const RTC_EVENT: u16 = 1 << 10;
/// Status: the machine was woken.
const WAKE_STATUS: u16 = 1 << 15;
/// Enable bits that exist: timer, global lock, power and sleep button, RTC.
const ENABLE_BITS: u16 = 0x0721;

/// Control: ACPI mode, read-only here.
const SCI_ENABLE: u16 = 1 << 0;
const SLEEP_TYPE: u16 = 7 << 10;
const SLEEP_ENABLE: u16 = 1 << 13;
/// SLP_TYP of S5, as `\_S5` of the ACPI tables says.
const SLEEP_TYPE_S5: u16 = 0;
/// SLP_TYP of S3, as `\_S3` says.
const SLEEP_TYPE_S3: u16 = 1 << 10;
/// Control bits that are kept: bus master reload and sleep type.
const CONTROL_BITS: u16 = 1 << 1 | SLEEP_TYPE;

const RATE: TickRate = TickRate(3_579_545);
/// Ticks between changes of the timer's highest bit, bit 31.
const HALF_ROUND: u64 = 1 << 31;

/// The registers.
#[derive(Clone, Debug, Default, Hash)]
pub struct AcpiPm {
    enable: u16,
    control: u16,
    /// Status bits of what woke the machine.
    woken: u16,
    /// How often the timer's highest bit had changed when its status bit was last cleared.
    timer_changes_seen: u64,
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    None,
    /// S5, soft off.
    Off,
    /// S3, suspend to RAM.
    Suspend,
}

impl AcpiPm {
    pub fn timer(&self, now_ns: u64) -> u32 {
        RATE.ticks(now_ns) as u32
    }

    fn status(&self, now_ns: u64) -> u16 {
        let timer = if RATE.ticks(now_ns) / HALF_ROUND != self.timer_changes_seen { TIMER_EVENT } else { 0 };
        timer | self.woken
    }

    /// The level of the system control interrupt.
    pub fn irq_level(&self, now_ns: u64) -> bool {
        self.status(now_ns) & self.enable != 0
    }

    /// Whether the real-time clock's interrupt wakes the machine.
    pub fn wakes_by_rtc(&self) -> bool {
        self.enable & RTC_EVENT != 0
    }

    /// The real-time clock has woken the machine.
    pub fn note_wake(&mut self) {
        self.woken = WAKE_STATUS | RTC_EVENT;
    }

    /// When the interrupt will rise by itself.
    pub fn next_event_ns(&self, now_ns: u64) -> Option<u64> {
        let waits = self.enable & TIMER_EVENT != 0 && self.status(now_ns) == 0;
        waits.then(|| RATE.ns((self.timer_changes_seen + 1) * HALF_ROUND))
    }

    pub fn read(&self, port: u16, now_ns: u64) -> u8 {
        let offset = port - FIRST_PORT;
        let register = match offset & !1 {
            STATUS => self.status(now_ns),
            ENABLE => self.enable,
            CONTROL => self.control | SCI_ENABLE,
            TIMER_OFFSET.. => return self.timer(now_ns).to_le_bytes()[usize::from(offset & 3)],
            _ => 0,
        };
        register.to_le_bytes()[usize::from(offset & 1)]
    }

    pub fn write(&mut self, port: u16, value: u8, now_ns: u64) -> PowerRequest {
        let offset = port - FIRST_PORT;
        let shift = offset % 2 * 8;
        let (bits, byte) = (u16::from(value) << shift, 0xFF << shift);
        match offset & !1 {
            // Status bits are cleared by writing ones.
            STATUS => {
                self.woken &= !bits;
                if bits & TIMER_EVENT != 0 {
                    self.timer_changes_seen = RATE.ticks(now_ns) / HALF_ROUND;
                }
            }
            ENABLE => self.enable = (self.enable & !byte | bits) & ENABLE_BITS,
            CONTROL => {
                self.control = (self.control & !byte | bits & byte) & CONTROL_BITS;
                if bits & SLEEP_ENABLE != 0 {
                    return match self.control & SLEEP_TYPE {
                        SLEEP_TYPE_S5 => PowerRequest::Off,
                        SLEEP_TYPE_S3 => PowerRequest::Suspend,
                        _ => PowerRequest::None,
                    };
                }
            }
            _ => {}
        }
        PowerRequest::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS_PER_SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_timer_counts_3579545_a_second_in_any_width() {
        let pm = AcpiPm::default();
        assert_eq!(pm.timer(NS_PER_SECOND), 3_579_545);
        let bytes = [0, 1, 2, 3].map(|byte| pm.read(TIMER + byte, NS_PER_SECOND));
        assert_eq!(u32::from_le_bytes(bytes), 3_579_545);
        // It wraps after 2^32 ticks, which are 1199 seconds and a bit.
        assert!(pm.timer(1200 * NS_PER_SECOND) < pm.timer(1199 * NS_PER_SECOND));
    }

    #[test]
    fn s5_switches_off() {
        let mut pm = AcpiPm::default();
        assert_eq!(pm.write(0x604, 0x00, 0), PowerRequest::None);
        assert_eq!(pm.write(0x605, 0x20, 0), PowerRequest::Off);
        assert_eq!(pm.write(0x605, 0x24, 0), PowerRequest::Suspend);
        assert_eq!(pm.write(0x605, 0x28, 0), PowerRequest::None, "there is no such state");
        assert_eq!(pm.read(0x604, 0) & 1, 1);
    }

    #[test]
    fn what_woke_the_machine_is_told_until_it_is_cleared() {
        let mut pm = AcpiPm::default();
        assert!(!pm.wakes_by_rtc());
        pm.write(0x603, 4, 0);
        assert!(pm.wakes_by_rtc());
        pm.note_wake();
        assert_eq!((pm.read(0x601, 0), pm.irq_level(0)), (0x84, true));
        pm.write(0x601, 0x84, 0);
        assert_eq!((pm.read(0x601, 0), pm.irq_level(0)), (0, false));
    }

    #[test]
    fn the_timer_event_interrupts_when_its_highest_bit_changes() {
        let mut pm = AcpiPm::default();
        pm.write(0x602, 1, 0);
        let event = pm.next_event_ns(0).unwrap();
        assert_eq!(event, RATE.ns(HALF_ROUND));
        assert!(!pm.irq_level(event - 1));
        assert!(pm.irq_level(event));
        assert_eq!(pm.next_event_ns(event), None);
        pm.write(0x600, 1, event);
        assert!(!pm.irq_level(event));
        assert_eq!(pm.next_event_ns(event), Some(RATE.ns(2 * HALF_ROUND)));
    }
}
