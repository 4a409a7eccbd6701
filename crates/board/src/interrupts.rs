//! How interrupts travel: lines into the 8259s and the I/O APIC, messages from there and between local APICs, and the view
//! that a vCPU has of all this.

use vcpu::Pending;

use crate::board::{Board, TIMER_ACPI, TIMER_HPET, TIMER_PIT, TIMER_RTC};
use crate::deadlines::NEVER;
use crate::hpet::Signal;
use crate::ioapic::PinSet;
use crate::lapic::{DeliveryMode, Destination, Effect, LocalPin, LocalSignal, Message, Mode};
use crate::{acpi_pm, coprocessor, pit, rtc, serial};

/// Where IRQ 0 goes on the I/O APIC of a PC; pin 0 would be the 8259's INTR.
const TIMER_PIN: usize = 2;
/// Lines that the 8259s have.
const ISA_IRQS: usize = 16;

/// What a vCPU knows of INIT and SIPI beyond its [`Pending`] flags.
#[derive(Clone, Debug, Hash)]
pub struct StartUp {
    /// The vCPU waits for SIPI, so it accepts one.
    pub waiting: bool,
    /// Vector of the SIPI received.
    pub vector: u8,
}

impl StartUp {
    /// As after RESET: all but the boot processor wait.
    pub fn new(vcpu: usize) -> Self {
        Self { waiting: vcpu != 0, vector: 0 }
    }
}

impl Board {
    /// Bring what others keep about a local APIC up to date after something happened there.
    #[inline]
    pub(crate) fn sync(&mut self, vcpu: usize) {
        self.pv_eoi_after_change(vcpu);
        self.report_ended(vcpu);
        let apic = &self.apics[vcpu];
        self.pending[vcpu].interrupt = apic.deliverable().is_some()
            || (self.pic.output() && apic.passes_extint())
            || self.upcalls[vcpu].is_raised();
        self.deadlines.set(vcpu, apic.next_event_ns().unwrap_or(NEVER));
    }

    pub(crate) fn sync_all(&mut self) {
        for vcpu in 0..self.apics.len() {
            self.sync(vcpu);
        }
    }

    // -- lines

    /// Set the level of a global system interrupt, 0 to 23: 0 to 15 reach the 8259s too. Others do not exist.
    pub fn set_irq(&mut self, gsi: u32, level: bool) {
        let gsi = gsi as usize;
        if gsi < ISA_IRQS {
            let before = self.pic.output();
            self.pic.set_line(gsi as u8, level);
            self.pic_changed(before);
        }
        let pin = if gsi == 0 { TIMER_PIN } else { gsi };
        if pin < crate::ioapic::PINS
            && let Some(message) = self.ioapic.set_line(pin, level)
        {
            self.send_from_pin(pin, message);
        }
    }

    pub(crate) fn pulse_irq(&mut self, irq: u8) {
        self.set_irq(irq.into(), true);
        self.set_irq(irq.into(), false);
    }

    /// The 8259s' INTR may have changed since `before`: it is LINT0 of every local APIC.
    pub(crate) fn pic_changed(&mut self, before: bool) {
        let after = self.pic.output();
        if before == after {
            return;
        }
        for vcpu in 0..self.apics.len() {
            if after {
                self.signal_pin(vcpu, LocalPin::Lint0);
            }
            self.sync(vcpu);
        }
    }

    /// A local interrupt pin of a vCPU becomes active.
    pub(crate) fn signal_pin(&mut self, vcpu: usize, pin: LocalPin) {
        match self.apics[vcpu].signal_pin(pin) {
            LocalSignal::Nmi => self.pending[vcpu].nmi = true,
            LocalSignal::Done => {}
        }
    }

    /// Pulse the board's NMI line, which is LINT1 of every local APIC.
    pub fn raise_nmi(&mut self) {
        for vcpu in 0..self.apics.len() {
            self.signal_pin(vcpu, LocalPin::Lint1);
            self.sync(vcpu);
        }
    }

    fn send_from_pin(&mut self, pin: usize, message: Message) {
        if self.send(message) {
            self.ioapic.accepted(pin);
        }
    }

