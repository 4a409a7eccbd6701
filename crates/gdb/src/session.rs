//! One connection of gdb: bytes in, bytes out, and what it wants.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine as Protocol;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};

use crate::target::{Debuggee, Resume, Threads, thread};

/// Largest packet: a page in hexadecimal, and some.
const PACKET_BYTES: usize = 16 << 10;

/// What ends a packet, before its checksum.
const PACKET_END: u8 = b'#';

/// The protocol was violated: the session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError(pub String);

/// How gdb ended the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The machine is to run on without it.
    Detached,
    /// The machine is to end.
    Killed,
    /// The machine has ended, and gdb knows.
    Exited,
}

/// What gdb waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The machine stands still, gdb asks.
    Stopped,
    /// The machine is to run. `interrupt`: gdb wants it to stop (Ctrl-C).
    Running {
        /// How.
        resume: Resume,
        /// Whether it is to stop soon.
        interrupt: bool,
    },
    /// The session is over.
    Ended(Ended),
}

/// Why the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is at a breakpoint.
    Breakpoint {
        /// Which vCPU.
        vcpu: usize,
        /// Its linear RIP.
        gva: u64,
    },
    /// A signal, by gdb's number, shows best what happened: 2 interrupted, 5 stepped, 11 a fault.
    Signal {
        /// Which vCPU.
        vcpu: usize,
        /// gdb's number.
        signal: u8,
    },
    /// The machine has ended with this status.
    Exited(u8),
}

/// What has been written and not been taken.
#[derive(Default)]
struct Output(Vec<u8>);

impl Connection for Output {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.0.push(byte);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A session, from connecting to the end.
pub struct Session<D: Debuggee> {
    threads: Threads<D>,
    /// `None`: the protocol was violated.
    protocol: Option<Protocol<'static, Threads<D>, Output>>,
    interrupt: bool,
    /// Bytes since a packet's end. The stub's buffer grows with a packet, however long.
    unfinished: usize,
}

impl<D: Debuggee> Session<D> {
    /// gdb has connected; the machine stands still.
    ///
    /// # Errors
    /// None that could be named: `gdbstub` checks what it is made from.
    pub fn new(debuggee: D) -> Result<Self, ProtocolError> {
        let mut threads = Threads::new(debuggee);
        let protocol = GdbStub::builder(Output::default())
            .packet_buffer_size(PACKET_BYTES)
            .build()
            .map_err(|error| ProtocolError(error.to_string()))?
            .run_state_machine(&mut threads)
            .map_err(|error| ProtocolError(error.to_string()))?;
        Ok(Self { threads, protocol: Some(protocol), interrupt: false, unfinished: 0 })
    }

    /// Bytes have come from gdb.
    ///
    /// # Errors
    /// If they are not its protocol. The session is over then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        bytes.iter().try_for_each(|&byte| {
            self.unfinished = if byte == PACKET_END { 0 } else { self.unfinished + 1 };
            if self.unfinished > PACKET_BYTES {
                self.protocol = None;
            }
            self.advance(|threads, protocol| feed_byte(threads, protocol, byte))
        })
    }

    /// The machine has stopped. Nothing happens unless it was to run.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn report(&mut self, stop: Stop) -> Result<(), ProtocolError> {
        self.interrupt = false;
        self.advance(|threads, protocol| {
            let reason = reason_of(threads, stop);
            match protocol {
                Protocol::Running(running) => running.report_stop(threads, reason).map_err(describe),
                other => Ok(other),
            }
        })
    }

    /// What gdb waits for now; `None` after a violation of the protocol.
    pub fn state(&self) -> Option<State> {
        Some(match self.protocol.as_ref()? {
            Protocol::Idle(_) | Protocol::CtrlCInterrupt(_) => State::Stopped,
            Protocol::Running(_) => State::Running { resume: self.threads.resume, interrupt: self.interrupt },
            Protocol::Disconnected(end) => State::Ended(match end.get_reason() {
                DisconnectReason::Disconnect => Ended::Detached,
                DisconnectReason::Kill => Ended::Killed,
                DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_) => Ended::Exited,
            }),
        })
    }

    /// What is to be sent to gdb since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        let output = match &mut self.protocol {
            Some(Protocol::Idle(inner)) => inner.borrow_conn(),
            Some(Protocol::Running(inner)) => inner.borrow_conn(),
            Some(Protocol::CtrlCInterrupt(inner)) => inner.borrow_conn(),
            Some(Protocol::Disconnected(inner)) => inner.borrow_conn(),
            None => return Vec::new(),
        };
        std::mem::take(&mut output.0)
    }

    /// Take gdb's breakpoints away: it has gone.
    pub fn clear(&mut self) {
        self.threads.clear();
    }

    /// The machine.
    pub fn debuggee(&mut self) -> &mut D {
        &mut self.threads.debuggee
    }

    /// Let the protocol do something. Whoever is at the other end must not bring the process down, so a panic of it is a
    /// violation as any other.
    fn advance(
        &mut self,
        f: impl FnOnce(&mut Threads<D>, Protocol<'static, Threads<D>, Output>) -> Result<Advanced<D>, ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let Some(protocol) = self.protocol.take() else { return Err(ProtocolError("the session is over".into())) };
        let threads = &mut self.threads;
        let next = catch_unwind(AssertUnwindSafe(|| f(threads, protocol)))
            .unwrap_or_else(|_| Err(ProtocolError("the stub has failed".into())))?;
        self.protocol = Some(match next {
            // Nothing is told yet: whoever runs the machine stops it, and reports.
            Protocol::CtrlCInterrupt(interrupted) => {
                self.interrupt = true;
                let nothing = None::<MultiThreadStopReason<u64>>;
                interrupted.interrupt_handled(threads, nothing).map_err(describe)?
            }
            other => other,
        });
        Ok(())
    }
}

