"""The tables by which a kernel names its functions, and files of symbols that users name."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paravirt as pv
from paravirt.boot.image import KernelFile
from paravirt.boot.kallsyms import read_kallsyms
from paravirt.boot.symbol_file import read_symbol_file

from ..bzimagewriter import pack, write_bzimage
from ..elfwriter import Segment, write_elf

BASE = 0xFFFF_FFFF_8100_0000
NAMES = ["Apercpu", "T_text", "tfirst", *(f"Tfunction_{number}" for number in range(1500)), "T" + "long" * 40]
TOKENS = [bytes((number,)) if 0x20 < number < 0x7F else b"_%d" % number for number in range(256)]
TOKENS[0xFE] = b"function_"


def pad(data: bytes, alignment: int = 8) -> bytes:
    return data + bytes(-len(data) % alignment)


def encode(name: str) -> bytes:
    """One symbol: the length, of two bytes if it is long, and the tokens."""
    tokens = name.encode().replace(b"function_", b"\xfe")
    length = len(tokens)
    return (bytes((length,)) if length < 0x80 else bytes((length & 0x7F | 0x80, length >> 7))) + tokens


def tables(*, offsets_last: bool, absolute_percpu: bool = True) -> bytes:
    """The tables as Linux 6.1 has them, or as 6.4 and later do."""
    relative = [0x10 * number for number in range(len(NAMES) - 1)]
    offsets = [0x40, *(-1 - offset for offset in relative)] if absolute_percpu else [0, *relative]
    places = pad(struct.pack(f"<{len(offsets)}i", *offsets)) + struct.pack("<Q", BASE)
    encoded = [encode(name) for name in NAMES]
    starts = [sum(map(len, encoded[:index])) for index in range(0, len(encoded), 256)]
    token_starts = [sum(len(token) + 1 for token in TOKENS[:index]) for index in range(256)]
    named = (
        pad(struct.pack("<I", len(NAMES)))
        + pad(b"".join(encoded))
        + pad(struct.pack(f"<{len(starts)}I", *starts))
        + pad(b"".join(token + b"\0" for token in TOKENS))
        + struct.pack("<256H", *token_starts)
    )
    noise = b"0\x001\x002\x003\x00" + struct.pack("<II", 5000, 0) + b"\x01T" * 100
    return pad(noise) + (named + places if offsets_last else places + named) + bytes(64)


@pytest.mark.parametrize("offsets_last", [False, True])
def test_tables(offsets_last: bool) -> None:
    """In both orders; a per-CPU variable is no place."""
    symbols = read_kallsyms(tables(offsets_last=offsets_last))
    assert len(symbols) == len(NAMES) - 1
    assert "percpu" not in symbols
    assert (symbols["_text"], symbols["first"]) == (BASE, BASE + 0x10)
    assert symbols.find(BASE + 0x10 * 102 + 5) == "function_100+0x5"
    assert symbols["long" * 40] == BASE + 0x10 * (len(NAMES) - 2)


def test_offsets_from_the_base() -> None:
    """Newer kernels count all symbols upwards."""
    assert read_kallsyms(tables(offsets_last=True, absolute_percpu=False))["function_7"] == BASE + 0x10 * 9


def test_no_tables() -> None:
    assert len(read_kallsyms(b"")) == 0
    assert len(read_kallsyms(b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00" * 300)) == 0


TABLES = tables(offsets_last=False)


@given(st.integers(0, len(TABLES)), st.binary(min_size=1, max_size=200), st.booleans())
def test_any_tables(at: int, noise: bytes, cut: bool) -> None:
    """A damaged kernel has no names, or wrong ones; nothing worse."""
    read_kallsyms(TABLES[:at] + noise + (b"" if cut else TABLES[at + len(noise) :]))


SYSTEM_MAP = b"""\
0000000000000000 D __per_cpu_start
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000100 t start_kernel.part.0
ffffffffc0000000 t in_a_module\t[virtio]
"""


def test_system_map() -> None:
    symbols = read_symbol_file(KernelFile("System.map", SYSTEM_MAP))
    assert symbols.find(0xFFFF_FFFF_8100_0104) == "start_kernel.part.0+0x4"
    assert symbols["in_a_module"] == 0xFFFF_FFFF_C000_0000
    assert symbols.find(0x40_0000) is None
    assert "fixed_percpu_data" not in symbols


def test_kernels_as_symbol_files() -> None:
    """An ELF file with a symbol table, one with the kernel's own tables, and the same packed in a bzImage."""
    with_table = write_elf([Segment(1 << 24, b"\x90")], entry=1 << 24, bits=64, symbols=[("main", 0x1000, 8)])
    assert read_symbol_file(KernelFile("k", with_table))["main"] == 0x1000
    stripped = write_elf([Segment(1 << 24, TABLES)], entry=1 << 24, bits=64)
    aligned = stripped + bytes(-len(stripped) % 8) + TABLES
    assert read_symbol_file(KernelFile("k", aligned))["_text"] == BASE
    assert read_symbol_file(KernelFile("k", write_bzimage(pack(aligned))))["_text"] == BASE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n",
        write_elf([Segment(1 << 24, b"\x90")], entry=1 << 24),
        write_bzimage(),
    ],
)
def test_files_without_symbols(data: bytes) -> None:
    message = "no symbols in it: give a System.map, the output of nm, or an ELF file that has them"
    with pytest.raises(pv.ImageError, match=f"^'f': {re.escape(message)}$"):
        read_symbol_file(KernelFile("f", data))
