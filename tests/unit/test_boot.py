"""Multiboot, flat binaries, ELF files and what a BIOS leaves behind."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paravirt as pv
from paravirt import _native
from paravirt.boot import firmware, layout, open_kernel
from paravirt.boot.image import Entry, KernelFile, ProtectedEntry, RealModeEntry
from paravirt.memory import GuestMemory

from ..elfwriter import EM_AARCH64, EM_ARM, ET_REL, Segment, multiboot_header, write_elf
from .fakes import FakeMemory

MIB = 1 << 20
CODE = multiboot_header() + b"\x90" * 20


def make_memory(size: int = 4 * MIB) -> GuestMemory:
    return GuestMemory(cast("_native.Memory", FakeMemory(size)))


def boot(
    data: bytes,
    memory: GuestMemory | None = None,
    *,
    initrd: bytes | None = None,
    command_line: str = "",
    protocol: str | None = None,
    address: int | None = None,
) -> Entry:
    module = None if initrd is None else KernelFile("env", initrd)
    kernel = open_kernel(
        KernelFile("k", data), command_line=command_line, initrd=module, protocol=protocol, address=address
    )
    return kernel.load(memory if memory is not None else make_memory())


def text_at(memory: GuestMemory, gpa: int) -> str:
    return memory.read(gpa, 64).partition(b"\0")[0].decode()


def information(memory: GuestMemory, gpa: int) -> dict[str, int]:
    """The fields of a multiboot information structure, by the specification's names."""
    names = ("flags", "mem_lower", "mem_upper", "boot_device", "cmdline", "mods_count", "mods_addr")
    fields = dict(zip(names, struct.unpack("<7I", memory.read(gpa, 28)), strict=True))
    fields["mmap_length"], fields["mmap_addr"] = struct.unpack("<II", memory.read(gpa + 44, 8))
    fields["boot_loader_name"] = memory.read_int(gpa + 64, 4)
    return fields


# -- multiboot


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_kernel(bits: int) -> None:
    """Segments go to their physical addresses, what is behind their data is zeroed, and the entry is ELF's."""
    memory = make_memory()
    memory.write(MIB, b"\xff" * 0x200)
    image = write_elf([Segment(MIB, CODE, 0x100), Segment(2 * MIB, b"data")], entry=MIB + 12, bits=bits)
    entry = boot(image, memory)
    assert entry == ProtectedEntry(MIB + 12, 0x2BADB002, 0x9_0000)
    assert memory.read(MIB, 0x102) == CODE + bytes(0x100 - len(CODE)) + b"\xff\xff"
    assert memory.read(2 * MIB, 4) == b"data"


def test_information() -> None:
    """Memory, command line, map and loader, all flags set for what is there."""
    memory = make_memory()
    entry = boot(write_elf([Segment(MIB, CODE)], entry=MIB), memory, command_line="--all")
    assert isinstance(entry, ProtectedEntry)
    info = information(memory, entry.ebx)
    assert info["flags"] == 0x24F
    assert (info["mem_lower"], info["mem_upper"]) == (639, 3 * 1024)
    assert text_at(memory, info["cmdline"]) == "k --all"
    assert text_at(memory, info["boot_loader_name"]) == "paravirt"
    assert info["mods_count"] == 0
    entries = [
        struct.unpack("<IQQI", memory.read(info["mmap_addr"] + at, 24)) for at in range(0, info["mmap_length"], 24)
    ]
    assert all(size == 20 for size, *_ in entries)
    assert [(base, length) for _, base, length, kind in entries if kind == 1] == [(0, 0x9FC00), (MIB, 3 * MIB)]


def test_module() -> None:
    """One, page-aligned behind the kernel, with its name."""
    memory = make_memory()
    entry = boot(write_elf([Segment(MIB, CODE, 0x1001)], entry=MIB), memory, initrd=b"NR_CPUS=2\n")
    assert isinstance(entry, ProtectedEntry)
    info = information(memory, entry.ebx)
    assert info["mods_count"] == 1
    start, end, name, reserved = struct.unpack("<IIII", memory.read(info["mods_addr"], 16))
    assert (start, end, reserved) == (MIB + 0x2000, MIB + 0x2000 + 10, 0)
    assert memory.read(start, end - start) == b"NR_CPUS=2\n"
    assert text_at(memory, name) == "env"


def test_information_makes_room() -> None:
    """A kernel that lies where the structures would go keeps its place; they go behind everything."""
    memory = make_memory()
    image = write_elf([Segment(0x8000, CODE, 0x9_0000)], entry=0x8000)
    entry = boot(image, memory, initrd=b"x" * 5000)
    assert isinstance(entry, ProtectedEntry)
    assert entry.ebx == MIB + 0x2000
    assert memory.read(MIB, 5000) == b"x" * 5000


def test_long_command_line() -> None:
    """One that does not fit below 640 KiB."""
    memory = make_memory()
    command_line = "x" * 0x1_0000
    entry = boot(write_elf([Segment(MIB, CODE)], entry=MIB), memory, command_line=command_line)
    assert isinstance(entry, ProtectedEntry)
    assert entry.ebx == MIB + 0x1000
    cmdline = information(memory, entry.ebx)["cmdline"]
    assert memory.read(cmdline, len(command_line) + 3) == b"k " + command_line.encode() + b"\0"


