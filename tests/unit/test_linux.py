"""Linux and PVH: bzImages, unpacking, boot_params, start information, and what is wrong with bad ones."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paravirt as pv
from paravirt import _native
from paravirt.boot import layout, open_kernel
from paravirt.boot.image import Entry, Kernel, KernelFile, LongModeEntry, ProtectedEntry
from paravirt.boot.linux import LinuxKernel
from paravirt.memory import GuestMemory
from paravirt.symbols import SymbolTable

from ..bzimagewriter import CODE_BYTES, PACKERS, pack, write_bzimage
from ..elfwriter import Segment, write_elf
from .fakes import FakeMemory

MIB = 1 << 20
KERNEL_AT = 16 * MIB
ENTRY = KERNEL_AT + 0x10
CODE = b"\x90" * 64


def xen_note(entry: int = ENTRY, size: int = 8) -> tuple[bytes, int, bytes]:
    return (b"Xen", 18, entry.to_bytes(size, "little"))


def pvh_elf(bits: int = 64, at: int = KERNEL_AT, note_size: int = 8) -> bytes:
    notes = [(b"Xen", 6, b"linux\0"), xen_note(at + 0x10, note_size)]
    return write_elf([Segment(at, CODE, 0x2000)], entry=at, bits=bits, notes=notes)


LINUX_ELF = write_elf([Segment(KERNEL_AT, CODE)], entry=ENTRY, bits=64, notes=[(b"Linux", 0x101, b"6.1\0")])


def make_memory(size: int = 32 * MIB) -> GuestMemory:
    return GuestMemory(cast("_native.Memory", FakeMemory(size)))


def open_one(
    data: bytes, *, initrd: bytes | None = None, command_line: str = "", protocol: str | None = None
) -> Kernel:
    module = None if initrd is None else KernelFile("initrd", initrd)
    return open_kernel(KernelFile("vmlinuz", data), command_line=command_line, initrd=module, protocol=protocol)


def boot(
    data: bytes,
    memory: GuestMemory | None = None,
    *,
    initrd: bytes | None = None,
    command_line: str = "",
    protocol: str | None = None,
) -> Entry:
    kernel = open_one(data, initrd=initrd, command_line=command_line, protocol=protocol)
    return kernel.load(memory or make_memory())


def text_at(memory: GuestMemory, gpa: int) -> bytes:
    return memory.read(gpa, 64).partition(b"\0")[0]


# -- PVH


def start_info(memory: GuestMemory, gpa: int) -> dict[str, int]:
    names = ("magic", "version", "flags", "nr_modules", "modlist", "cmdline", "rsdp", "memmap", "memmap_entries")
    return dict(zip(names, struct.unpack("<IIIIQQQQI", memory.read(gpa, 52)), strict=True))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("note_size", [4, 8])
def test_pvh(bits: int, note_size: int) -> None:
    """Any ELF file with the note: entered there in 32-bit mode, with all that the start information promises."""
    memory = make_memory()
    entry = boot(pvh_elf(bits, note_size=note_size), memory, command_line="a b", initrd=b"ramdisk")
    assert isinstance(entry, ProtectedEntry)
    assert (entry.address, entry.uses_boot_gdt) == (ENTRY, True)
    info = start_info(memory, entry.ebx)
    assert (info["magic"], info["version"], info["nr_modules"]) == (0x336EC578, 1, 1)
    assert (info["rsdp"], text_at(memory, info["cmdline"])) == (layout.ACPI_TABLES, b"a b")
    address, size = struct.unpack("<QQ", memory.read(info["modlist"], 16))
    assert (address, memory.read(address, size)) == (32 * MIB - 4096, b"ramdisk")
    entries = [struct.unpack("<QQII", memory.read(info["memmap"] + 24 * n, 24)) for n in range(info["memmap_entries"])]
    assert [(base, length) for base, length, kind, _ in entries if kind == 1] == [(0, 0x9FC00), (MIB, 31 * MIB)]
    assert memory.read(KERNEL_AT, 65) == CODE + b"\0"


def test_pvh_makes_room() -> None:
    """A kernel that lies where the start information would go keeps its place."""
    memory = make_memory()
    entry = boot(pvh_elf(32, at=0x6000), memory, command_line="x")
    assert isinstance(entry, ProtectedEntry)
    assert entry.ebx == MIB
    assert memory.read(0x6000, 64) == CODE


# -- bzImage


@pytest.mark.parametrize("packer", PACKERS)
def test_bzimage_with_a_pvh_kernel(packer: str) -> None:
    """Unpacked here, whatever packed it, and entered by its note. It can be loaded again for a reset."""
    memory = make_memory()
    kernel = open_one(write_bzimage(pack(pvh_elf(), packer)), command_line="quiet")
    for _ in range(2):
        memory.clear(KERNEL_AT, 4096)
        entry = kernel.load(memory)
        assert isinstance(entry, ProtectedEntry)
        assert entry.address == ENTRY
        assert memory.read(KERNEL_AT, 64) == CODE
    assert kernel.panic_lines is not None


def header_fields(memory: GuestMemory) -> dict[str, int]:
    places = {"type": (0x210, 1), "ramdisk": (0x218, 4), "size": (0x21C, 4), "cmdline": (0x228, 4), "rsdp": (0x70, 8)}
    return {name: memory.read_int(layout.BOOT_PARAMS + at, size) for name, (at, size) in places.items()}


@pytest.mark.parametrize("protocol", [None, "linux"])
def test_bzimage_by_its_own_protocol(protocol: str | None) -> None:
    """Without the note, or if asked for: its code at its preferred address, entered in 64-bit mode with boot_params."""
    memory = make_memory()
    elf_file = LINUX_ELF if protocol is None else pvh_elf()
    entry = boot(write_bzimage(pack(elf_file)), memory, command_line="a=b", initrd=b"x" * 5000, protocol=protocol)
    assert entry == LongModeEntry(KERNEL_AT + 0x200, layout.BOOT_PARAMS, layout.BOOT_PAGE_TABLES)
    assert memory.read(KERNEL_AT, CODE_BYTES) == b"\x90" * CODE_BYTES
    fields = header_fields(memory)
    assert (fields["type"], fields["rsdp"]) == (0xFF, layout.ACPI_TABLES)
    assert (fields["ramdisk"], fields["size"]) == (32 * MIB - 8192, 5000)
    assert memory.read(fields["ramdisk"], 5000) == b"x" * 5000
    assert text_at(memory, fields["cmdline"]) == b"a=b"
    assert memory.read(layout.BOOT_PARAMS + 0x202, 4) == b"HdrS"
    assert memory.read_int(layout.BOOT_PARAMS + 0x1EF, 1) == 0  # the sentinel
    entries = memory.read_int(layout.BOOT_PARAMS + 0x1E8, 1)
    table = [struct.unpack("<QQI", memory.read(layout.BOOT_PARAMS + 0x2D0 + 20 * n, 20)) for n in range(entries)]
    assert (MIB, 31 * MIB, 1) in table


def test_identity_map() -> None:
    """Every address below 4 GiB is mapped to itself."""
    memory = make_memory()
    boot(write_bzimage(), memory)
    for address in (0, 0x123_4567, 0xFFFF_FFFF):
        pml4e = memory.read_int(layout.BOOT_PAGE_TABLES, 8)
        pdpte = memory.read_int((pml4e & -4096) + 8 * (address >> 30), 8)
        pde = memory.read_int((pdpte & -4096) + 8 * (address >> 21 & 511), 8)
        assert pml4e & pdpte & pde & 3 == 3
        assert pde & 0x80
        assert (pde & -(2 * MIB)) + (address & (2 * MIB - 1)) == address


def test_32_bit_entry() -> None:
    """A bzImage without a 64-bit entry goes to 1 MiB and is entered in 32-bit mode."""
    memory = make_memory()
    entry = boot(write_bzimage(xloadflags=0), memory)
    assert entry == ProtectedEntry(MIB, esi=layout.BOOT_PARAMS, uses_boot_gdt=True)
    assert memory.read(MIB, 4) == b"\x90" * 4


def test_vmlinux() -> None:
    """An ELF kernel without the note: where it says, in 64-bit mode, with a header of ours."""
    memory = make_memory()
    assert boot(LINUX_ELF, memory, command_line="q") == LongModeEntry(
        ENTRY, layout.BOOT_PARAMS, layout.BOOT_PAGE_TABLES
    )
    assert memory.read(layout.BOOT_PARAMS + 0x1FE, 2) == b"\x55\xaa"
    assert memory.read(layout.BOOT_PARAMS + 0x202, 6) == b"HdrS\x0f\x02"
    assert header_fields(memory)["ramdisk"] == 0


def test_initrd_below_its_limit() -> None:
    """Not above initrd_addr_max, however much RAM there is."""
    memory = make_memory()
    boot(write_bzimage(initrd_addr_max=20 * MIB - 1), memory, initrd=b"x" * 4097)
    assert header_fields(memory)["ramdisk"] == 20 * MIB - 8192


# -- bad ones

PACKED = pack(pvh_elf())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (write_bzimage()[:0x300], "truncated within the set-up code of a Linux kernel"),
        (write_bzimage(version=0x201), "a Linux kernel with boot protocol 2.01; 2.02 is the oldest we load"),
        (write_bzimage(loadflags=0), "a zImage, which belongs below 1 MiB; only a bzImage can be loaded"),
        (
            write_bzimage(PACKED)[:-1],
            f"truncated: its compressed kernel ends at {CODE_BYTES + len(PACKED):#x} behind its set-up code,"
            f" where the file has {CODE_BYTES + len(PACKED) - 1:#x} bytes",
        ),
        (
            write_bzimage(PACKED[:-4] + b"\0\0\0\x50"),
            "its compressed kernel claims 0x50000000 bytes, more than 1 GiB",
        ),
        (write_bzimage(pack(b"no ELF")), "not an ELF file"),
        (write_bzimage(pref_address=0), "a Linux kernel that wants to lie below 1 MiB"),
        (
            write_bzimage(init_size=20 * MIB),
            "a segment needs memory from 0x1000000 to 0x2400000, outside the machine's 32 MiB",
        ),
        (
            write_bzimage(pack(pvh_elf(at=1 << 33))),
            "a segment needs memory from 0x200000000 to 0x200002000, outside the machine's 32 MiB",
        ),
        (
            write_elf([Segment(KERNEL_AT, CODE)], entry=KERNEL_AT, notes=[xen_note(0x1234)]),
            "entry point 0x1234 is in none of its segments",
        ),
    ],
)
def test_bad_images(image: bytes, message: str) -> None:
    """One clear line each, with the file's name."""
    with pytest.raises(pv.ImageError, match=f"^'vmlinuz': {re.escape(message)}$"):
        boot(image)


