"""The user's terminal as the guest's: raw while it runs, restored whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["ESCAPE", "EscapeKeys", "TerminalClosed", "is_interactive", "raw_terminal"]

ESCAPE = 0x01
"""Ctrl-A, as in QEMU."""

LOCAL_FLAGS = 3
"""Index of a terminal's local flags in what `termios.tcgetattr` returns, as all below."""
INPUT_FLAGS, OUTPUT_FLAGS, CONTROL_FLAGS, CONTROL_CHARACTERS = 0, 1, 2, 6


class TerminalClosed(Exception):
    """A signal asks the process to end. signum: which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.strsignal(signum))
        self.signum = signum


class EscapeKeys:
    """Finds commands in what is typed: Ctrl-A and a letter. All else is the guest's, and Ctrl-A Ctrl-A is one of its.

    commands: by the letter, lower case. A letter that is no command is dropped with its Ctrl-A, as QEMU does.
    """

    def __init__(self, commands: Mapping[str, Callable[[], object]]) -> None:
        self._commands = {ord(letter): command for letter, command in commands.items()}
        self._is_escaped = False

    def __call__(self, typed: bytes) -> bytes:
        """Return what of it the guest gets, having called what it commands."""
        passed = bytearray()
        for byte in typed:
            if self._is_escaped:
                self._is_escaped = False
                if byte == ESCAPE:
                    passed.append(byte)
                elif command := self._commands.get(byte | 0x20):
                    command()
            elif byte == ESCAPE:
                self._is_escaped = True
            else:
                passed.append(byte)
        return bytes(passed)


def is_interactive() -> bool:
    """Whether a user sits there: stdin and stdout are terminals, and we are not in the background."""
    try:
        return (
            sys.stdin is not None
            and sys.stdout is not None
            and os.isatty(sys.stdin.fileno())
            and os.isatty(sys.stdout.fileno())
            and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
        )
    except (OSError, ValueError):  # Closed, or no stream of the system's.
        return False


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Pass every key on: no echo, no lines, no signals from the keyboard.

    The terminal is as before when this ends, and while the process is stopped. SIGTERM and SIGHUP raise
    TerminalClosed, so that it is also when they end the process.
    """
    saved = termios.tcgetattr(fd)
    raw = _raw(saved)

    def set_to(attributes: list[Any]) -> None:
        with suppress(termios.error):  # A terminal that has gone; SIGHUP comes then, and SIGCONT with it.
            termios.tcsetattr(fd, termios.TCSANOW, attributes)

    def close(signum: int, _frame: FrameType | None) -> None:
        raise TerminalClosed(signum)

    def suspend(_signum: int, _frame: FrameType | None) -> None:
        set_to(saved)
        os.kill(os.getpid(), signal.SIGSTOP)

    def resume(_signum: int, _frame: FrameType | None) -> None:
        set_to(raw)

    handlers = {signal.SIGTERM: close, signal.SIGHUP: close, signal.SIGTSTP: suspend, signal.SIGCONT: resume}
    previous = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        set_to(raw)
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        set_to(saved)


def _raw(attributes: list[Any]) -> list[Any]:
    """As cfmakeraw(3), but output is still processed: our own messages end their lines with a newline only."""
    raw = list(attributes)
    raw[INPUT_FLAGS] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    raw[OUTPUT_FLAGS] |= termios.OPOST
    raw[LOCAL_FLAGS] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[CONTROL_FLAGS] = raw[CONTROL_FLAGS] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[CONTROL_CHARACTERS] = list(attributes[CONTROL_CHARACTERS])
    raw[CONTROL_CHARACTERS][termios.VMIN] = 1
    raw[CONTROL_CHARACTERS][termios.VTIME] = 0
    return raw
