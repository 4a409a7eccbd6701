"""Sizes as people write them, and memory by address."""

from __future__ import annotations

import re
from typing import cast

import pytest

import paravirt as pv
from paravirt import _native
from paravirt.memory import GuestMemory, parse_memory_size

from .fakes import FakeMemory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("64M", 64 * MIB),
        ("64", 64 * MIB),
        ("64m", 64 * MIB),
        ("64MiB", 64 * MIB),
        ("64MB", 64 * MIB),
        (" 1G ", 1024 * MIB),
        ("2048K", 2 * MIB),
        ("1T", 1 << 40),
        (64 * MIB, 64 * MIB),
    ],
)
def test_sizes(text: int | str, num_bytes: int) -> None:
    """Text without a unit means MiB, as for QEMU's -m; a number means bytes."""
    assert parse_memory_size(text) == num_bytes


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("0", "memory '0' is too small; the least is '1M'"),
        (0, "memory 0 is too small; the least is '1M'"),
        (-4096, "memory -4096 is too small; the least is '1M'"),
        ("1023K", "memory '1023K' is too small; the least is '1M'"),
        ("2T", "memory '2T' is too large; the most is '1T'"),
        (2 * MIB + 1, "memory 2097153 is not a multiple of 4096 bytes"),
        ("lots", "memory 'lots' is not a size; write it as '64M' or '1G'"),
        ("", "memory '' is not a size; write it as '64M' or '1G'"),
        ("-64M", "memory '-64M' is not a size; write it as '64M' or '1G'"),
        ("6.4M", "memory '6.4M' is not a size; write it as '64M' or '1G'"),
        (True, "memory True must be a number of bytes or text such as '64M'"),
        (1.5, "memory 1.5 must be a number of bytes or text such as '64M'"),
    ],
)
def test_bad_sizes(size: int | str, message: str) -> None:
    """Each names the value and what would do."""
    with pytest.raises(pv.ConfigurationError, match=f"^{re.escape(message)}$") as raised:
        parse_memory_size(size)
    assert (raised.value.option, raised.value.value) == ("memory", size)


def make_memory() -> GuestMemory:
    return GuestMemory(cast("_native.Memory", FakeMemory(MIB)))


def test_integers() -> None:
    """Little-endian, cut to their size."""
    memory = make_memory()
    memory.write_int(0x100, 4, -2)
    assert memory.read(0x100, 5) == b"\xfe\xff\xff\xff\0"
    assert memory.read_int(0x100, 2) == 0xFFFE


def test_clear() -> None:
    """Just the range, whole pages or not; a range that is not all RAM stays as it is."""
    with pv.Machine(memory="1M") as machine:
        memory = machine.memory
        memory.write(0x1000, b"\1" * 0x3000)
        memory.clear(0x1FFF, 0x1002)
        assert memory.read(0x1000, 0x3000) == b"\1" * 0xFFF + bytes(0x1002) + b"\1" * 0xFFF
        with pytest.raises(pv.GuestMemoryError):
            memory.clear(MIB - 1, 2)


def test_outside() -> None:
    """The error says where and how much."""
    with pytest.raises(
        pv.GuestMemoryError, match=r"^no guest memory at physical address 0xfffff \(2 bytes\)$"
    ) as raised:
        make_memory().read(MIB - 1, 2)
    assert (raised.value.address, raised.value.length) == (MIB - 1, 2)
