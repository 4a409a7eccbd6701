"""Reader of MOO files: what a chip did, one instruction at a time, as the SingleStepTests record it.

A file is a sequence of chunks, each four letters and a length; a TEST chunk holds further chunks. Later versions may
add some, so unknown ones are skipped. All numbers are little-endian.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REGISTERS = ("ax", "bx", "cx", "dx", "cs", "ss", "ds", "es", "sp", "bp", "si", "di", "ip", "flags")
"""In the order of the bits of a REGS chunk."""


@dataclass
class State:
    """Registers and bytes of memory: all of them before an instruction, what has changed after it."""

    registers: dict[str, int] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)


@dataclass
class Case:
    """One instruction on the chip."""

    index: int
    name: str = ""
    code: bytes = b""
    initial: State = field(default_factory=State)
    final: State = field(default_factory=State)
    exception: int | None = None
    flags_address: int | None = None
    """Where the exception pushed the flags."""
    digest: str = ""


def read_moo(path: Path) -> Iterator[Case]:
    """Read the cases of a file, which may be compressed by gzip."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for tag, start, end in _chunks(data, 0, len(data)):
        if tag == b"TEST":
            yield _read_case(data, start, end)


def _chunks(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        (length,) = struct.unpack_from("<I", data, start + 4)
        yield data[start : start + 4], start + 8, start + 8 + length
        start += 8 + length


def _read_case(data: bytes, start: int, end: int) -> Case:
    case = Case(*struct.unpack_from("<I", data, start))
    for tag, first, last in _chunks(data, start + 4, end):
        match tag:
            case b"NAME":
                case.name = data[first + 4 : last].decode()
            case b"BYTS":
                case.code = data[first + 4 : last]
            case b"INIT":
                case.initial = _read_state(data, first, last)
            case b"FINA":
                case.final = _read_state(data, first, last)
            case b"EXCP":
                case.exception, case.flags_address = struct.unpack_from("<BI", data, first)
            case b"HASH":
                case.digest = data[first:last].hex()
    return case


def _read_state(data: bytes, start: int, end: int) -> State:
    state = State()
    for tag, first, last in _chunks(data, start, end):
        if tag == b"REGS":
            (present,) = struct.unpack_from("<H", data, first)
            names = [name for bit, name in enumerate(REGISTERS) if present >> bit & 1]
            state.registers = dict(zip(names, struct.unpack_from(f"<{len(names)}H", data, first + 2), strict=True))
        elif tag == b"RAM ":
            state.memory = dict(struct.iter_unpack("<IB", data[first + 4 : last]))
    return state
