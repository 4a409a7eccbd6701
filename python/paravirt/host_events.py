"""What happens on the host while a guest runs: input on descriptors, and somebody who wants the run loop to look up."""

from __future__ import annotations

import select
import time
from typing import Protocol

__all__ = ["HostEvents", "Watcher"]

WAKE_MS = 50
"""The longest that `HostEvents.wake` from another thread goes unnoticed by somebody who waits."""


class Watcher(Protocol):
    """Somebody who waits for input while a machine runs."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def work(self) -> bool:
        """Do what can be done without new input. Returns whether anything was."""

    @property
    def is_waiting(self) -> bool:
        """Whether more input is wanted now."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will come any more: it is watched no longer."""

    def ready(self) -> None:
        """Read; called when that does not block."""


class HostEvents:
    """Watches descriptors for a run loop, which calls `poll` now and then, and when it has nothing else to do."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._is_woken = False

    def watch(self, watcher: Watcher) -> None:
        """Watch somebody's descriptor until `unwatch`, or until it is over."""
        if watcher not in self._watchers:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Watch it no longer. Does nothing if it is not watched."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def __bool__(self) -> bool:
        return bool(self._watchers)

    @property
    def can_happen(self) -> bool:
        """Whether waiting can ever end."""
        return self._is_woken or any(watcher.is_waiting for watcher in self._watchers)

    def wake(self) -> None:
        """From another thread: end a `poll` that waits, or the next one, soon."""
        self._is_woken = True

    def poll(self, timeout_s: float | None) -> bool:
        """Serve whoever has input; wait for that at most `timeout_s` seconds, for ever if None, not at all if 0.

        Returns whether anything happened. What a watcher raises comes out, and KeyboardInterrupt.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._is_woken or self._work():
                self._is_woken = False
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if self._serve(WAKE_MS if left is None else min(max(left * 1000, 0), WAKE_MS)):
                return True
            if left is not None and left <= 0:
                return False

    def _work(self) -> bool:
        """Let everybody do what is left to do, and forget those that are over."""
        results = [watcher.work() for watcher in tuple(self._watchers)]
        self._watchers = [watcher for watcher in self._watchers if not watcher.is_over]
        return any(results)

    def _serve(self, timeout_ms: float) -> bool:
        waiting = {watcher.fileno(): watcher for watcher in self._watchers if watcher.is_waiting}
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        ready = poll.poll(timeout_ms)
        for fd, _events in ready:
            waiting[fd].ready()
        if ready:
            self._work()
        return bool(ready)