type Advanced<D> = Protocol<'static, Threads<D>, Output>;

fn feed_byte<D: Debuggee>(
    threads: &mut Threads<D>,
    protocol: Advanced<D>,
    byte: u8,
) -> Result<Advanced<D>, ProtocolError> {
    match protocol {
        Protocol::Idle(idle) => idle.incoming_data(threads, byte).map_err(describe),
        Protocol::Running(running) => running.incoming_data(threads, byte).map_err(describe),
        other => Ok(other),
    }
}

fn describe(error: impl std::fmt::Display) -> ProtocolError {
    ProtocolError(error.to_string())
}

fn reason_of<D: Debuggee>(threads: &Threads<D>, stop: Stop) -> MultiThreadStopReason<u64> {
    match stop {
        Stop::Breakpoint { vcpu, gva } if threads.software.contains(&gva) => {
            MultiThreadStopReason::SwBreak(thread(vcpu))
        }
        Stop::Breakpoint { vcpu, gva } if threads.hardware.contains(&gva) => {
            MultiThreadStopReason::HwBreak(thread(vcpu))
        }
        Stop::Breakpoint { vcpu, .. } => {
            MultiThreadStopReason::SignalWithThread { tid: thread(vcpu), signal: Signal::SIGTRAP }
        }
        Stop::Signal { vcpu, signal } => {
            MultiThreadStopReason::SignalWithThread { tid: thread(vcpu), signal: Signal(signal) }
        }
        Stop::Exited(status) => MultiThreadStopReason::Exited(status),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vcpu::Register;

    use super::*;

    const PAGE: u64 = 0x1000;

    /// Two vCPUs with one page of memory at [`PAGE`].
    struct Toy {
        registers: BTreeMap<(usize, u8), u64>,
        image: Vec<u8>,
        memory: Vec<u8>,
        breakpoints: Vec<u64>,
    }

    impl Toy {
        fn new() -> Self {
            Self { registers: BTreeMap::new(), image: vec![0; 576], memory: vec![0; 4096], breakpoints: Vec::new() }
        }

        fn range(&self, gva: u64, len: usize) -> Option<std::ops::Range<usize>> {
            let start = usize::try_from(gva.checked_sub(PAGE)?).ok()?;
            (start < self.memory.len()).then(|| start..self.memory.len().min(start + len))
        }
    }

    impl Debuggee for Toy {
        fn num_vcpus(&self) -> usize {
            2
        }
        fn register(&self, vcpu: usize, register: Register) -> u64 {
            self.registers.get(&(vcpu, register as u8)).copied().unwrap_or(0)
        }
        fn set_register(&mut self, vcpu: usize, register: Register, value: u64) -> bool {
            self.registers.insert((vcpu, register as u8), value);
            register != Register::Cr0
        }
        fn msr(&mut self, _vcpu: usize, _index: u32) -> Option<u64> {
            None
        }
        fn set_msr(&mut self, _vcpu: usize, _index: u32, _value: u64) -> bool {
            false
        }
        fn extended_state(&self, _vcpu: usize) -> Vec<u8> {
            self.image.clone()
        }
        fn set_extended_state(&mut self, _vcpu: usize, image: &[u8]) -> bool {
            self.image = image.to_vec();
            true
        }
        fn read_memory(&mut self, _vcpu: usize, gva: u64, data: &mut [u8]) -> usize {
            let Some(range) = self.range(gva, data.len()) else { return 0 };
            data[..range.len()].copy_from_slice(&self.memory[range.clone()]);
            range.len()
        }
        fn write_memory(&mut self, _vcpu: usize, gva: u64, data: &[u8]) -> bool {
            let Some(range) = self.range(gva, data.len()).filter(|range| range.len() == data.len()) else {
                return false;
            };
            self.memory[range].copy_from_slice(data);
            true
        }
        fn insert_breakpoint(&mut self, gva: u64) {
            self.breakpoints.push(gva);
        }
        fn remove_breakpoint(&mut self, gva: u64) {
            self.breakpoints.retain(|&other| other != gva);
        }
        fn monitor(&mut self, command: &str) -> String {
            format!("you said {command}\n")
        }
        fn describe(&self, vcpu: usize) -> String {
            format!("cpu{vcpu} halted")
        }
    }

    /// Undo run-length encoding: `*` and a character repeat what stands before them (gdb manual, "Overview" of its protocol).
    fn expand(packet: &str) -> String {
        let mut text = String::new();
        let mut rest = packet.chars();
        while let Some(character) = rest.next() {
            match character {
                '*' => {
                    let count = rest.next().unwrap() as usize - 29;
                    let last = text.chars().last().unwrap();
                    text.extend(std::iter::repeat_n(last, count));
                }
                other => text.push(other),
            }
        }
        text
    }

    /// gdb's end.
    struct Gdb(Session<Toy>);

    impl Gdb {
        fn connect() -> Self {
            let mut gdb = Self(Session::new(Toy::new()).unwrap());
            gdb.ask("qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+");
            gdb.ask("?");
            gdb
        }

        fn send(&mut self, packet: &str) {
            let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
            self.0.feed(format!("${packet}#{sum:02x}").as_bytes()).unwrap();
        }

        /// The answer without acknowledgement and checksum.
        fn answer(&mut self) -> String {
            let output = String::from_utf8(self.0.take_output()).unwrap();
            let start = output.find('$').map_or(output.len(), |at| at + 1);
            expand(output[start..].split('#').next().unwrap_or(""))
        }

        fn ask(&mut self, packet: &str) -> String {
            self.send(packet);
            let answer = self.answer();
            self.0.feed(b"+").unwrap();
            answer
        }

        fn resume(&mut self) -> Resume {
            match self.0.state() {
                Some(State::Running { resume, interrupt: false }) => resume,
                other => panic!("not running: {other:?}"),
            }
        }
    }

    #[test]
    fn the_description_names_every_register_in_order() {
        let mut gdb = Gdb::connect();
        let mut xml = String::new();
        loop {
            let part = gdb.ask(&format!("qXfer:features:read:target.xml:{:x},1000", xml.len()));
            xml += &part[1..];
            if part.starts_with('l') {
                break;
            }
        }
        let names: Vec<_> = xml.split("<reg name=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!((names.len(), names[16], names[24]), (69, "rip", "st0"));
        assert_eq!(gdb.ask("g").len() / 2, 17 * 8 + 7 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 2 * 8 + 10 * 8);
    }

    #[test]
    fn registers_one_by_one_and_all_at_once() {
        let mut gdb = Gdb::connect();
        assert_eq!(gdb.ask("Hgp1.2"), "OK");
        assert_eq!(gdb.ask("P10=8877665544332211"), "OK");
        assert_eq!(gdb.0.debuggee().register(1, Register::Rip), 0x1122_3344_5566_7788);
        let all = gdb.ask("g");
        assert_eq!(&all[16 * 16..17 * 16], "8877665544332211");
        // Only what differs is written: CR0 refuses everything.
        assert_eq!(gdb.ask(&format!("G01{}", &all[2..])), "OK");
        assert_eq!(gdb.0.debuggee().register(1, Register::Rax), 1);
        assert_eq!(gdb.ask("Pff=00"), "");
        assert_eq!(gdb.ask("P0=00"), "E79", "too short");
    }

    #[test]
    fn a_vector_register_is_in_use_when_it_is_set() {
        let mut gdb = Gdb::connect();
        assert_eq!(gdb.ask("P29=0102030405060708090a0b0c0d0e0f10"), "OK"); // xmm1
        let image = &gdb.0.debuggee().image;
        assert_eq!((image[176], image[191], image[512]), (0x01, 0x10, 0b11));
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let mut gdb = Gdb::connect();
        assert_eq!(gdb.ask("M1ffe,2:abcd"), "OK");
        assert_eq!(gdb.ask("m1ffe,4"), "abcd");
        assert_eq!(gdb.ask("M1ffe,4:01020304"), "E79");
        assert_eq!(gdb.ask("m0,4"), "E79");
    }

    #[test]
    fn both_kinds_of_breakpoints_are_one_of_the_machine() {
        let mut gdb = Gdb::connect();
        assert_eq!(gdb.ask("Z0,1000,1"), "OK");
        assert_eq!(gdb.ask("Z1,1000,1"), "OK");
        assert_eq!(gdb.0.debuggee().breakpoints, [0x1000]);
        assert_eq!(gdb.ask("z0,1000,1"), "OK");
        assert_eq!(gdb.0.debuggee().breakpoints, [0x1000]);
        gdb.send("vCont;c");
        gdb.0.report(Stop::Breakpoint { vcpu: 1, gva: 0x1000 }).unwrap();
        assert!(gdb.answer().contains("hwbreak"));
        gdb.0.clear();
        assert!(gdb.0.debuggee().breakpoints.is_empty());
    }

    #[test]
    fn ways_to_go_on() {
        for (packet, resume) in [
            ("vCont;c", Resume::default()),
            ("vCont;s:p1.2;c", Resume { step: Some(1), ..Resume::default() }),
            ("vCont;s:p1.1", Resume { step: Some(0), alone: true, range: None }),
            ("vCont;r1000,1010:p1.1;c", Resume { step: Some(0), range: Some((0x1000, 0x1010)), alone: false }),
            ("vCont;c:p1.2", Resume { step: Some(1), range: Some((0, u64::MAX)), alone: true }),
        ] {
            let mut gdb = Gdb::connect();
            gdb.send(packet);
            assert_eq!(gdb.resume(), resume, "{packet}");
            gdb.answer();
            gdb.0.report(Stop::Signal { vcpu: 1, signal: 5 }).unwrap();
            assert!(gdb.answer().starts_with("T05thread:p01.02"));
            assert_eq!(gdb.0.state(), Some(State::Stopped));
        }
    }

    #[test]
    fn interrupted_while_running() {
        let mut gdb = Gdb::connect();
        gdb.send("vCont;c");
        gdb.0.feed(b"\x03").unwrap();
        assert!(matches!(gdb.0.state(), Some(State::Running { interrupt: true, .. })));
        gdb.0.report(Stop::Signal { vcpu: 0, signal: 2 }).unwrap();
        assert_eq!(gdb.0.state(), Some(State::Stopped));
    }

    #[test]
    fn threads_and_the_monitor() {
        let mut gdb = Gdb::connect();
        assert_eq!(gdb.ask("qfThreadInfo"), "mp01.01,p01.02");
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(gdb.ask("qThreadExtraInfo,p1.2"), hex("cpu1 halted"));
        assert!(gdb.ask(&format!("qRcmd,{}", hex("info"))).contains(&hex("you said info")));
        assert_eq!(gdb.ask("Hgp1.9"), "OK");
        assert_eq!(gdb.ask("g"), "E79", "there is no ninth vCPU");
    }

    #[test]
    fn ends() {
        for (packet, ended) in [("D;1", Ended::Detached), ("k", Ended::Killed)] {
            let mut gdb = Gdb::connect();
            gdb.send(packet);
            assert_eq!(gdb.0.state(), Some(State::Ended(ended)));
        }
        let mut gdb = Gdb::connect();
        gdb.send("vCont;c");
        gdb.answer();
        gdb.0.report(Stop::Exited(3)).unwrap();
        assert_eq!(gdb.answer(), "W03");
        assert_eq!(gdb.0.state(), Some(State::Ended(Ended::Exited)));
    }

    #[test]
    fn nonsense_ends_the_session_and_nothing_else() {
        // SplitMix64, as fair a client as any.
        let mut seed = 1_u64;
        for _ in 0..3000 {
            let mut gdb = Gdb::connect();
            let starts =
                ["m", "M", "g", "G", "P", "p", "Z0,", "z1,", "vCont;", "H", "q", "qXfer:", "X", "T", "v", "Q", ""];
            for _ in 0..8 {
                seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                let start = starts[(seed >> 33) as usize % starts.len()];
                let letters = b"0123456789abcdef,;:-=.+*}ffffffff$#\x03";
                let rest: Vec<u8> =
                    (0..seed >> 59).map(|i| letters[(seed >> (i + 7)) as usize % letters.len()]).collect();
                let packet = [start.as_bytes(), &rest].concat();
                let sum = packet.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
                let framed = [b"$", packet.as_slice(), format!("#{sum:02x}").as_bytes()].concat();
                if gdb.0.feed(&framed).is_err() {
                    assert_eq!(gdb.0.state(), None);
                    assert!(gdb.0.feed(b"$?#3f").is_err());
                }
                gdb.0.take_output();
            }
        }
    }

    #[test]
    fn a_packet_without_end_ends_the_session() {
        let mut session = Session::new(Toy::new()).unwrap();
        assert!(session.feed(b"$m0,").is_ok());
        assert!(session.feed(&[b'a'; 2 * PACKET_BYTES]).is_err());
        assert_eq!(session.state(), None);
    }
}
