"""Multiboot 1, by the Multiboot specification 0.6.96: the way test kernels and many small kernels are started.

ELF kernels of 32 bits, and of 64 bits if they lie below 4 GiB (the specification knows none; loaders differ), and
images that carry their own load addresses. All structures are placed below 640 KiB where the kernel leaves room.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import PurePath

from paravirt.boot import elf, layout
from paravirt.boot.image import (
    Kernel,
    KernelFile,
    ProtectedEntry,
    Segment,
    check_entry,
    check_fits,
    place_block,
    write_segments,
)
from paravirt.boot.layout import align_up, e820_map
from paravirt.errors import ImageError
from paravirt.memory import GuestMemory
from paravirt.symbols import SymbolTable

__all__ = ["MultibootKernel", "find_header"]

HEADER_MAGIC = 0x1BAD_B002
BOOT_MAGIC = 0x2BAD_B002
SEARCH_BYTES = 8192

HEADER_MODULES_ALIGNED = 1 << 0
HEADER_MEMORY_INFO = 1 << 1
HEADER_VIDEO_MODE = 1 << 2
HEADER_ADDRESSES = 1 << 16
KNOWN_REQUIREMENTS = HEADER_MODULES_ALIGNED | HEADER_MEMORY_INFO
REQUIREMENTS_MASK = 0xFFFF
"""Flags that a loader must refuse if it does not know them; those above are for the kernel to offer."""

INFO_MEMORY = 1 << 0
INFO_BOOT_DEVICE = 1 << 1
INFO_COMMAND_LINE = 1 << 2
INFO_MODULES = 1 << 3
INFO_MEMORY_MAP = 1 << 6
INFO_LOADER_NAME = 1 << 9

INFO_BYTES = 88
FIRST_HARD_DISK = 0x8000_FFFF
LOADER_NAME = b"paravirt\0"


@dataclass(frozen=True, slots=True)
class Header:
    """A multiboot header. offset is its place in the file; the addresses count only with HEADER_ADDRESSES."""

    offset: int
    flags: int
    header_addr: int = 0
    load_addr: int = 0
    load_end_addr: int = 0
    bss_end_addr: int = 0
    entry_addr: int = 0


def find_header(data: bytes) -> Header | None:
    """Return the multiboot header in a file's first 8192 bytes, if there is one with a right checksum."""
    window = data[:SEARCH_BYTES]
    for offset in range(0, len(window) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", window, offset)
        if magic != HEADER_MAGIC or (magic + flags + checksum) & 0xFFFF_FFFF:
            continue
        if not flags & HEADER_ADDRESSES:
            return Header(offset, flags)
        if offset + 32 <= len(window):
            return Header(offset, flags, *struct.unpack_from("<IIIII", window, offset + 12))
    return None


class MultibootKernel(Kernel):
    """A multiboot kernel with its command line and at most one module. Raises ImageError if it cannot be loaded."""

    def __init__(self, file: KernelFile, command_line: str, initrd: KernelFile | None) -> None:
        header = find_header(file.data)
        if header is None:
            raise ImageError(file.name, f"no multiboot header in its first {SEARCH_BYTES} bytes")
        unknown = header.flags & REQUIREMENTS_MASK & ~KNOWN_REQUIREMENTS
        if unknown == HEADER_VIDEO_MODE:
            raise ImageError(file.name, "its multiboot header asks for a video mode; there is no display")
        if unknown:
            raise ImageError(file.name, f"its multiboot header asks for unknown things: flags {unknown:#x}")
        self._file = file
        # The specification's boot loaders put the file's name first.
        self._command_line = " ".join(filter(None, (PurePath(file.name).name, command_line)))
        self._initrd = initrd
        if header.flags & HEADER_ADDRESSES:
            self._segments, self._entry = _segments_by_header(file, header)
        else:
            self._segments, self._entry = _segments_by_elf(file)

    def symbols(self) -> SymbolTable:
        """Return the symbols of an ELF kernel."""
        if self._file.data[:4] != elf.MAGIC:
            return SymbolTable()
        return elf.read_symbols(self._file)

    def load(self, memory: GuestMemory) -> ProtectedEntry:
        """Write the kernel, its module and the information structure. Raises ImageError if they do not fit."""
        check_fits(self._file.name, self._segments, memory)
        end = max(align_up(max(segment.end for segment in self._segments)), layout.HIGH_MEMORY)
        occupied = list(self._segments)
        module = None
        if self._initrd is not None:
            module = Segment(end, self._initrd.data, len(self._initrd.data))
            check_fits(self._initrd.name, [module], memory)
            occupied.append(module)
            end = align_up(module.end)
        block = self._information(memory, module, 0)
        place = (layout.MULTIBOOT_INFO, layout.MULTIBOOT_INFO_END)
        info_gpa = place_block(len(block), place, occupied, end)
        information = Segment(info_gpa, self._information(memory, module, info_gpa), len(block))
        check_fits(self._file.name, [information], memory)
        write_segments(memory, [*occupied, information])
        return ProtectedEntry(self._entry, BOOT_MAGIC, info_gpa)

    def _information(self, memory: GuestMemory, module: Segment | None, gpa: int) -> bytes:
        """Return the information structure and what it points to, for a block at `gpa`."""
        memory_map = e820_map(memory.ranges())
        low_end = sum(memory.ranges()[0])
        map_bytes = b"".join(struct.pack("<IQQI", 20, *entry) for entry in memory_map)
        command_line = os.fsencode(self._command_line) + b"\0"
        map_at = gpa + INFO_BYTES
        modules_at = map_at + len(map_bytes)
        module_bytes = b""
        if module is not None:
            name_at = modules_at + 16 + len(command_line) + len(LOADER_NAME)
            module_bytes = struct.pack("<IIII", module.gpa, module.end, name_at, 0)
        command_line_at = modules_at + len(module_bytes)
        loader_at = command_line_at + len(command_line)
        flags = INFO_MEMORY | INFO_BOOT_DEVICE | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME
        info = struct.pack(
            "<IIIIIII16xIIIIIII",
            flags,
            layout.EBDA // layout.KIB,
            (low_end - layout.HIGH_MEMORY) // layout.KIB,
            FIRST_HARD_DISK,
            command_line_at,
            int(module is not None),
            modules_at,
            len(map_bytes),
            map_at,
            0,  # drives
            0,
            0,  # configuration table
            loader_at,
            0,  # APM table
        )
        name = b"" if self._initrd is None else os.fsencode(self._initrd.name) + b"\0"
        return info.ljust(INFO_BYTES, b"\0") + map_bytes + module_bytes + command_line + LOADER_NAME + name


def _segments_by_elf(file: KernelFile) -> tuple[list[Segment], int]:
    image = elf.read_elf(file)
    for segment in image.segments:
        if segment.end > 1 << 32:
            raise ImageError(
                file.name, f"a segment reaches to {segment.end:#x}; multiboot kernels must lie below 4 GiB"
            )
    check_entry(file.name, image.entry, image.segments)
    return list(image.segments), image.entry


def _segments_by_header(file: KernelFile, header: Header) -> tuple[list[Segment], int]:
    """The addresses in the header, section 3.1.3 of the specification."""
    if header.load_addr > header.header_addr:
        raise ImageError(
            file.name,
            f"its multiboot header is at {header.header_addr:#x}, below its own load address {header.load_addr:#x}",
        )
    start = header.offset - (header.header_addr - header.load_addr)
    if start < 0:
        raise ImageError(file.name, "its multiboot header places the start of the kernel before the file")
    length = header.load_end_addr - header.load_addr if header.load_end_addr else len(file.data) - start
    if length <= 0 or start + length > len(file.data):
        raise ImageError(
            file.name, f"truncated: its multiboot header promises {length:#x} bytes from {start:#x} in the file"
        )
    memory_size = max(length, header.bss_end_addr - header.load_addr) if header.bss_end_addr else length
    segment = Segment(header.load_addr, file.data[start : start + length], memory_size)
    check_entry(file.name, header.entry_addr, [segment])
    return [segment], header.entry_addr
