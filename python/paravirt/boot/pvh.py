"""PVH: how Xen starts a kernel without firmware, and everybody else by now: Linux, FreeBSD, unikernels, Xen's tests.

The kernel is an ELF file with a note that names a physical 32-bit entry point; EBX points to the start information.
Source: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

import os
import struct

from paravirt.boot import elf, layout
from paravirt.boot.elf import Elf
from paravirt.boot.entry import CODE_32, write_boot_gdt
from paravirt.boot.image import (
    KernelFile,
    ProtectedEntry,
    Segment,
    check_entry,
    check_fits,
    place_block,
    place_initrd,
    write_segments,
)
from paravirt.boot.layout import align_up, e820_map
from paravirt.errors import ImageError
from paravirt.memory import GuestMemory

__all__ = ["find_pvh_entry", "load_pvh"]

XEN_OWNER = b"Xen"
PHYS32_ENTRY = 18

START_MAGIC = 0x336E_C578
START_VERSION = 1
START_INFO = struct.Struct("<IIIIQQQQII")
MODULE = struct.Struct("<QQQQ")
MEMORY_MAP_ENTRY = struct.Struct("<QQII")
LIMIT = 1 << 32
"""All of it lies below 4 GiB."""


def find_pvh_entry(image: Elf) -> int | None:
    """Return the entry point that the kernel's note names, if it has one."""
    for note in image.notes:
        if note.owner == XEN_OWNER and note.type == PHYS32_ENTRY and len(note.description) in (4, 8):
            return int.from_bytes(note.description, "little")
    return None


def load_pvh(file: KernelFile, memory: GuestMemory, command_line: str, initrd: KernelFile | None) -> ProtectedEntry:
    """Write an ELF kernel, its module and the start information.

    Raises ImageError if they do not fit, or the file is no PVH kernel.
    """
    image = elf.read_elf(file)
    entry = find_pvh_entry(image)
    if entry is None:
        raise ImageError(file.name, "no PVH entry point: it has no ELF note of Xen's with type 18")
    check_entry(file.name, entry, image.segments)
    check_fits(file.name, image.segments, memory)
    end = max(align_up(max(segment.end for segment in image.segments)), layout.HIGH_MEMORY)
    occupied = list(image.segments)
    module = None
    if initrd is not None:
        module = place_initrd(initrd, memory, end, LIMIT)
        occupied.append(module)
    block = _start_info(memory, module, command_line, 0)
    gpa = place_block(len(block), (layout.PVH_INFO, layout.PVH_INFO_END), occupied, end)
    information = Segment(gpa, _start_info(memory, module, command_line, gpa), len(block))
    if module is not None and gpa == end and information.end > module.gpa:
        raise ImageError(file.name, f"its command line of {len(command_line):,} bytes does not fit below the initrd")
    check_fits(file.name, [information], memory)
    write_boot_gdt(memory, code=CODE_32)
    write_segments(memory, [*occupied, information])
    return ProtectedEntry(entry, ebx=gpa, uses_boot_gdt=True)


def _start_info(memory: GuestMemory, module: Segment | None, command_line: str, gpa: int) -> bytes:
    """Return the start information and what it points to, for a block at `gpa`."""
    memory_map = b"".join(
        MEMORY_MAP_ENTRY.pack(base, length, kind, 0) for base, length, kind in e820_map(memory.ranges())
    )
    modules = b"" if module is None else MODULE.pack(module.gpa, module.memory_size, 0, 0)
    map_at = gpa + START_INFO.size
    modules_at = map_at + len(memory_map)
    info = START_INFO.pack(
        START_MAGIC,
        START_VERSION,
        0,  # flags: neither privileged nor the initial domain
        int(module is not None),
        modules_at,
        modules_at + len(modules),
        layout.ACPI_TABLES,
        map_at,
        len(memory_map) // MEMORY_MAP_ENTRY.size,
        0,
    )
    return info + memory_map + modules + os.fsencode(command_line) + b"\0"