def test_command_line_that_is_no_text() -> None:
    """Bytes that are no UTF-8, as a shell may pass them, reach the guest unchanged."""
    memory = make_memory()
    entry = boot(write_elf([Segment(MIB, CODE)], entry=MIB), memory, command_line="\udcff")
    assert isinstance(entry, ProtectedEntry)
    assert memory.read(information(memory, entry.ebx)["cmdline"], 4) == b"k \xff\0"


def with_addresses(load: int = MIB, load_end: int = 0, bss_end: int = 0, entry: int = MIB, skip: int = 0) -> bytes:
    """An image that carries its own load addresses; `skip` bytes before the header belong to it."""
    flags = 1 << 16
    header = struct.pack(
        "<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF, load + skip, load, load_end, bss_end, entry
    )
    return bytes(skip) + header + b"\xaa" * 16


def test_image_with_addresses() -> None:
    """To the end of the file, and zeros behind as asked for."""
    memory = make_memory()
    memory.write(MIB, b"\xff" * 0x100)
    image = with_addresses(bss_end=MIB + 0x80, skip=16)
    assert boot(image, memory) == ProtectedEntry(MIB, 0x2BADB002, 0x9_0000)
    assert memory.read(MIB, 0x81) == image + bytes(0x80 - len(image)) + b"\xff"


def test_image_with_addresses_and_an_end() -> None:
    """Only as much of the file as the header says."""
    memory = make_memory()
    boot(with_addresses(load_end=MIB + 36), memory)
    assert memory.read(MIB + 32, 6) == b"\xaa" * 4 + b"\0\0"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "the file is empty"),
        (b"#!/bin/sh\n", "no kernel: neither a Linux bzImage, a multiboot image nor an ELF file"),
        (b"\x7fELF", "truncated within its ELF header"),
        (
            write_elf([Segment(MIB, b"\x90" * 64)], entry=MIB),
            "an ELF file with neither a multiboot header in its first 8192 bytes nor a PVH note",
        ),
        (write_elf([Segment(MIB, CODE)], entry=MIB, machine=EM_ARM), "an ELF file for ARM, not for x86"),
        (
            write_elf([Segment(MIB, b"")], entry=MIB, machine=EM_AARCH64, bits=64),
            "an ELF file for 64-bit ARM, not for x86",
        ),
        (write_elf([Segment(MIB, CODE)], entry=MIB, machine=999), "an ELF file for machine 999, not for x86"),
        (write_elf([Segment(MIB, CODE)], entry=MIB, elf_type=ET_REL), "an ELF file, but not an executable one"),
        (write_elf([], entry=MIB) + CODE, "an ELF file without program headers: nothing to load"),
        (write_elf([Segment(MIB, b"", 0)], entry=MIB) + CODE, "an ELF file without loadable segments"),
        (
            write_elf([Segment(MIB, CODE)], entry=MIB)[:-8],
            "truncated: segment 0 ends at 0x74 in the file, which has 0x6c bytes",
        ),
        (write_elf([Segment(MIB, CODE, 8)], entry=MIB), "segment 0 has 0x20 bytes in the file and 0x8 in memory"),
        (write_elf([Segment(MIB, CODE)], entry=2 * MIB), "entry point 0x200000 is in none of its segments"),
        (
            write_elf([Segment(64 * MIB, CODE)], entry=64 * MIB),
            "a segment needs memory from 0x4000000 to 0x4000020, outside the machine's 4 MiB",
        ),
        (
            write_elf([Segment(MIB, CODE, 0x7FFF_FFFF)], entry=MIB),
            "a segment needs memory from 0x100000 to 0x800fffff, outside the machine's 4 MiB",
        ),
        (
            write_elf([Segment(1 << 32, CODE)], entry=MIB, bits=64),
            "a segment reaches to 0x100000020; multiboot kernels must lie below 4 GiB",
        ),
        (
            write_elf([Segment(MIB, multiboot_header(4) + CODE)], entry=MIB),
            "its multiboot header asks for a video mode; there is no display",
        ),
        (
            write_elf([Segment(MIB, multiboot_header(0x8000))], entry=MIB),
            "its multiboot header asks for unknown things: flags 0x8000",
        ),
        (with_addresses(entry=3 * MIB), "entry point 0x300000 is in none of its segments"),
        (
            with_addresses(load_end=MIB + 0x1000),
            "truncated: its multiboot header promises 0x1000 bytes from 0x0 in the file",
        ),
        (
            with_addresses(load=MIB, skip=0)[:12] + struct.pack("<5I", 1, 2, 0, 0, 0),
            "its multiboot header is at 0x1, below its own load address 0x2",
        ),
        (
            with_addresses()[:12] + struct.pack("<5I", 2 * MIB, MIB, 0, 0, 0),
            "its multiboot header places the start of the kernel before the file",
        ),
        (multiboot_header(), "not an ELF file"),
    ],
)
def test_bad_images(image: bytes, message: str) -> None:
    """One clear line each, with the file's name."""
    with pytest.raises(pv.ImageError, match=f"^'k': {re.escape(message)}$") as raised:
        boot(image)
    assert (raised.value.path, raised.value.reason) == ("k", message)


