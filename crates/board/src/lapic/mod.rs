//! The local APIC, SDM vol. 3 chapter 12 (as of June 2024), AMD's APM vol. 2 chapter 16.
//!
//! [`LocalApic`] holds the registers of one vCPU and knows no other. What leaves it (IPIs, EOI broadcasts) is the
//! [`Effect`] of a register write, which the board carries out.

mod base;
mod message;
mod registers;
mod timer;
mod vector_set;
mod x2apic;

use vcpu::Clock;

pub use message::{DeliveryMode, Destination, Message};
use registers::*;
pub(crate) use registers::{ICR, ICR_HIGH};
use timer::{Timer, TimerMode};
use vector_set::VectorSet;

/// Lowest vector that an interrupt may have.
const FIRST_LEGAL_VECTOR: u8 = 16;

/// What CPUID announces about the APIC, and so what its MSRs accept.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct ApicFeatures {
    /// CPUID.1:ECX bit 21.
    pub x2apic: bool,
    /// CPUID.1:ECX bit 24.
    pub tsc_deadline: bool,
    /// CPUID.80000008H:EAX bits 7:0, 32 to 52.
    pub physical_address_bits: u8,
}

impl Default for ApicFeatures {
    fn default() -> Self {
        Self { x2apic: true, tsc_deadline: true, physical_address_bits: 36 }
    }
}

/// The mode that bits 11 and 10 of APIC_BASE select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Disabled,
    XApic,
    X2Apic,
}

/// An access that the manual answers with #GP, or that reaches no register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What a register write does outside of its local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    /// Send a message.
    Send(Message),
    /// Tell the I/O APICs that the interrupt with this vector has been handled.
    EoiBroadcast(u8),
}

/// What an interrupt of the local vector table does beyond setting IRR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalSignal {
    /// Nothing, or the IRR was set.
    Done,
    /// Latch an NMI.
    Nmi,
}

/// A local interrupt pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalPin {
    /// Connected to the 8259's INTR.
    Lint0,
    /// Connected to the board's NMI.
    Lint1,
    /// Connected to the vCPU's performance counters.
    Performance,
}

/// The local APIC of one vCPU.
#[derive(Clone, Debug, Hash)]
pub struct LocalApic {
    vcpu: usize,
    clock: Clock,
    features: ApicFeatures,
    base: u64,
    /// xAPIC ID register; in x2APIC mode the ID is that of power-on.
    xapic_id: u8,
    tpr: u8,
    ldr: u8,
    flat: bool,
    svr: u32,
    irr: VectorSet,
    isr: VectorSet,
    tmr: VectorSet,
    /// Vectors whose interrupts end when they are taken, those whose ends somebody wants to know, and which of these have
    /// ended.
    auto_eoi: VectorSet,
    watched: VectorSet,
    ended: VectorSet,
    esr: u32,
    /// Errors since the last write to ESR.
    errors: u32,
    icr: u64,
    lvt: [u32; LVT_COUNT],
    timer: Timer,
}

impl LocalApic {
    /// The local APIC of vCPU `vcpu`, which is also its id, as after RESET.
    pub fn new(vcpu: usize, clock: Clock, features: ApicFeatures) -> Self {
        let mut apic = Self {
            vcpu,
            clock,
            features,
            base: 0,
            xapic_id: 0,
            tpr: 0,
            ldr: 0,
            flat: true,
            svr: 0,
            irr: VectorSet::default(),
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            auto_eoi: VectorSet::default(),
            watched: VectorSet::default(),
            ended: VectorSet::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [0; LVT_COUNT],
            timer: Timer::default(),
        };
        apic.reset();
        apic
    }

    /// RESET: as after power-on, in xAPIC mode at the default address.
    pub fn reset(&mut self) {
        self.reset_base();
        self.xapic_id = self.vcpu as u8;
        self.init();
    }

