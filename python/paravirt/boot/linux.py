"""Linux: bzImage, and ELF files of its kernel, by the PVH entry or by the Linux/x86 boot protocol.

With PVH the kernel is unpacked on the host and runs where it was linked. By its own protocol (`boot_params`, entered in
64-bit mode or, if it has no such entry, in 32-bit mode) a bzImage unpacks and places itself, as after a boot loader.
Source: Documentation/arch/x86/boot.rst and zero-page.rst.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paravirt.boot import elf, layout
from paravirt.boot.bzimage import HEADER_AT, BzImage, is_bzimage, read_bzimage
from paravirt.boot.entry import CODE_32, CODE_64, write_boot_gdt
from paravirt.boot.image import (
    Entry,
    Kernel,
    KernelFile,
    LongModeEntry,
    PanicLines,
    ProtectedEntry,
    Segment,
    check_entry,
    check_fits,
    place_initrd,
    write_segments,
)
from paravirt.boot.layout import align_up, e820_map
from paravirt.boot.payload import unpack_kernel
from paravirt.boot.pvh import find_pvh_entry, load_pvh
from paravirt.boot.symbol_file import read_elf_symbols
from paravirt.errors import ImageError
from paravirt.memory import MIB, GuestMemory
from paravirt.symbols import SymbolTable

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["LinuxKernel", "PvhKernel", "is_linux", "open_bzimage"]

ENTRY_64BIT = 0x200
"""Of a bzImage, from its load address."""
COMMAND_LINE_SIZE = 2047
"""The longest command line of an ELF kernel, which cannot say it: COMMAND_LINE_SIZE of x86 without its NUL."""
LINUX_NOTE_OWNER = b"Linux"

PANIC_LINES = PanicLines(b"Kernel panic - not syncing", b"---[ end Kernel panic - not syncing")
"""The second one is printed where it does not reboot after a panic."""
SYSCALL_ENTRY = "entry_SYSCALL_64"
MSR_LSTAR = 0xC000_0082
"""Holds the address of that: how far KASLR has moved the kernel."""
KASLR_RANGE, KASLR_ALIGNMENT = 1 << 30, 2 * MIB

BOOT_PARAMS_BYTES = 4096
UNKNOWN_LOADER = 0xFF
ACPI_RSDP_ADDR, E820_ENTRIES, E820_TABLE, SETUP_HEADER = 0x070, 0x1E8, 0x2D0, HEADER_AT
TYPE_OF_LOADER, RAMDISK_IMAGE, CMD_LINE_PTR = 0x210, 0x218, 0x228
MINIMAL_HEADER = struct.Struct("<13xH2xIH")
"""boot_flag, header and version, for an ELF kernel, which has none."""

PAGE_TABLE_ENTRIES = 512
PRESENT_WRITABLE, PAGE_SIZE_BIT = 0x3, 0x80
PAGE_2_MIB = 2 * MIB
IDENTITY_GIB = 4


class PvhKernel(Kernel):
    """A kernel with a PVH entry: an ELF file, or a bzImage around one. Raises ImageError if it cannot be loaded.

    unpacked: the ELF file inside a bzImage, if somebody has it already.
    """

    panic_lines: ClassVar[PanicLines | None] = PANIC_LINES

    def __init__(
        self, file: KernelFile, command_line: str, initrd: KernelFile | None, unpacked: KernelFile | None = None
    ) -> None:
        self._file = file
        self._command_line = command_line
        self._initrd = initrd
        # Kept until it is first loaded and no longer: it is several times as large as what it was unpacked from.
        self._unpacked: KernelFile | None = unpacked or self._unpack()
        _check_command_line(file, command_line, self._command_line_limit(self._unpacked))

    def _unpack(self) -> KernelFile:
        if not is_bzimage(self._file.data):
            return self._file
        unpacked = unpack_kernel(read_bzimage(self._file))
        if unpacked is None:
            raise ImageError(
                self._file.name, "holds no kernel for PVH, or one compressed in an unknown way; try --protocol linux"
            )
        return unpacked

    def _command_line_limit(self, unpacked: KernelFile) -> int | None:
        if is_bzimage(self._file.data):
            return read_bzimage(self._file).cmdline_size
        return COMMAND_LINE_SIZE if is_linux(elf.read_elf(unpacked)) else None

    def load(self, memory: GuestMemory) -> ProtectedEntry:
        """Write the kernel, its initrd and the start information. Raises ImageError if they do not fit."""
        unpacked, self._unpacked = self._unpacked or self._unpack(), None
        return load_pvh(unpacked, memory, self._command_line, self._initrd)

    def symbols(self) -> SymbolTable:
        """Return the symbols of the ELF file."""
        return read_elf_symbols(self._unpacked or self._unpack())


@dataclass(frozen=True, slots=True)
class _Image:
    """What the Linux boot protocol needs to know of a kernel, bzImage or ELF.

    end: first address that it leaves free. header: what boot_params has from SETUP_HEADER on.
    """

    segments: tuple[Segment, ...]
    end: int
    entry: int
    is_64bit: bool
    header: bytes
    initrd_addr_max: int
    cmdline_size: int


class LinuxKernel(Kernel):
    """A kernel entered with `boot_params`. Raises ImageError if it cannot be loaded."""

    panic_lines: ClassVar[PanicLines | None] = PANIC_LINES

    def __init__(self, file: KernelFile, command_line: str, initrd: KernelFile | None) -> None:
        self._file = file
        self._command_line = command_line
        self._initrd = initrd
        self._image = _bzimage(read_bzimage(file)) if is_bzimage(file.data) else _elf_image(file)
        _check_command_line(file, command_line, self._image.cmdline_size)

    def load(self, memory: GuestMemory) -> Entry:
        """Write the kernel, its initrd and `boot_params`. Raises ImageError if they do not fit."""
        image = self._image
        if any(segment.gpa < layout.HIGH_MEMORY for segment in image.segments):
            raise ImageError(self._file.name, "a Linux kernel that wants to lie below 1 MiB")
        room = Segment(image.segments[0].gpa, b"", image.end - image.segments[0].gpa)
        check_fits(self._file.name, [*image.segments, room], memory)
        initrd = None
        if self._initrd is not None:
            initrd = place_initrd(self._initrd, memory, align_up(image.end), image.initrd_addr_max + 1)
        memory.write(layout.BOOT_PARAMS, self._boot_params(memory, initrd))
        memory.write(layout.LINUX_COMMAND_LINE, os.fsencode(self._command_line) + b"\0")
        write_boot_gdt(memory, code=CODE_64 if image.is_64bit else CODE_32)
        write_segments(memory, [*image.segments, *((initrd,) if initrd else ())])
        if not image.is_64bit:
            return ProtectedEntry(image.entry, esi=layout.BOOT_PARAMS, uses_boot_gdt=True)
        memory.write(layout.BOOT_PAGE_TABLES, _identity_map(layout.BOOT_PAGE_TABLES))
        return LongModeEntry(image.entry, layout.BOOT_PARAMS, layout.BOOT_PAGE_TABLES)

    def _boot_params(self, memory: GuestMemory, initrd: Segment | None) -> bytes:
        params = bytearray(BOOT_PARAMS_BYTES)
        params[SETUP_HEADER : SETUP_HEADER + len(self._image.header)] = self._image.header
        params[TYPE_OF_LOADER] = UNKNOWN_LOADER
        struct.pack_into("<Q", params, ACPI_RSDP_ADDR, layout.ACPI_TABLES)
        struct.pack_into("<I", params, CMD_LINE_PTR, layout.LINUX_COMMAND_LINE)
        place = (initrd.gpa, initrd.memory_size) if initrd is not None else (0, 0)
        struct.pack_into("<II", params, RAMDISK_IMAGE, *place)
        memory_map = e820_map(memory.ranges())
        params[E820_ENTRIES] = len(memory_map)
        for index, entry in enumerate(memory_map):
            struct.pack_into("<QQI", params, E820_TABLE + 20 * index, *entry)
        return bytes(params)

    def symbols(self) -> SymbolTable:
        """Return the symbols of the kernel, or of the one inside it, where it was linked to run."""
        if not is_bzimage(self._file.data):
            return read_elf_symbols(self._file)
        unpacked = unpack_kernel(read_bzimage(self._file))
        return SymbolTable() if unpacked is None else read_elf_symbols(unpacked)

    def find_symbols(self, symbols: SymbolTable, vcpu: Vcpu) -> SymbolTable | None:
        """Return the symbols where the kernel has moved itself to (KASLR); None before it has set up system calls."""
        if not is_bzimage(self._file.data):
            return symbols
        if SYSCALL_ENTRY not in symbols:
            return None
        distance = vcpu.rdmsr(MSR_LSTAR) - symbols[SYSCALL_ENTRY]
        if not 0 <= distance < KASLR_RANGE or distance % KASLR_ALIGNMENT:
            return None
        return symbols.moved(distance)


def is_linux(image: elf.Elf) -> bool:
    """Whether an ELF file says of itself that it is a Linux kernel."""
    return any(note.owner == LINUX_NOTE_OWNER for note in image.notes)


def open_bzimage(file: KernelFile, command_line: str, initrd: KernelFile | None) -> PvhKernel | LinuxKernel:
    """Return a bzImage ready to be loaded: by its PVH entry if the kernel inside has one. Raises ImageError."""
    unpacked = unpack_kernel(read_bzimage(file))
    if unpacked is not None and find_pvh_entry(elf.read_elf(unpacked)) is not None:
        return PvhKernel(file, command_line, initrd, unpacked)
    return LinuxKernel(file, command_line, initrd)


def _bzimage(image: BzImage) -> _Image:
    address = image.pref_address if image.has_64bit_entry else image.code32_start
    segment = Segment(address, image.code, len(image.code))
    return _Image(
        segments=(segment,),
        end=address + max(image.init_size, len(image.code)),
        entry=address + (ENTRY_64BIT if image.has_64bit_entry else 0),
        is_64bit=image.has_64bit_entry,
        header=image.header,
        initrd_addr_max=image.initrd_addr_max,
        cmdline_size=min(image.cmdline_size, layout.LINUX_COMMAND_LINE_END - layout.LINUX_COMMAND_LINE - 1),
    )


def _elf_image(file: KernelFile) -> _Image:
    image = elf.read_elf(file)
    check_entry(file.name, image.entry, image.segments)
    return _Image(
        segments=image.segments,
        end=max(segment.end for segment in image.segments),
        entry=image.entry,
        is_64bit=image.is_64bit,
        header=MINIMAL_HEADER.pack(0xAA55, 0x5372_6448, 0x20F),
        initrd_addr_max=0x7FFF_FFFF,
        cmdline_size=COMMAND_LINE_SIZE,
    )


def _check_command_line(file: KernelFile, command_line: str, limit: int | None) -> None:
    length = len(os.fsencode(command_line))
    if limit is not None and length > limit:
        raise ImageError(file.name, f"the command line has {length} bytes; this kernel takes at most {limit}")


def _identity_map(gpa: int) -> bytes:
    """Page tables at `gpa` that map 4 GiB to themselves with pages of 2 MiB."""
    flags = PRESENT_WRITABLE
    pml4 = [gpa + layout.PAGE_SIZE | flags]
    directories = gpa + 2 * layout.PAGE_SIZE
    pdpt = [directories + index * layout.PAGE_SIZE | flags for index in range(IDENTITY_GIB)]
    pages = [index * PAGE_2_MIB | flags | PAGE_SIZE_BIT for index in range(IDENTITY_GIB * PAGE_TABLE_ENTRIES)]
    tables = (struct.pack(f"<{len(table)}Q", *table) for table in (pml4, pdpt, pages))
    return b"".join(table.ljust(layout.PAGE_SIZE, b"\0") for table in tables)
