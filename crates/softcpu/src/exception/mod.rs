//! Delivery of exceptions and interrupts through the IVT or IDT: SDM vol. 3 chapter 6.

mod long;
mod protected;
mod real;

use x86defs::{rflags, vector};

use crate::cpu::{Cpu, Fault};
use crate::engine::Env;
use crate::op::Stop;

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An exception, at the instruction's own RIP (fault) or behind it (trap: RIP has been advanced).
    Exception {
        /// Vector.
        vector: u8,
        /// Error code, if it has one.
        error_code: Option<u32>,
        /// CR2 of #PF, bits of DR6 of #DB.
        payload: u64,
    },
    /// External interrupt or NMI.
    External {
        /// Vector.
        vector: u8,
    },
}

/// A triple fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown;

/// One attempt to deliver something.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Vector.
    pub vector: u8,
    /// Error code to push.
    pub error_code: Option<u32>,
    /// RIP to push.
    pub return_rip: u64,
    /// RF is set in the flags that are pushed.
    pub resume: bool,
    /// It comes from an instruction, so the gate's DPL counts.
    pub software: bool,
    /// EXT in error codes of faults that happen meanwhile.
    pub ext: bool,
}

/// How an exception combines with another one during its delivery: SDM vol. 3 table 6-4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn class(number: u8) -> Class {
    match number {
        vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => Class::Contributory,
        vector::PF => Class::PageFault,
        vector::DF => Class::DoubleFault,
        _ => Class::Benign,
    }
}

/// What becomes of a second exception while a first one is delivered: SDM vol. 3 table 6-5.
fn combine(first: Class, second: Class) -> Result<Class, Shutdown> {
    match (first, second) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault) => Err(Shutdown),
        (Class::Contributory, Class::Contributory) | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            Ok(Class::DoubleFault)
        }
        (_, second) => Ok(second),
    }
}

/// Whether an exception is a fault, which sets RF in the flags it pushes (SDM vol. 3 section 18.3.1.1).
fn sets_resume(fault: &Fault) -> bool {
    match fault.vector {
        vector::DB => fault.payload & x86defs::dr::DR6_BD != 0,
        vector::BP | vector::OF | vector::DF | vector::MC => false,
        _ => true,
    }
}

impl Delivery {
    /// Something that is delivered behind an instruction, without error code.
    pub fn trap(vector: u8, return_rip: u64) -> Self {
        Self { vector, error_code: None, return_rip, resume: false, software: false, ext: false }
    }

    /// Error code of a fault of the IDT entry itself.
    fn idt_error(&self) -> u32 {
        u32::from(self.vector) << 3 | 2 | u32::from(self.ext)
    }
}

impl Cpu {
    /// Deliver an event; exceptions during delivery become what SDM vol. 3 table 6-5 says, up to a triple fault. An `Err(Ok(stop))`
    /// is a stop that is no fault (an IDT in device memory, say).
    pub fn deliver(&mut self, env: &mut Env<'_>, event: Event) -> Result<(), Result<Stop, Shutdown>> {
        let mut exception = match event {
            Event::Exception { vector, error_code, payload } => Some(Fault { vector, error_code, payload }),
            Event::External { .. } => None,
        };
        loop {
            let (number, error_code) = match (exception, event) {
                (Some(fault), _) => (fault.vector, fault.error_code),
                (None, Event::External { vector } | Event::Exception { vector, .. }) => (vector, None),
            };
            if let Some(fault) = exception {
                self.record_payload(&fault);
            }
            let resume = exception.is_some_and(|fault| sets_resume(&fault));
            let delivery = Delivery { error_code, resume, ext: true, ..Delivery::trap(number, self.rip) };
            let held_traps = self.debug.pending;
            let result = self.deliver_once(env, &delivery);
            if result.is_err() {
                // Breakpoints on a stack that could not be used do not count.
                self.debug.pending = held_traps;
            }
            match result {
                Ok(()) => return Ok(()),
                Err(Stop::Fault) => {}
                Err(stop) => return Err(Ok(stop)),
            }
            let second = self.fault;
            let first = exception.map_or(Class::Benign, |fault| class(fault.vector));
            exception = Some(match combine(first, class(second.vector)).map_err(Err)? {
                Class::DoubleFault => {
                    self.record_payload(&second);
                    Fault { vector: vector::DF, error_code: Some(0), payload: 0 }
                }
                _ => second,
            });
        }
    }

