"""Real time: virtual time tied to the wall clock.

The engine knows virtual time only, and jumps over idle time. A pacer stands above it and says how long the host has to
wait before such a jump. It never makes time pass while the guest executes, and never makes the engine jump further than
to the next timer, so a guest cannot miss anything: on a slow host its time is slow, as that of a machine which is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pacer"]

MAX_LAG_NS = 100_000_000
"""How much virtual time may be behind, and catch up by idling less. Short work does not make the guest's clock late;
after long work its timers run at their speed again, instead of all at once."""


class Pacer:
    """Compares virtual time with the wall clock; times in ns."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._start_ns = 0

    def start(self, virtual_ns: int) -> None:
        """Begin, or go on after a pause: virtual time is right at this moment."""
        self._start_ns = self._clock() - virtual_ns

    def now_ns(self) -> int:
        """What virtual time should be now."""
        return self._clock() - self._start_ns

    def ahead_ns(self, virtual_ns: int) -> int:
        """Return how long the host has to wait until it may be `virtual_ns`; 0 or less: it may be at once."""
        ahead = virtual_ns - self.now_ns()
        if ahead < -MAX_LAG_NS:
            self._start_ns -= ahead + MAX_LAG_NS
            return -MAX_LAG_NS
        return ahead