    /// Look again at pins of the I/O APIC whose level may now go out.
    pub(crate) fn service_pins(&mut self, pins: PinSet) {
        let mut rest = pins;
        while rest != 0 {
            let pin = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if let Some(message) = self.ioapic.level_message(pin) {
                self.send_from_pin(pin, message);
            }
        }
    }

    // -- messages

    /// Send a message. Returns whether any local APIC has taken it.
    pub(crate) fn send(&mut self, message: Message) -> bool {
        if message.mode == DeliveryMode::LowestPriority {
            return match self.lowest_priority(message) {
                Some(vcpu) => self.receive(vcpu, message),
                None => false,
            };
        }
        if let Destination::Only(vcpu) = message.destination {
            return self.receive(vcpu, message);
        }
        let mut taken = false;
        for vcpu in 0..self.apics.len() {
            if self.is_destination(vcpu, message.destination) {
                taken |= self.receive(vcpu, message);
            }
        }
        taken
    }

    /// A local APIC that is switched off hears nothing.
    fn is_destination(&self, vcpu: usize, destination: Destination) -> bool {
        let apic = &self.apics[vcpu];
        apic.mode() != Mode::Disabled && destination.includes(vcpu, apic)
    }

    /// SDM vol. 3 section 12.6.2.4: the processor that handles the vector already, else the one with the lowest priority;
    /// of equals the one with the lowest number.
    fn lowest_priority(&self, message: Message) -> Option<usize> {
        (0..self.apics.len())
            .filter(|&vcpu| self.is_destination(vcpu, message.destination) && self.apics[vcpu].is_software_enabled())
            .min_by_key(|&vcpu| {
                let apic = &self.apics[vcpu];
                (!apic.has(message.vector), apic.ppr() >> 4)
            })
    }

