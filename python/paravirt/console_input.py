"""Input for the guest's serial port from a descriptor of the host."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt import _native

__all__ = ["ConsoleInput"]

READ_BYTES = 4096
MAX_PENDING = 64 << 10
"""Typed ahead of a guest that does not read: more stays with the host."""


class ConsoleInput:
    """Passes what arrives on a descriptor to serial port 1, never more than the guest takes.

    keys: looks at what is typed first and returns what is the guest's, also while that does not listen. Without it
    nothing is read that the guest would not take, so a program that shares the descriptor finds the rest.
    """

    def __init__(self, vm: _native.Vm, fd: int, keys: Callable[[bytes], bytes] | None = None) -> None:
        self._vm = vm
        self._fd = fd
        self._keys = keys
        self._pending = bytearray()
        self._has_ended = False

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    @property
    def is_waiting(self) -> bool:
        """Whether to read more."""
        if self._has_ended:
            return False
        if self._keys is not None:
            return len(self._pending) < MAX_PENDING
        return not self._pending and self._vm.console_room() > 0

    @property
    def is_over(self) -> bool:
        """Whether all input is read and with the guest."""
        return self._has_ended and not self._pending

    def work(self) -> bool:
        """Give the guest what it takes."""
        room = self._vm.console_room() if self._pending else 0
        if not room:
            return False
        self._vm.console_input(bytes(self._pending[:room]))
        del self._pending[:room]
        return True

    def ready(self) -> None:
        """Read once. The end of the file, and a terminal that has gone, only end the input."""
        data = b""
        try:
            data = os.read(self._fd, READ_BYTES if self._keys else self._vm.console_room())
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            # A directory, or a terminal that hung up: there is nothing to read and never will be.
        if not data:
            self._has_ended = True
        self._pending += data if self._keys is None else self._keys(data)

    def __repr__(self) -> str:
        return f"<ConsoleInput from descriptor {self._fd}>"
