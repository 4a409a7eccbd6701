"""What the guest prints: kept, passed on, bounded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import pytest

import paravirt as pv
from paravirt import _native, console
from paravirt.console import Console
from paravirt.host_events import HostEvents

from .fakes import FakeVm


def make_console(stream: object = None) -> tuple[FakeVm, Console]:
    vm = FakeVm()
    return vm, Console(cast("_native.Vm", vm), stream, HostEvents())  # type: ignore[arg-type]


def test_kept() -> None:
    """Without a stream everything is there to be read, whole or what is new."""
    vm, out = make_console()
    vm.printed = b"one\r\n"
    assert out.read() == b"one\r\n"
    vm.printed = b"tw\xffo"
    assert out.read() == b"tw\xffo"
    assert out.read() == b""
    assert out.output == b"one\r\ntw\xffo"
    assert out.text == "one\ntw\ufffdo"
    assert vm.console_fd is None


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that prints for ever costs no more than the last part of it."""
    monkeypatch.setattr(console, "KEPT_BYTES", 8)
    vm, out = make_console()
    vm.printed = b"0123456789"
    assert out.output == b"23456789"
    assert out.read() == b"23456789"
    vm.printed = b"AB"
    assert out.read() == b"AB"
    assert out.output == b"456789AB"


@pytest.mark.parametrize("make", [io.StringIO, io.BytesIO])
def test_stream_without_descriptor(make: type[io.StringIO | io.BytesIO]) -> None:
    """Gets text or bytes, as it likes, when pumped."""
    stream = make()
    vm, out = make_console(stream)
    assert out.needs_pump
    vm.printed = b"hello"
    out.pump()
    assert stream.getvalue() in ("hello", b"hello")


def test_descriptor(tmp_path: Path) -> None:
    """The board writes there by itself."""
    with (tmp_path / "out").open("w") as stream:
        vm, out = make_console(stream)
        assert vm.console_fd == stream.fileno()
    assert not out.needs_pump
    assert not out.is_captured


def test_bad_descriptor() -> None:
    """Refused at once."""
    with pytest.raises(pv.ConfigurationError, match=r"^console -1 is not a file descriptor$"):
        make_console(-1)


def test_input() -> None:
    """Text and bytes."""
    vm, out = make_console()
    out.send("a")
    out.send(b"b")
    assert vm.typed == b"ab"
