//! What interfaces above the engine do with interrupts and time: an alarm, news of ended interrupts, and upcalls.

use vcpu::StopReason;

use crate::board::{Board, TIMER_ALARM};
use crate::deadlines::NEVER;

/// An interrupt that does not come from the local APIC, and that its task priority does not hold back: Xen's callback
/// vector, injected while a byte in guest memory says that events are pending.
#[derive(Clone, Debug, Default, Hash)]
pub struct Upcall {
    target: Option<(u8, u64)>,
    /// It has been raised and not been taken.
    raised: bool,
}

impl Upcall {
    #[inline]
    pub fn is_raised(&self) -> bool {
        self.raised
    }
}

impl Board {
    // -- alarm

    /// Stop with [`StopReason::Alarm`] at this virtual time; `None`: never.
    pub fn set_alarm(&mut self, deadline_ns: Option<u64>) {
        let timer = self.apics.len() + TIMER_ALARM;
        self.deadlines.set(timer, deadline_ns.unwrap_or(NEVER));
    }

    pub(crate) fn fire_alarm(&mut self) {
        self.set_alarm(None);
        self.notify(StopReason::Alarm);
    }

    // -- ends of interrupts

    /// Whether the end of each interrupt with this vector stops the engine with [`StopReason::EndOfInterrupt`].
    pub fn watch_end_of_interrupt(&mut self, vcpu: usize, vector: u8, watched: bool) {
        self.apics[vcpu].watch_end(vector, watched);
    }

    /// Whether interrupts with this vector end by themselves as soon as they are taken.
    pub fn set_auto_eoi(&mut self, vcpu: usize, vector: u8, enabled: bool) {
        self.apics[vcpu].set_auto_eoi(vector, enabled);
    }

    /// Interrupts may have ended at a local APIC: say so if somebody wants to know.
    #[inline]
    pub(crate) fn report_ended(&mut self, vcpu: usize) {
        while let Some(vector) = self.apics[vcpu].take_ended() {
            self.notify(StopReason::EndOfInterrupt { vcpu, vector });
        }
    }

    /// Stop for somebody above; what is waiting already is not said twice, so that the guest cannot make the list long.
    fn notify(&mut self, reason: StopReason) {
        if !self.notices.contains(&reason) {
            self.notices.push_back(reason);
        }
    }

    // -- upcalls

    /// Give a vCPU its upcall: a vector, and the guest-physical address of the byte that says whether it is wanted.
    pub fn set_upcall(&mut self, vcpu: usize, target: Option<(u8, u64)>) {
        self.upcalls[vcpu] = Upcall { target, raised: false };
        self.raise_upcall(vcpu);
    }

    /// The byte may have been set: let the vCPU take its upcall, once.
    pub fn raise_upcall(&mut self, vcpu: usize) {
        self.upcalls[vcpu].raised = self.wanted_upcall(vcpu).is_some();
        self.sync(vcpu);
    }

    /// The vector, if the upcall is raised and the guest has not cleared the byte meanwhile.
    pub(crate) fn take_upcall(&mut self, vcpu: usize) -> Option<u8> {
        if !std::mem::take(&mut self.upcalls[vcpu].raised) {
            return None;
        }
        let vector = self.wanted_upcall(vcpu);
        self.sync(vcpu);
        vector
    }

    fn wanted_upcall(&self, vcpu: usize) -> Option<u8> {
        let (vector, gpa) = self.upcalls[vcpu].target?;
        let mut pending = [0];
        self.memory.read_bytes(gpa, &mut pending).ok()?;
        (pending[0] != 0).then_some(vector)
    }

    /// RESET: nobody above has asked for anything. An alarm stays, since it is the host's.
    pub(crate) fn upcalls_reset(&mut self) {
        self.upcalls.fill(Upcall::default());
        self.notices.clear();
        for apic in &mut self.apics {
            apic.forget_watches();
        }
    }
}
