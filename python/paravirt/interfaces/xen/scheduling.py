"""sched_op: giving up the processor, waiting, and ending (public/sched.h)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from paravirt.interfaces.xen.abi import Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Caller
from paravirt.interfaces.xen.clock import BLOCKED, Clock
from paravirt.interfaces.xen.section import Section, command
from paravirt.result import StopReason

if TYPE_CHECKING:
    from paravirt.interfaces.xen.domain import Domain, VcpuState
    from paravirt.interfaces.xen.events import Events
    from paravirt.timers import Timer

__all__ = ["Scheduling", "Shutdown"]

MAX_POLLED_PORTS = 128
NUM_WATCHDOGS = 2
NS_PER_S = 10**9
RFLAGS_IF = 1 << 9
SUSPEND_CANCELLED = 1

REASON = Struct(reason="u32")
POLL = Struct(ports="ptr", nr_ports="u32", timeout="u64")
WATCHDOG = Struct(id="u32", timeout="u32")


class Shutdown(IntEnum):
    """SHUTDOWN_*: why a guest ends."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5


_REASONS: dict[int, StopReason] = {Shutdown.POWEROFF: StopReason.POWER_OFF, Shutdown.REBOOT: StopReason.RESET}
"""All others are taken for a crash: what nobody asked for must not look like success."""


class Scheduling(Section):
    """Hypercall 29."""

    def __init__(self, domain: Domain, events: Events, clock: Clock) -> None:
        super().__init__(domain)
        self._events = events
        self._clock = clock
        self._latched: int | None = None
        self._watchdogs: dict[int, Timer] = {}
        self._timeouts: dict[int, Timer] = {}

    def reset(self) -> None:
        """Nobody waits."""
        self._latched = None
        for timer in (*self._watchdogs.values(), *self._timeouts.values()):
            timer.cancel()
        self._watchdogs.clear()
        self._timeouts.clear()

    def note_call(self, state: VcpuState) -> None:
        """A vCPU makes a call, so it waits no longer."""
        state.polled = None
        timer = self._timeouts.pop(state.vcpu.index, None)
        if timer is not None:
            timer.cancel()

    @command(0)
    def yield_(self, caller: Caller, pointer: int) -> int:
        """Let others run; those at the other ends of rings have their chance, too."""
        self._events.call_services()
        return 0

    @command(1)
    def block(self, caller: Caller, pointer: int) -> int:
        """Wait for an event, or an interrupt."""
        self._wait(caller, frozenset())
        return 0

    @command(3)
    def poll(self, caller: Caller, pointer: int) -> int:
        """Wait for one of some ports, masked or not, until a time."""
        argument = caller.load(POLL, pointer)
        num_ports = argument["nr_ports"]
        if num_ports > MAX_POLLED_PORTS:
            raise XenError(Errno.EINVAL)
        data = caller.read(argument["ports"], 4 * num_ports)
        ports = frozenset(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
        if self._events.is_any_pending(ports):
            return 0
        deadline = argument["timeout"]
        if deadline:
            if deadline <= self.domain.machine.now_ns:
                return 0
            self._timeouts[caller.vcpu.index] = self.domain.machine.call_at(deadline, caller.vcpu.wake)
        self._wait(caller, ports)
        return 0

    def _wait(self, caller: Caller, ports: frozenset[int]) -> None:
        """Stop as HLT does; an event wakes also who has interrupts off. Not if an upcall would come at once."""
        vcpu = caller.vcpu
        state = self.domain.vcpus[vcpu.index]
        if self.domain.is_upcall_pending(state) and (vcpu.rflags & RFLAGS_IF or not ports):
            return
        state.polled = ports
        self._clock.enter(state, BLOCKED)
        vcpu.doze()

    # -- ending

    @command(2)
    def shutdown(self, caller: Caller, pointer: int) -> int:
        """End. Suspending is cancelled at once, since there is nobody who would resume the guest elsewhere."""
        reason = caller.load(REASON, pointer)["reason"] & 0xFF
        reason = reason if self._latched is None else self._latched
        if reason == Shutdown.SUSPEND:
            return SUSPEND_CANCELLED
        self._end(reason, caller)
        return 0

    @command(5)
    def shutdown_code(self, caller: Caller, pointer: int) -> int:
        """Latch the reason for later."""
        if self._latched is None:
            self._latched = caller.load(REASON, pointer)["reason"] & 0xFF
        return 0

    @command(6)
    def watchdog(self, caller: Caller, pointer: int) -> int:
        """End the guest unless it calls again in time. Number 0 makes a watchdog; a time of 0 seconds takes it away."""
        argument = caller.load(WATCHDOG, pointer)
        number, seconds = argument["id"], argument["timeout"]
        if number == 0:
            if not seconds:
                raise XenError(Errno.EINVAL)
            free = (number for number in range(1, NUM_WATCHDOGS + 1) if number not in self._watchdogs)
            number = next(free, 0)
            if number == 0:
                raise XenError(Errno.ENOSPC)
            self._arm(number, seconds)
            return number
        if number > NUM_WATCHDOGS:
            raise XenError(Errno.EINVAL)
        if number not in self._watchdogs:
            raise XenError(Errno.ENOENT)
        self._watchdogs.pop(number).cancel()
        if seconds:
            self._arm(number, seconds)
        return 0

    def _arm(self, number: int, seconds: int) -> None:
        machine = self.domain.machine
        self._watchdogs[number] = machine.call_at(
            machine.now_ns + seconds * NS_PER_S, lambda: machine.shut_down(StopReason.CRASH)
        )

    def _end(self, reason: int, caller: Caller) -> None:
        self.domain.machine.shut_down(_REASONS.get(reason, StopReason.CRASH), caller.vcpu)

    @command(4)
    def remote_shutdown(self, caller: Caller, pointer: int) -> int:
        """Only the domain of the tool stack may end others."""
        raise XenError(Errno.EPERM)

    @command(7)
    def pin_override(self, caller: Caller, pointer: int) -> int:
        """Only the hardware's domain may pin itself."""
        raise XenError(Errno.EPERM)