    /// INIT: as after power-on but for ID and APIC_BASE (SDM vol. 3 section 12.4.7.3).
    pub fn init(&mut self) {
        self.tpr = 0;
        self.ldr = 0;
        self.flat = true;
        self.svr = 0xFF;
        self.irr = VectorSet::default();
        self.isr = VectorSet::default();
        self.tmr = VectorSet::default();
        self.esr = 0;
        self.errors = 0;
        self.icr = 0;
        self.lvt = [LVT_MASKED; LVT_COUNT];
        self.timer.reset();
    }

    /// Virtual wire mode as firmware leaves it on the boot processor: enabled, 8259 through LINT0, NMI through LINT1
    /// (MultiProcessor Specification 1.4 section 3.6.2.2).
    pub fn set_virtual_wire(&mut self) {
        self.svr |= SVR_ENABLE;
        self.lvt[lvt_index(LVT_LINT0)] = (DeliveryMode::ExtInt as u32) << 8;
        self.lvt[lvt_index(LVT_LINT1)] = (DeliveryMode::Nmi as u32) << 8;
    }

    /// What CPUID announces from now on.
    pub fn set_features(&mut self, features: ApicFeatures) {
        self.features = features;
    }

    /// The id that physical destinations are compared with.
    pub fn id(&self) -> u32 {
        if self.mode() == Mode::X2Apic { self.vcpu as u32 } else { u32::from(self.xapic_id) }
    }

    /// The id that logical destinations are compared with: 8 bits, in x2APIC mode 32.
    fn logical_id(&self) -> u32 {
        if self.mode() == Mode::X2Apic {
            let id = self.vcpu as u32;
            (id & 0xFFFF_FFF0) << 12 | 1 << (id & 0xF)
        } else {
            u32::from(self.ldr)
        }
    }

    fn is_flat(&self) -> bool {
        self.flat
    }

    pub fn is_software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    // -- priorities and the way of an interrupt

