//! The board as the vCPUs see it. Claims come first; devices answer the rest.

use vcpu::{Bus, Pending, Reply, StopReason};

use crate::board::{Board, TIMER_ACPI, TIMER_ALARM, TIMER_HPET, TIMER_PCI, TIMER_PIT, TIMER_RTC};
use crate::deadlines::NEVER;
use crate::lapic::{LocalPin, Refused};

impl Bus for Board {
    fn mmio_read(&mut self, vcpu: usize, gpa: u64, size: usize) -> Reply<u64> {
        if self.claimed_mmio.contains(gpa) {
            return Reply::Exit;
        }
        let Some(offset) = self.xapic_offset(vcpu, gpa) else {
            return Reply::Done(self.device_read(gpa, size));
        };
        self.pv_eoi_before_access(vcpu);
        let value = self.apics[vcpu].mmio_read(offset, size, self.now_ns);
        self.sync(vcpu);
        Reply::Done(value)
    }

    fn mmio_write(&mut self, vcpu: usize, gpa: u64, size: usize, value: u64) -> Reply<()> {
        if self.claimed_mmio.contains(gpa) {
            return Reply::Exit;
        }
        let Some(offset) = self.xapic_offset(vcpu, gpa) else {
            self.device_write(gpa, size, value);
            return Reply::Done(());
        };
        self.pv_eoi_withdraw(vcpu);
        let effect = self.apics[vcpu].mmio_write(offset, size, value, self.now_ns);
        self.after_write(vcpu, effect);
        Reply::Done(())
    }

    fn port_read(&mut self, _vcpu: usize, port: u16, size: usize) -> Reply<u32> {
        if self.claimed_ports.contains(port) {
            return Reply::Exit;
        }
        Reply::Done(self.read_ports(port, size))
    }

    fn port_write(&mut self, _vcpu: usize, port: u16, size: usize, value: u32) -> Reply<()> {
        if self.claimed_ports.contains(port) {
            return Reply::Exit;
        }
        self.write_ports(port, size, value);
        Reply::Done(())
    }

    #[inline]
    fn claims_msr(&self, index: u32) -> bool {
        self.claimed_msrs.contains(index.into())
    }

    fn msr_read(&mut self, vcpu: usize, index: u32) -> Reply<u64> {
        if self.claims_msr(index) {
            return Reply::Exit;
        }
        self.read_msr(vcpu, index).map_or_else(|Refused| Reply::Fault, Reply::Done)
    }

    fn msr_write(&mut self, vcpu: usize, index: u32, value: u64) -> Reply<()> {
        if self.claims_msr(index) {
            return Reply::Exit;
        }
        self.write_msr(vcpu, index, value).map_or_else(|Refused| Reply::Fault, Reply::Done)
    }

    fn cr8(&self, vcpu: usize) -> u64 {
        u64::from(self.apics[vcpu].tpr() >> 4)
    }

    fn set_cr8(&mut self, vcpu: usize, value: u64) {
        self.apics[vcpu].set_tpr((value as u8) << 4);
        self.sync(vcpu);
    }

    fn x87_error(&mut self, _vcpu: usize, first: bool) -> bool {
        let ignore = self.coprocessor.error(first);
        self.coprocessor_changed();
        ignore
    }

    fn set_tsc_offset(&mut self, vcpu: usize, offset: u64) {
        self.apics[vcpu].set_tsc_offset(offset, self.now_ns);
        self.sync(vcpu);
    }

    fn performance_interrupt(&mut self, vcpu: usize) {
        self.signal_pin(vcpu, LocalPin::Performance);
        self.sync(vcpu);
    }

    #[inline]
    fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if self.deadlines.earliest() <= self.now_ns {
            self.fire_due_timers();
        }
    }

    #[inline]
    fn next_event_ns(&self) -> Option<u64> {
        match self.deadlines.earliest() {
            NEVER => None,
            deadline => Some(deadline),
        }
    }

    #[inline]
    fn pending(&self, vcpu: usize) -> Pending {
        self.pending[vcpu]
    }

    fn take_interrupt(&mut self, vcpu: usize) -> Option<u8> {
        self.acknowledge_interrupt(vcpu)
    }

    fn take_nmi(&mut self, vcpu: usize) {
        self.pending[vcpu].nmi = false;
    }

    fn take_init(&mut self, vcpu: usize) -> bool {
        self.acknowledge_init(vcpu)
    }

    fn take_sipi(&mut self, vcpu: usize) -> u8 {
        self.pending[vcpu].sipi = false;
        self.start_up[vcpu].vector
    }

    fn set_wait_for_sipi(&mut self, vcpu: usize, waiting: bool) {
        self.start_up[vcpu].waiting = waiting;
    }

    fn take_stop(&mut self) -> Option<StopReason> {
        self.stop.take().or_else(|| self.notices.pop_front())
    }
}

impl Board {
    /// Let every timer fire that is due. Each moves its deadline behind the present, so this ends.
    fn fire_due_timers(&mut self) {
        while let Some(timer) = self.deadlines.due(self.now_ns) {
            match timer.checked_sub(self.apics.len()) {
                None => {
                    self.apics[timer].expire_timer(self.now_ns);
                    self.sync(timer);
                }
                Some(TIMER_PIT) => self.fire_pit(),
                Some(TIMER_RTC) => self.rtc_changed(),
                Some(TIMER_ACPI) => self.acpi_changed(),
                Some(TIMER_HPET) => self.fire_hpet(),
                Some(TIMER_PCI) => self.fire_pci(),
                Some(TIMER_ALARM) => self.fire_alarm(),
                Some(_) => self.deadlines.set(timer, NEVER),
            }
        }
    }
}