@pytest.mark.parametrize("packer", PACKERS)
def test_damaged_payload(packer: str) -> None:
    """A kernel whose compressed part is cut or changed, or yields more or less than it says."""
    packed = pack(pvh_elf(), packer)
    size = struct.pack("<I", len(pvh_elf()) - 1)
    for damaged in (packed[:-4] + size, packed[:20] + packed[-4:], packed[:16] + b"\xff" * 16 + packed[32:]):
        with pytest.raises(pv.ImageError, match=r"^'vmlinuz': its compressed kernel is damaged: "):
            boot(write_bzimage(damaged))


def test_what_pvh_asks_for() -> None:
    """The protocol by name, and no entry for it."""
    with pytest.raises(
        pv.ImageError, match=r"^'vmlinuz': no PVH entry point: it has no ELF note of Xen's with type 18$"
    ):
        boot(LINUX_ELF, protocol="pvh")
    with pytest.raises(
        pv.ImageError, match=r"^'vmlinuz': holds no kernel for PVH, or one compressed in an unknown way;"
    ):
        boot(write_bzimage(), protocol="pvh")
    with pytest.raises(pv.ImageError, match=r"^'vmlinuz': not an ELF file$"):
        boot(b"hello, world" * 100, protocol="linux")


@pytest.mark.parametrize("image", [write_bzimage(), write_bzimage(pack(pvh_elf())), LINUX_ELF])
def test_long_command_line(image: bytes) -> None:
    """A kernel says how much it takes, or is known to cut what is longer."""
    boot(image, command_line="x" * 2047)
    with pytest.raises(
        pv.ImageError, match=r"^'vmlinuz': the command line has 2048 bytes; this kernel takes at most 2047$"
    ):
        boot(image, command_line="x" * 2048)


