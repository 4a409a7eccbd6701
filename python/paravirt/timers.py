"""Timers of the host in virtual time: functions that a machine calls when the guest's time has come that far."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt import _native
    from paravirt._native import Exit

__all__ = ["Timer", "Timers"]


class Timer:
    """A function that will be called once, unless it is cancelled before. deadline_ns: in ns of virtual time."""

    __slots__ = ("_sequence", "deadline_ns", "function")

    def __init__(self, deadline_ns: int, sequence: int, function: Callable[[], object]) -> None:
        self.deadline_ns = deadline_ns
        self._sequence = sequence
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Do not call it. Does nothing after it was called."""
        self.function = None

    @property
    def is_pending(self) -> bool:
        """Whether it will still be called."""
        return self.function is not None

    def __lt__(self, other: Timer) -> bool:
        return (self.deadline_ns, self._sequence) < (other.deadline_ns, other._sequence)

    def __repr__(self) -> str:
        return f"<Timer at {self.deadline_ns} ns{'' if self.is_pending else ', over'}>"


class Timers:
    """All timers of a machine. Those with the same deadline are called in the order in which they were made."""

    def __init__(self, vm: _native.Vm) -> None:
        self._vm = vm
        self._heap: list[Timer] = []
        self._made = 0

    def call_at(self, deadline_ns: int, function: Callable[[], object]) -> Timer:
        """Make a timer. One whose time has passed is called at the next instruction."""
        self._made += 1
        timer = Timer(deadline_ns, self._made, function)
        heapq.heappush(self._heap, timer)
        if len(self._heap) > _TIDY_ABOVE and len(self._heap) > 2 * sum(other.is_pending for other in self._heap):
            self._heap = [other for other in self._heap if other.is_pending]
            heapq.heapify(self._heap)
        self._arm()
        return timer

    def on_alarm(self, _exit: Exit) -> None:
        """Call what is due, then wait for the next."""
        now = self._vm.now_ns()
        while self._heap and self._heap[0].deadline_ns <= now:
            timer = heapq.heappop(self._heap)
            function, timer.function = timer.function, None
            if function is not None:
                function()
        self._arm()

    def _arm(self) -> None:
        while self._heap and not self._heap[0].is_pending:
            heapq.heappop(self._heap)
        self._vm.set_alarm(self._heap[0].deadline_ns if self._heap else None)


_TIDY_ABOVE = 256
"""A guest that sets a timer again and again leaves cancelled ones behind; more than so many are looked through."""