    fn receive(&mut self, vcpu: usize, message: Message) -> bool {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                let taken = self.apics[vcpu].accept(message.vector, message.level_triggered);
                self.sync(vcpu);
                taken
            }
            DeliveryMode::Nmi => {
                self.pending[vcpu].nmi = true;
                true
            }
            DeliveryMode::Init => {
                // INIT makes a SIPI that has not been taken yet void.
                self.pending[vcpu].init = true;
                self.pending[vcpu].sipi = false;
                true
            }
            DeliveryMode::StartUp => self.receive_sipi(vcpu, message.vector),
            DeliveryMode::Smi | DeliveryMode::Reserved | DeliveryMode::ExtInt => false,
        }
    }

    /// A SIPI counts only for a vCPU that waits for it, or will once it has taken the INIT sent before.
    fn receive_sipi(&mut self, vcpu: usize, vector: u8) -> bool {
        let pending = &mut self.pending[vcpu];
        let will_wait = pending.init && !self.apics[vcpu].is_bsp();
        let accepted = (self.start_up[vcpu].waiting || will_wait) && !pending.sipi;
        if accepted {
            pending.sipi = true;
            self.start_up[vcpu].vector = vector;
        }
        accepted
    }

    /// Send an interrupt to the local APIC with this id, as an IPI with physical destination. Returns false if there is none
    /// that takes it.
    pub fn deliver(&mut self, apic_id: u32, vector: u8, mode: DeliveryMode) -> bool {
        let destination = Destination::Physical(apic_id);
        self.send(Message { destination, mode, vector, level_triggered: false })
    }

    /// The ids of the local APICs, in the order of the vCPUs.
    pub fn apic_ids(&self) -> Vec<u32> {
        self.apics.iter().map(|apic| apic.id()).collect()
    }

    /// The APIC_BASE MSR of a vCPU, whose enable bit CPUID mirrors.
    pub fn apic_base(&self, vcpu: usize) -> u64 {
        self.apics[vcpu].base()
    }

    // -- the local APIC's registers

    /// Carry out what a register write asked for.
    pub(crate) fn after_write(&mut self, vcpu: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Send(message) => {
                self.send(message);
            }
            Effect::EoiBroadcast(vector) => {
                let pins = self.ioapic.end_of_interrupt(vector);
                self.service_pins(pins);
            }
        }
        self.sync(vcpu);
    }

    // -- the vCPU's side

    pub(crate) fn acknowledge_interrupt(&mut self, vcpu: usize) -> Option<u8> {
        if let Some(vector) = self.take_upcall(vcpu) {
            return Some(vector);
        }
        if self.pic.output() && self.apics[vcpu].passes_extint() {
            let before = self.pic.output();
            let vector = self.pic.acknowledge();
            self.pic_changed(before);
            self.schedule_pit();
            return Some(vector);
        }
        self.pv_eoi_before_access(vcpu);
        let vector = self.apics[vcpu].acknowledge(self.now_ns);
        if let Some(vector) = vector {
            self.pv_eoi_after_acknowledge(vcpu, vector);
        }
        self.sync(vcpu);
        vector
    }

    pub(crate) fn acknowledge_init(&mut self, vcpu: usize) -> bool {
        self.pv_eoi_forget(vcpu);
        self.apics[vcpu].init();
        let is_bsp = self.apics[vcpu].is_bsp();
        let sipi = self.pending[vcpu].sipi && !is_bsp;
        self.pending[vcpu] = Pending { sipi, ..Pending::default() };
        self.sync(vcpu);
        is_bsp
    }

    // -- devices

    /// The serial port was read or written, or has received something.
    pub(crate) fn serial_changed(&mut self) {
        let level = self.serial.interrupt_line();
        self.set_irq(serial::IRQ.into(), level);
    }

    /// FERR# or the latch behind it has changed.
    pub(crate) fn coprocessor_changed(&mut self) {
        let level = self.coprocessor.irq_level();
        self.set_irq(coprocessor::IRQ.into(), level);
    }

    /// The real-time clock was read or written, or has something due.
    pub(crate) fn rtc_changed(&mut self) {
        let level = self.rtc.irq_level(self.now_ns);
        if !self.hpet.replaces_legacy() {
            self.set_irq(rtc::IRQ.into(), level);
        }
        let deadline = self.rtc.next_event_ns(self.now_ns);
        self.deadlines.set(self.apics.len() + TIMER_RTC, deadline.unwrap_or(NEVER));
    }

    /// The ACPI registers were written, or the PM timer has an event due.
    pub(crate) fn acpi_changed(&mut self) {
        let level = self.acpi_pm.irq_level(self.now_ns);
        self.set_irq(acpi_pm::SCI.into(), level);
        let deadline = self.acpi_pm.next_event_ns(self.now_ns);
        self.deadlines.set(self.apics.len() + TIMER_ACPI, deadline.unwrap_or(NEVER));
    }

    /// A timer of the HPET is due.
    pub(crate) fn fire_hpet(&mut self) {
        self.hpet.expire(self.now_ns);
        self.hpet_changed();
    }

    /// The HPET was written, or something is due there: while it replaces the 8254 and the real-time clock their interrupts
    /// lead nowhere.
    pub(crate) fn hpet_changed(&mut self) {
        for signal in self.hpet.take_signals() {
            match signal {
                Signal::Pulse(line) => {
                    self.set_irq(line, true);
                    self.set_irq(line, false);
                }
                Signal::Level(line, level) => self.set_irq(line, level),
            }
        }
        let deadline = self.hpet.next_event_ns().unwrap_or(NEVER);
        self.deadlines.set(self.apics.len() + TIMER_HPET, deadline);
        self.pit_changed();
        self.rtc_changed();
    }

    /// The output of the interval timer's channel 0 may have changed by a write.
    pub(crate) fn pit_changed(&mut self) {
        if !self.hpet.replaces_legacy() {
            let level = self.pit.irq_level(self.now_ns);
            self.set_irq(pit::IRQ.into(), level);
        }
        self.schedule_pit();
    }

    /// The output of channel 0 rises.
    pub(crate) fn fire_pit(&mut self) {
        self.set_irq(pit::IRQ.into(), false);
        self.set_irq(pit::IRQ.into(), true);
        self.schedule_pit();
    }

    /// Let the interval timer wake us for its next edge, unless the edge would change nothing: latched already by the 8259,
    /// and masked at the I/O APIC; or it goes nowhere.
    pub(crate) fn schedule_pit(&mut self) {
        let matters = !self.pic.is_latched(pit::IRQ) || self.ioapic.is_open(TIMER_PIN);
        let deadline = if matters && !self.hpet.replaces_legacy() { self.pit.next_irq_ns(self.now_ns) } else { None };
        self.deadlines.set(self.apics.len() + TIMER_PIT, deadline.unwrap_or(NEVER));
    }
}