@pytest.mark.parametrize("image", [write_bzimage(), pvh_elf()])
def test_initrd_that_does_not_fit(image: bytes) -> None:
    """The initrd's name, how much room there is, and what to do."""
    with pytest.raises(
        pv.ImageError,
        match=r"^'initrd': the initrd of 16,777,216 bytes does not fit: the kernel leaves 1\d,\d{3},\d{3} bytes below"
        r" 0x2000000\. Give the machine more memory \(--memory\)$",
    ):
        boot(image, initrd=bytes(16 * MIB))


@given(st.integers(0, 0x300), st.binary(min_size=1, max_size=64))
def test_any_header(at: int, noise: bytes) -> None:
    """Whatever a header says, the kernel is loaded or refused."""
    image = write_bzimage(PACKED)
    with suppress(pv.ImageError):
        boot(image[:at] + noise + image[at + len(noise) :], make_memory(2 * MIB))


# -- symbols where the kernel has moved


class Lstar:
    """A vCPU of which only one MSR matters."""

    def __init__(self, value: int) -> None:
        self._value = value

    def rdmsr(self, index: int) -> int:
        assert index == 0xC000_0082
        return self._value


def test_kaslr() -> None:
    """The address of the system call entry says how far the kernel has moved; nonsense there says nothing."""
    linked = 0xFFFF_FFFF_8100_0000
    symbols = SymbolTable([("entry_SYSCALL_64", linked, 0), ("panic", linked + 0x100, 0)])
    kernel = LinuxKernel(KernelFile("vmlinuz", write_bzimage()), "", None)
    moved = kernel.find_symbols(symbols, cast("pv.Vcpu", Lstar(linked + 6 * MIB)))
    assert moved is not None
    assert moved["panic"] == linked + 0x100 + 6 * MIB
    assert moved.find(linked + 0x108 + 6 * MIB) == "panic+0x8"
    for lstar in (0, linked + 0x1000, linked - 2 * MIB, linked + (1 << 30)):
        assert kernel.find_symbols(symbols, cast("pv.Vcpu", Lstar(lstar))) is None
