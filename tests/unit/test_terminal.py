"""Ctrl-A commands, and a terminal that is raw for a while."""

from __future__ import annotations

import os
import pty
import signal
import termios
from collections.abc import Iterator

import pytest

from paravirt.terminal import LOCAL_FLAGS, OUTPUT_FLAGS, EscapeKeys, TerminalClosed, raw_terminal


def test_keys() -> None:
    """Ctrl-A and a letter is a command, small or capital, Ctrl-A twice a Ctrl-A, all else the guest's."""
    called: list[str] = []
    keys = EscapeKeys({"x": lambda: called.append("x"), "h": lambda: called.append("h")})
    assert keys(b"ls\x01hpwd\r\x03") == b"lspwd\r\x03"
    assert keys(b"a\x01") == b"a"
    assert keys(b"\x01\x01Xb") == b"\x01b"
    assert keys(b"\x01?c") == b"c"
    assert called == ["h", "x"]


@pytest.fixture
def terminal() -> Iterator[int]:
    master, slave = pty.openpty()
    yield slave
    os.close(slave)
    os.close(master)


def flags(fd: int) -> int:
    value: int = termios.tcgetattr(fd)[LOCAL_FLAGS]
    return value


def test_raw_and_restored(terminal: int) -> None:
    """Every key comes at once and unseen; output is processed as before."""
    before = termios.tcgetattr(terminal)
    with raw_terminal(terminal):
        assert not flags(terminal) & (termios.ECHO | termios.ICANON | termios.ISIG)
        assert termios.tcgetattr(terminal)[OUTPUT_FLAGS] & termios.OPOST
    assert termios.tcgetattr(terminal) == before


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_restored_when_a_signal_ends_us(terminal: int, signum: int) -> None:
    """The signal is told, and its handler is the old one again."""
    before, handler = termios.tcgetattr(terminal), signal.getsignal(signum)
    with pytest.raises(TerminalClosed) as caught, raw_terminal(terminal):
        os.kill(os.getpid(), signum)
    assert caught.value.signum == signum
    assert termios.tcgetattr(terminal) == before
    assert signal.getsignal(signum) == handler


def test_raw_again_after_a_stop(terminal: int) -> None:
    """Whatever the shell made of it meanwhile."""
    before = termios.tcgetattr(terminal)
    with raw_terminal(terminal):
        termios.tcsetattr(terminal, termios.TCSANOW, before)
        os.kill(os.getpid(), signal.SIGCONT)
        assert not flags(terminal) & termios.ECHO


def test_restored_after_an_exception(terminal: int) -> None:
    """As after a crash in a handler."""
    before = termios.tcgetattr(terminal)
    with pytest.raises(ZeroDivisionError), raw_terminal(terminal):
        _ = 1 / 0
    assert termios.tcgetattr(terminal) == before
