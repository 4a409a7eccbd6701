"""What a run loop does for the world outside while a guest runs: serve input, and hold virtual time to the wall clock.

Without input and real time there is nothing to do, and the engine runs from exit to exit undisturbed. With them the
loop looks up every millisecond of guest work or so, and idle time exits instead of being skipped: then the host sleeps
as long as the guest does, or until input comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.host_events import HostEvents
from paravirt.pacing import Pacer

if TYPE_CHECKING:
    from paravirt import _native

__all__ = ["Attendant"]

LOOK_INSTRUCTIONS = 1_000_000
"""How often to look for input while the guest is busy: a few milliseconds of the host's time."""
SOON_INSTRUCTIONS = 20_000
"""How soon to look again when there was input: more may be there than the guest could take at once."""
FOR_EVER = (1 << 64) - 1
NS_PER_S = 10**9


class Attendant:
    """Watches over one machine's run loop. events: who is served. pacer: None for virtual time."""

    def __init__(self, vm: _native.Vm, events: HostEvents, pacer: Pacer | None) -> None:
        self._vm = vm
        self._events = events
        self._pacer = pacer
        self._next_look: int | None = None

    def begin(self) -> None:
        """A run begins."""
        if self._pacer is not None:
            self._pacer.start(self._vm.now_ns())
        self._plan()

    def left(self, instructions: int) -> int | None:
        """How many instructions may run until `look` is due, if so many have retired; None if it never is."""
        return None if self._next_look is None else max(self._next_look - instructions, 0)

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to look after."""
        return self._next_look is not None

    def look(self) -> None:
        """Serve input; wait for the wall clock if the guest's work has overtaken it."""
        if self._next_look is None:
            return
        ahead_ns = 0 if self._pacer is None else self._pacer.ahead_ns(self._vm.now_ns())
        had_input = self._events.poll(max(ahead_ns, 0) / NS_PER_S)
        self._plan(SOON_INSTRUCTIONS if had_input else LOOK_INSTRUCTIONS)

    def idle(self, until_ns: int) -> bool:
        """Every vCPU sleeps until then: wait for that in real time, and let virtual time pass as far as it came.

        Returns False if nothing can ever wake one."""
        if until_ns == FOR_EVER:
            if not self._events.can_happen:
                return False
            self._events.poll(None)
        elif not self._events.poll(self._wait_s(until_ns)):
            self._vm.pass_time(max(until_ns, self._vm.now_ns() + 1))
            return True
        if self._pacer is not None:
            self._vm.pass_time(min(self._pacer.now_ns(), until_ns))
        self._plan(SOON_INSTRUCTIONS)
        return True

    def _wait_s(self, until_ns: int) -> float:
        if self._pacer is None:
            return 0
        return max(self._pacer.ahead_ns(until_ns), 0) / NS_PER_S

    def _plan(self, instructions: int = LOOK_INSTRUCTIONS) -> None:
        is_needed = self._pacer is not None or bool(self._events)
        self._vm.intercept_idle(is_needed)
        self._next_look = self._vm.instructions() + instructions if is_needed else None
