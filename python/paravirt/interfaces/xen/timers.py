"""Timers of vCPUs: one that fires once, and one that fires again and again; both by the virtual interrupt TIMER.

Source: Xen's public/vcpu.h (VCPUOP_set_singleshot_timer and others), common/schedule.c (do_set_timer_op).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.interfaces.xen.abi import Errno, XenError
from paravirt.interfaces.xen.domain import Domain, VcpuState
from paravirt.interfaces.xen.events import VIRQ_TIMER, Events

if TYPE_CHECKING:
    from paravirt.timers import Timer

__all__ = ["VcpuTimers"]

MIN_PERIOD_NS = 1_000_000
MAX_PERIOD_NS = 1 << 62
FAR_FUTURE_NS = 1 << 50
"""Deadlines of set_timer_op behind this are taken for mistakes of a clock that has wrapped ..."""
EARLIEST_RESPONSE_NS = 100_000_000
"""... and fire after this time."""


class VcpuTimers:
    """The timers of all vCPUs."""

    def __init__(self, domain: Domain, events: Events) -> None:
        self._domain = domain
        self._events = events
        self._single: dict[int, Timer] = {}
        self._periodic: dict[int, Timer] = {}

    def reset(self) -> None:
        """Stop all."""
        for timer in (*self._single.values(), *self._periodic.values()):
            timer.cancel()
        self._single.clear()
        self._periodic.clear()

    def set_single(self, state: VcpuState, deadline_ns: int) -> None:
        """Fire once; at once if the time has passed."""
        self.stop_single(state)
        self._single[state.vcpu.index] = self._domain.machine.call_at(deadline_ns, lambda: self._fire(state))

    def stop_single(self, state: VcpuState) -> None:
        """Do not fire."""
        timer = self._single.pop(state.vcpu.index, None)
        if timer is not None:
            timer.cancel()

    def set_by_timer_op(self, state: VcpuState, deadline_ns: int) -> None:
        """set_timer_op: 0 stops the timer."""
        now = self._domain.machine.now_ns
        if deadline_ns == 0:
            self.stop_single(state)
        elif deadline_ns >> 63 or deadline_ns > now + FAR_FUTURE_NS:
            self.set_single(state, now + EARLIEST_RESPONSE_NS)
        else:
            self.set_single(state, deadline_ns)

    def set_periodic(self, state: VcpuState, period_ns: int) -> None:
        """Fire every `period_ns`. Raises XenError if that is below a millisecond, or absurd."""
        if not MIN_PERIOD_NS <= period_ns <= MAX_PERIOD_NS:
            raise XenError(Errno.EINVAL)
        self.stop_periodic(state)
        self._arm_periodic(state, self._domain.machine.now_ns + period_ns, period_ns)

    def stop_periodic(self, state: VcpuState) -> None:
        """Fire no more."""
        timer = self._periodic.pop(state.vcpu.index, None)
        if timer is not None:
            timer.cancel()

    def _arm_periodic(self, state: VcpuState, deadline_ns: int, period_ns: int) -> None:
        def fire() -> None:
            self._arm_periodic(state, deadline_ns + period_ns, period_ns)
            self._fire(state)

        self._periodic[state.vcpu.index] = self._domain.machine.call_at(deadline_ns, fire)

    def _fire(self, state: VcpuState) -> None:
        self._events.raise_virq(state, VIRQ_TIMER)