    /// What an exception leaves in CR2 or DR6, whether or not its handler is reached.
    fn record_payload(&mut self, fault: &Fault) {
        match fault.vector {
            vector::PF => self.cr2 = fault.payload,
            vector::DB => self.debug.record(fault.payload),
            _ => {}
        }
    }

    /// Try to deliver: either everything happens or, on a fault, nothing that the program can see (but for what a task switch
    /// has done already).
    pub fn deliver_once(&mut self, env: &mut Env<'_>, delivery: &Delivery) -> Result<(), Stop> {
        if self.cr0 & x86defs::cr::CR0_PE == 0 {
            self.deliver_real(env, delivery)
        } else if self.long_mode() {
            self.deliver_long(env, delivery)
        } else {
            self.deliver_protected(env, delivery)
        }
    }

    /// RFLAGS as an event pushes them.
    fn pushed_flags(&self, delivery: &Delivery) -> u64 {
        if delivery.resume { self.rflags() | rflags::RF } else { self.rflags() }
    }

    /// RFLAGS in a handler behind a gate; an interrupt gate keeps other interrupts out, a trap gate does not.
    fn handler_flags(&self, interrupt_gate: bool) -> u64 {
        let cleared = rflags::TF | rflags::NT | rflags::RF | rflags::VM | if interrupt_gate { rflags::IF } else { 0 };
        self.rflags() & !cleared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::CS;
    use crate::testing::Machine;

    #[test]
    fn the_table_of_double_faults() {
        use Class::*;
        for (first, second, expected) in [
            (Benign, Benign, Ok(Benign)),
            (Benign, Contributory, Ok(Contributory)),
            (Benign, PageFault, Ok(PageFault)),
            (Contributory, Benign, Ok(Benign)),
            (Contributory, Contributory, Ok(DoubleFault)),
            (Contributory, PageFault, Ok(PageFault)),
            (PageFault, Benign, Ok(Benign)),
            (PageFault, Contributory, Ok(DoubleFault)),
            (PageFault, PageFault, Ok(DoubleFault)),
            (DoubleFault, Benign, Ok(Benign)),
            (DoubleFault, Contributory, Err(Shutdown)),
            (DoubleFault, PageFault, Err(Shutdown)),
        ] {
            assert_eq!(combine(first, second), expected, "{first:?} then {second:?}");
        }
    }

    /// A 32-bit interrupt gate to 8:offset.
    fn gate(machine: &mut Machine, number: u64, low: u64) {
        machine.store64(Machine::IDT + 8 * number, low);
    }

    fn general_protection() -> Event {
        Event::Exception { vector: vector::GP, error_code: Some(0x18), payload: 0 }
    }

    #[test]
    fn a_missing_handler_makes_a_double_fault_and_then_a_triple_fault() {
        let mut machine = Machine::protected32();
        gate(&mut machine, 8, 0x0000_8E00_0008_0888);
        machine.with(|cpu, env| cpu.deliver(env, general_protection())).expect("the double fault handler");
        assert_eq!((machine.cpu.rip, machine.load32(0x8000 - 16)), (0x888, 0), "error code 0");
        gate(&mut machine, 8, 0);
        let result = machine.with(|cpu, env| cpu.deliver(env, general_protection()));
        assert_eq!(result, Err(Err(Shutdown)));
    }

    #[test]
    fn a_fault_of_an_external_interrupt_has_ext() {
        let mut machine = Machine::protected32();
        gate(&mut machine, 13, 0x0000_8E00_0008_0DDD);
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x40 })).expect("#GP handler");
        assert_eq!((machine.cpu.rip, machine.load32(machine.cpu.regs[4])), (0xDDD, 0x40 << 3 | 3));
        assert_eq!(machine.cpu.seg(CS).selector, 8);
    }

    #[test]
    fn page_faults_set_cr2_and_rf() {
        let mut machine = Machine::protected32();
        gate(&mut machine, 14, 0x0000_8E00_0008_0EEE);
        let event = Event::Exception { vector: vector::PF, error_code: Some(2), payload: 0x1234_5000 };
        machine.cpu.set_rflags(rflags::TF | rflags::IF | rflags::NT);
        machine.with(|cpu, env| cpu.deliver(env, event)).expect("#PF handler");
        let cpu = &machine.cpu;
        assert_eq!((cpu.cr2, cpu.rflags()), (0x1234_5000, rflags::FIXED));
        let frame: Vec<u32> = (0..4).map(|i| machine.load32(cpu.regs[4] + 4 * i)).collect();
        assert_eq!(frame, [2, 0x100, 8, 0x1_4302]);
    }
}
