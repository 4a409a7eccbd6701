"""A command on a terminal of its own, as a user sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

TIMEOUT_S = 120


class PseudoTerminal:
    """Runs `paravirt` with its stdin, stdout and stderr on a new terminal."""

    def __init__(self, arguments: Sequence[object]) -> None:
        self._master, self.slave = pty.openpty()
        self.attributes = termios.tcgetattr(self.slave)
        self.seen = b""
        self._searched = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paravirt", *map(str, arguments)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=self._make_controlling,
        )

    def _make_controlling(self) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        # A shell's background jobs ignore it, and so would the command.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def expect(self, text: bytes) -> bytes:
        """Wait until a text shows behind what was waited for last; returns what came before it."""
        deadline = time.monotonic() + TIMEOUT_S
        while (found := self.seen.find(text, self._searched)) < 0:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen[self._searched :]!r}"
            assert self._read() or self.process.poll() is None, f"ended without {text!r}: {self.seen!r}"
        before = self.seen[self._searched : found]
        self._searched = found + len(text)
        return before

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.1)[0]:
            return False
        data = os.read(self._master, 65536)
        self.seen += data
        return bool(data)

    def wait(self) -> int:
        """Wait for the command's end; returns its status, with the terminal as it was before."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        while self._read():
            pass
        assert termios.tcgetattr(self.slave) == self.attributes, "the terminal is not restored"
        return self.process.wait(timeout=1)

    def hang_up(self) -> int:
        """Take the terminal away; returns the command's status."""
        os.close(self._master)
        self._master = -1
        return self.process.wait(timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        if self._master >= 0:
            os.close(self._master)
