"""The guest's console on the user's terminal, or on whatever stdin is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from paravirt.status import describe_status
from paravirt.terminal import EscapeKeys, TerminalClosed, is_interactive, raw_terminal

if TYPE_CHECKING:
    from paravirt.machine import Machine

__all__ = ["attached_input", "is_interactive"]

HELP = """
Ctrl-A X       end the guest
Ctrl-A C       show where each vCPU is
Ctrl-A B       send a break: Linux takes the next key for a SysRq command
Ctrl-A Ctrl-A  send Ctrl-A
Ctrl-A H       this help
"""


@contextmanager
def attached_input(machine: Machine) -> Iterator[None]:
    """Give stdin to the guest while this lasts.

    A terminal on both ends becomes raw, with Ctrl-A commands. Anything else is a stream, whose end only ends the input;
    nothing is read from it before the guest wants it. A closed stdin, and the terminal of a process in the background,
    are left alone.
    """
    if is_interactive():
        fd = sys.stdin.fileno()
        try:
            with raw_terminal(fd):
                machine.console.read_from(fd, _keys(machine))
                yield
        except TerminalClosed as closed:
            _die_of(closed.signum)
        return
    if (stream := _stream_descriptor()) is not None:
        machine.console.read_from(stream)
    yield


def _keys(machine: Machine) -> EscapeKeys:
    def end() -> None:
        sys.stderr.write("\nparavirt: terminated\n")
        machine.stop()

    return EscapeKeys(
        {
            "x": end,
            "c": lambda: sys.stderr.write("\nparavirt: " + describe_status(machine)),
            "b": machine.console.send_break,
            "h": lambda: sys.stderr.write(HELP),
        }
    )


def _stream_descriptor() -> int | None:
    """Stdin's, unless it is closed, or a terminal that would stop us for reading from it in the background."""
    if sys.stdin is None:
        return None
    try:
        fd = sys.stdin.fileno()
        if os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp():
            return None
    except (OSError, ValueError):  # Closed, no stream of the system's, or not our terminal.
        return None
    return fd


def _die_of(signum: int) -> NoReturn:
    """End as the signal would have ended us, so that whoever waits for us learns of it."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    raise SystemExit(128 + signum)  # Where the signal is blocked.