    /// Task priority, all 8 bits.
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    pub fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }

    /// Processor priority, SDM vol. 3 section 12.8.3.1.
    #[inline]
    pub fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0) & 0xF0;
        if self.tpr & 0xF0 >= in_service { self.tpr } else { in_service }
    }

    /// The vector that the vCPU would take now.
    #[inline]
    pub fn deliverable(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (vector & 0xF0 > self.ppr() & 0xF0 && self.mode() != Mode::Disabled).then_some(vector)
    }

    /// Receive an interrupt with a vector. Returns false if it is not taken: an APIC that software has disabled responds
    /// to no such interrupt (SDM vol. 3 section 12.4.7.2).
    pub fn accept(&mut self, vector: u8, level_triggered: bool) -> bool {
        if !self.is_software_enabled() {
            return false;
        }
        if vector < FIRST_LEGAL_VECTOR {
            self.raise_error(ESR_RECEIVE_ILLEGAL_VECTOR);
        } else {
            self.irr.insert(vector);
            self.tmr.set(vector, level_triggered);
        }
        true
    }

    /// The INTA cycle: [`LocalApic::deliverable`] goes into service.
    pub fn acknowledge(&mut self, now_ns: u64) -> Option<u8> {
        // What the timer requested until now is one interrupt with what it requested before.
        self.expire_timer(now_ns);
        let vector = self.deliverable()?;
        self.irr.remove(vector);
        if self.auto_eoi.contains(vector) {
            self.note_end(vector);
        } else {
            self.isr.insert(vector);
        }
        Some(vector)
    }

    /// End of interrupt. Returns the vector if the I/O APICs are to hear of it.
    pub fn end_of_interrupt(&mut self) -> Option<u8> {
        let vector = self.isr.highest()?;
        self.isr.remove(vector);
        self.note_end(vector);
        let broadcast = self.tmr.contains(vector) && self.svr & SVR_SUPPRESS_EOI_BROADCAST == 0;
        broadcast.then_some(vector)
    }

    fn note_end(&mut self, vector: u8) {
        if self.watched.contains(vector) {
            self.ended.insert(vector);
        }
    }

    /// A watched vector whose interrupt has ended since the last call.
    #[inline]
    pub fn take_ended(&mut self) -> Option<u8> {
        let vector = self.ended.highest()?;
        self.ended.remove(vector);
        Some(vector)
    }

    /// Remember the ends of interrupts with this vector for [`LocalApic::take_ended`].
    pub fn watch_end(&mut self, vector: u8, watched: bool) {
        self.watched.set(vector, watched);
    }

    /// Interrupts with this vector end when they are taken.
    pub fn set_auto_eoi(&mut self, vector: u8, enabled: bool) {
        self.auto_eoi.set(vector, enabled);
    }

    /// Nobody watches any more, and nothing ends by itself.
    pub fn forget_watches(&mut self) {
        (self.auto_eoi, self.watched, self.ended) = Default::default();
    }

    /// Number of interrupts in service, and whether none is requested.
    pub fn eoi_state(&self) -> (u32, bool) {
        (self.isr.len(), self.irr.is_empty())
    }

    /// Whether the interrupt with this vector was level-triggered when it came in.
    pub fn is_level(&self, vector: u8) -> bool {
        self.tmr.contains(vector)
    }

    /// Whether an interrupt with this vector is requested or in service (SDM: the focus processor).
    pub fn has(&self, vector: u8) -> bool {
        self.irr.contains(vector) || self.isr.contains(vector)
    }

    // -- local interrupts

    /// Whether the 8259's INTR reaches the processor: through LINT0 in ExtINT mode, or directly into the boot processor
    /// whose APIC is switched off.
    #[inline]
    pub fn passes_extint(&self) -> bool {
        const MODE_AND_MASK: u32 = LVT_MASKED | 7 << 8;
        match self.mode() {
            Mode::Disabled => self.is_bsp(),
            _ => self.lvt[lvt_index(LVT_LINT0)] & MODE_AND_MASK == (DeliveryMode::ExtInt as u32) << 8,
        }
    }

    /// A local interrupt pin becomes active.
    pub fn signal_pin(&mut self, pin: LocalPin) -> LocalSignal {
        if self.mode() == Mode::Disabled {
            return if pin == LocalPin::Lint1 && self.is_bsp() { LocalSignal::Nmi } else { LocalSignal::Done };
        }
        let entry = &mut self.lvt[lvt_index(match pin {
            LocalPin::Lint0 => LVT_LINT0,
            LocalPin::Lint1 => LVT_LINT1,
            LocalPin::Performance => LVT_PERFORMANCE,
        })];
        if *entry & LVT_MASKED != 0 {
            return LocalSignal::Done;
        }
        let signalled = *entry;
        if pin == LocalPin::Performance {
            // The handler takes the mask away again (SDM vol. 3 section 12.5.1).
            *entry |= LVT_MASKED;
        }
        let entry = signalled;
        match DeliveryMode::from_bits(entry >> 8) {
            DeliveryMode::Nmi => LocalSignal::Nmi,
            mode => {
                if mode == DeliveryMode::Fixed {
                    self.accept(entry as u8, false);
                }
                LocalSignal::Done
            }
        }
    }

    /// Note an error, and send the interrupt of LVT error for it if it is a new one.
    fn raise_error(&mut self, error: u32) {
        let new = self.errors & error == 0;
        self.errors |= error;
        let entry = self.lvt[lvt_index(LVT_ERROR)];
        if !new || entry & LVT_MASKED != 0 {
            return;
        }
        if entry as u8 >= FIRST_LEGAL_VECTOR {
            self.accept(entry as u8, false);
        } else {
            // An error like any other, which then would be reported by the same entry, and so on: once is enough.
            self.errors |= ESR_RECEIVE_ILLEGAL_VECTOR;
        }
    }

    // -- timer

    fn timer_lvt(&self) -> u32 {
        self.lvt[lvt_index(LVT_TIMER)]
    }

    fn timer_mode(&self) -> TimerMode {
        TimerMode::of_lvt(self.timer_lvt())
    }

    /// When something will happen here by itself. A timer that is masked, or whose interrupt is requested already, changes
    /// nothing when it expires, so there is no need to wake anybody for it.
    #[inline]
    pub fn next_event_ns(&self) -> Option<u64> {
        let expiry = self.timer.expiry_ns()?;
        let vector = self.timer_lvt() as u8;
        let useless = self.timer_lvt() & LVT_MASKED != 0
            || if vector < FIRST_LEGAL_VECTOR {
                self.errors & ESR_RECEIVE_ILLEGAL_VECTOR != 0
            } else {
                self.irr.contains(vector)
            };
        (!useless).then_some(expiry)
    }

    /// Let the timer expire if it is due.
    #[inline]
    pub fn expire_timer(&mut self, now_ns: u64) {
        if self.timer.expire(self.timer_mode(), now_ns) && self.timer_lvt() & LVT_MASKED == 0 {
            self.accept(self.timer_lvt() as u8, false);
        }
    }

    /// The vCPU's TSC minus the reference TSC is now `offset`.
    pub fn set_tsc_offset(&mut self, offset: u64, now_ns: u64) {
        self.expire_timer(now_ns);
        self.timer.set_tsc_offset(self.timer_mode(), offset, self.clock, now_ns);
        self.expire_timer(now_ns);
    }

    /// RDMSR of IA32_TSC_DEADLINE.
    pub fn tsc_deadline(&mut self, now_ns: u64) -> Result<u64, Refused> {
        if !self.features.tsc_deadline {
            return Err(Refused);
        }
        self.expire_timer(now_ns);
        Ok(self.timer.deadline_tsc())
    }

    /// WRMSR of IA32_TSC_DEADLINE.
    pub fn set_tsc_deadline(&mut self, deadline: u64, now_ns: u64) -> Result<(), Refused> {
        if !self.features.tsc_deadline {
            return Err(Refused);
        }
        self.expire_timer(now_ns);
        self.timer.set_deadline_tsc(self.timer_mode(), deadline, self.clock, now_ns);
        self.expire_timer(now_ns);
        Ok(())
    }

    // -- registers

    /// Read from the xAPIC page. Registers are the first four bytes of each 16 (SDM vol. 3 section 12.4.1); other bytes
    /// read as zero.
    pub fn mmio_read(&mut self, offset: u32, size: usize, now_ns: u64) -> u64 {
        let byte = offset as usize & 0xF;
        if byte + size > 4 {
            return 0;
        }
        let value = match self.read(offset & !0xF, now_ns) {
            Ok(value) => value,
            Err(Refused) => {
                self.raise_error(ESR_ILLEGAL_REGISTER);
                0
            }
        };
        let bytes = value.to_le_bytes();
        bytes[byte..byte + size].iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte))
    }

    /// Write to the xAPIC page. Only whole, aligned registers can be written.
    pub fn mmio_write(&mut self, offset: u32, size: usize, value: u64, now_ns: u64) -> Effect {
        if size != 4 || offset & 0xF != 0 {
            return Effect::None;
        }
        let value = value as u32;
        let result = match offset {
            ID => {
                self.xapic_id = (value >> 24) as u8;
                Ok(Effect::None)
            }
            LDR => {
                self.ldr = (value >> 24) as u8;
                Ok(Effect::None)
            }
            DFR => {
                self.flat = value >> 28 == 0xF;
                Ok(Effect::None)
            }
            ICR => {
                self.icr = self.icr & !0xFFFF_FFFF | u64::from(value & !ICR_DELIVERY_STATUS);
                Ok(self.send_ipi(Destination::narrow((self.icr >> 56) as u8, value & ICR_LOGICAL != 0)))
            }
            ICR_HIGH => {
                self.icr = self.icr & 0xFFFF_FFFF | u64::from(value) << 32;
                Ok(Effect::None)
            }
            _ => self.write(offset, value, now_ns),
        };
        result.unwrap_or_else(|Refused| {
            self.raise_error(ESR_ILLEGAL_REGISTER);
            Effect::None
        })
    }

    /// Read a register as both modes have it.
    fn read(&mut self, offset: u32, now_ns: u64) -> Result<u32, Refused> {
        let x2apic = self.mode() == Mode::X2Apic;
        Ok(match offset {
            ID if x2apic => self.id(),
            ID => self.id() << 24,
            VERSION => VERSION_VALUE,
            TPR => u32::from(self.tpr),
            APR | PPR => u32::from(self.ppr()),
            EOI | RRD => 0,
            LDR if x2apic => self.logical_id(),
            LDR => self.logical_id() << 24,
            DFR => {
                if self.flat {
                    0xFFFF_FFFF
                } else {
                    0x0FFF_FFFF
                }
            }
            SVR => self.svr,
            ISR..=ISR_LAST => self.isr.word((offset - ISR) / 0x10),
            TMR..=TMR_LAST => self.tmr.word((offset - TMR) / 0x10),
            IRR..=IRR_LAST => {
                self.expire_timer(now_ns);
                self.irr.word((offset - IRR) / 0x10)
            }
            ESR => self.esr,
            ICR => self.icr as u32,
            ICR_HIGH => (self.icr >> 32) as u32,
            LVT_TIMER..=LVT_ERROR => self.lvt[lvt_index(offset)],
            INITIAL_COUNT => self.timer.initial_count(),
            CURRENT_COUNT => {
                self.expire_timer(now_ns);
                self.timer.current_count(self.timer_mode(), now_ns)
            }
            DIVIDE => self.timer.divide_configuration(),
            _ => return Err(Refused),
        })
    }

    /// Write a register that both modes have and that takes 32 bits.
    fn write(&mut self, offset: u32, value: u32, now_ns: u64) -> Result<Effect, Refused> {
        match offset {
            TPR => self.tpr = value as u8,
            EOI => return Ok(self.end_of_interrupt().map_or(Effect::None, Effect::EoiBroadcast)),
            SVR => self.set_svr(value),
            ESR => self.esr = std::mem::take(&mut self.errors),
            LVT_TIMER..=LVT_ERROR => self.set_lvt(offset, value, now_ns),
            INITIAL_COUNT => {
                self.expire_timer(now_ns);
                self.timer.set_initial_count(self.timer_mode(), value, now_ns);
            }
            DIVIDE => {
                self.expire_timer(now_ns);
                self.timer.set_divide_configuration(self.timer_mode(), value & DIVIDE_BITS, now_ns);
            }
            // Read-only registers ignore writes in xAPIC mode.
            VERSION | APR | PPR | RRD | ISR..=IRR_LAST | CURRENT_COUNT => {}
            _ => return Err(Refused),
        }
        Ok(Effect::None)
    }

    fn set_svr(&mut self, value: u32) {
        self.svr = value & SVR_BITS;
        if !self.is_software_enabled() {
            for entry in &mut self.lvt {
                *entry |= LVT_MASKED;
            }
        }
    }

    fn set_lvt(&mut self, offset: u32, value: u32, now_ns: u64) {
        let mut entry = value & lvt_writable(offset, self.features.tsc_deadline);
        if !self.is_software_enabled() {
            entry |= LVT_MASKED;
        }
        if offset == LVT_TIMER {
            self.expire_timer(now_ns);
            self.timer.change_mode(self.timer_mode(), TimerMode::of_lvt(entry));
        }
        self.lvt[lvt_index(offset)] = entry;
    }

    /// Send what the ICR says.
    fn send_ipi(&mut self, destination: Destination) -> Effect {
        let low = self.icr as u32;
        let Some(message) = message::decode_icr(low, destination, self.vcpu) else {
            return Effect::None;
        };
        if message.mode.has_vector() && message.vector < FIRST_LEGAL_VECTOR {
            self.raise_error(ESR_SEND_ILLEGAL_VECTOR);
            return Effect::None;
        }
        Effect::Send(message)
    }
}

/// ICR: logical destination.
const ICR_LOGICAL: u32 = 1 << 11;
/// ICR: delivery status, always idle here.
const ICR_DELIVERY_STATUS: u32 = 1 << 12;
/// Divide configuration: the bits that exist.
const DIVIDE_BITS: u32 = 0b1011;

#[cfg(test)]
mod tests;