def test_module_that_does_not_fit() -> None:
    """The module's name is told, not the kernel's."""
    with pytest.raises(pv.ImageError, match=r"^'env': a segment needs memory from 0x101000 to 0x501000,"):
        boot(write_elf([Segment(MIB, CODE)], entry=MIB), initrd=bytes(4 * MIB))


GOOD_ELF = write_elf([Segment(MIB, CODE)], entry=MIB)


@given(st.binary(max_size=200), st.integers(0, len(GOOD_ELF)), st.booleans())
def test_any_bytes(noise: bytes, at: int, cut: bool) -> None:
    """Whatever a file holds, it is loaded or refused."""
    image = GOOD_ELF[:at] + noise + (b"" if cut else GOOD_ELF[at + len(noise) :])
    with suppress(pv.ImageError):
        boot(image)


@given(st.lists(st.integers(0, 0xFFFF_FFFF), min_size=5, max_size=5), st.integers(0, 64))
def test_any_addresses(addresses: list[int], length: int) -> None:
    """Addresses in a multiboot header are a stranger's too."""
    image = with_addresses()[:12] + struct.pack("<5I", *addresses) + bytes(length)
    with suppress(pv.ImageError):
        boot(image)


def test_symbols() -> None:
    """Names for logs and breakpoints; a file that ends within its table has none."""
    image = write_elf([Segment(MIB, CODE)], entry=MIB, symbols=[("start", MIB, 8), ("main", MIB + 8, 8)])
    kernel = open_kernel(KernelFile("k", image), command_line="", initrd=None)
    assert kernel.symbols().find(MIB + 9) == "main+0x1"
    assert kernel.symbols()["start"] == MIB
    cut = open_kernel(KernelFile("k", image[:-20]), command_line="", initrd=None)
    assert len(cut.symbols()) == 0


# -- flat


@pytest.mark.parametrize(
    ("address", "entry"),
    [(None, RealModeEntry(0, 0x7C00)), (0x12345, RealModeEntry(0x1234, 5)), (0, RealModeEntry(0, 0))],
)
def test_flat(address: int | None, entry: RealModeEntry) -> None:
    """Raw bytes where they are wanted."""
    memory = make_memory()
    assert boot(b"\xf4\xeb\xfd", memory, protocol="flat", address=address) == entry
    assert memory.read(entry.selector * 16 + entry.offset, 3) == b"\xf4\xeb\xfd"


def test_flat_refusals() -> None:
    """Real mode reaches 1 MiB, and has no modules."""
    with pytest.raises(
        pv.ConfigurationError, match=r"^load address 0x100000 is not below 1 MiB, where real mode reaches$"
    ):
        boot(b"\xf4", protocol="flat", address=MIB)
    with pytest.raises(pv.ConfigurationError, match=r"^a flat binary takes neither a command line nor an initrd$"):
        boot(b"\xf4", protocol="flat", initrd=b"x")
    with pytest.raises(
        pv.ConfigurationError, match=r"^unknown boot protocol 'pxe'; known: multiboot, pvh, linux, flat, firmware$"
    ):
        boot(b"\xf4", protocol="pxe")


# -- files


def test_files(tmp_path: Path) -> None:
    """By name or by content; what the system says of a file comes out as it is."""
    path = tmp_path / "k"
    path.write_bytes(b"abc")
    assert KernelFile.read(path) == KernelFile(str(path), b"abc")
    assert KernelFile.read(b"abc", "kernel") == KernelFile("kernel", b"abc")
    with pytest.raises(FileNotFoundError):
        KernelFile.read(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        KernelFile.read(tmp_path)


# -- firmware


def test_interrupt_vectors() -> None:
    """All return; those of the 8259s acknowledge first."""
    memory = make_memory()
    firmware.write_firmware_state(memory)
    for vector, code in (
        (0x00, b"\xcf"),
        (0x08, b"\x50\xb0\x20\xe6\x20\x58\xcf"),
        (0x73, b"\x50\xb0\x20\xe6\xa0\xe6\x20\x58\xcf"),
    ):
        offset, segment = struct.unpack("<HH", memory.read(vector * 4, 4))
        assert memory.read(segment * 16 + offset, len(code)) == code
    assert memory.read_int(0x413, 2) == 639
    assert memory.read_int(0x40E, 2) * 16 == 0x9FC00


def test_memory_map_above_the_hole() -> None:
    """RAM goes on at 4 GiB; what is between is not given away."""
    entries = layout.e820_map([(0, 0xC000_0000), (1 << 32, 1 << 30)])
    assert [(entry.base, entry.length) for entry in entries if entry.type == 1] == [
        (0, 0x9FC00),
        (MIB, 0xC000_0000 - MIB),
        (1 << 32, 1 << 30),
    ]
    assert [entry.base for entry in entries] == sorted(entry.base for entry in entries)
    assert all(one.base + one.length <= other.base for one, other in pairwise(entries))
