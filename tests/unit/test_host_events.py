"""Waiting for input: by whom, for how long, and how it ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from paravirt.console_input import MAX_PENDING, ConsoleInput
from paravirt.host_events import HostEvents

from .fakes import FakeVm


class Pipe:
    """A pipe, both ends of it."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()

    def write(self, data: bytes) -> None:
        os.write(self._writer, data)

    def end(self) -> None:
        os.close(self._writer)
        self._writer = -1

    def close(self) -> None:
        os.close(self.reader)
        if self._writer >= 0:
            os.close(self._writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def watch(pipe: Pipe, vm: FakeVm, **options: object) -> HostEvents:
    events = HostEvents()
    events.watch(ConsoleInput(vm, pipe.reader, **options))  # type: ignore[arg-type]
    return events


def test_no_more_than_the_guest_takes(pipe: Pipe) -> None:
    """The rest stays in the pipe, for whoever reads it next."""
    vm = FakeVm()
    vm.room = 3
    events = watch(pipe, vm)
    pipe.write(b"abcdef")
    assert events.poll(0)
    assert vm.typed == b"abc"
    assert not events.poll(0)
    assert os.read(pipe.reader, 10) == b"def"


def test_the_end_of_input_is_the_end_of_watching(pipe: Pipe) -> None:
    """What was read before it still arrives."""
    vm = FakeVm()
    vm.room = 10
    events = watch(pipe, vm)
    pipe.write(b"x")
    pipe.end()
    assert events.poll(None)
    events.poll(0)
    assert vm.typed == b"x"
    assert not events
    assert not events.can_happen


def test_keys_are_read_for_a_guest_that_does_not_listen(pipe: Pipe) -> None:
    """And wait for it, up to a limit."""
    vm = FakeVm()
    events = watch(pipe, vm, keys=bytes.upper)
    for _ in range(2 * MAX_PENDING // 4096):
        pipe.write(b"k" * 4096)
        events.poll(0)
    assert not events.can_happen
    vm.room = 5
    events.poll(0)
    assert vm.typed.startswith(b"KKKKK")


def test_a_descriptor_that_is_no_stream() -> None:
    """A directory has nothing to read: its input ends."""
    vm = FakeVm()
    vm.room = 1
    directory = os.open(".", os.O_RDONLY)
    events = HostEvents()
    events.watch(ConsoleInput(vm, directory))  # type: ignore[arg-type]
    assert events.poll(0)
    os.close(directory)
    assert not events


def test_waiting_ends() -> None:
    """By itself after the time given, and by another thread."""
    events = HostEvents()
    start = time.monotonic()
    assert not events.poll(0.02)
    assert time.monotonic() - start >= 0.02
    waker = threading.Timer(0.02, events.wake)
    waker.start()
    assert events.poll(None)
    waker.join()
