"""The guest's physical memory map. Only one boot protocol is used per run, so rows of different ones may overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

KIB = 1 << 10
MIB = 1 << 20

IVT = 0
"""Interrupt vectors of real mode: 256 far pointers."""
BDA = 0x400
"""BIOS data area."""
BOOT_GDT = 0x500
"""Descriptors of the entry state of Linux and PVH."""
PVH_INFO = 0x6000
PVH_INFO_END = 0x9000
"""Where PVH's structures and command line go (end exclusive), unless the kernel itself is there."""
BOOT_PARAMS = 0x7000
"""Linux's `boot_params`, one page."""
BOOT_PAGE_TABLES = 0x9000
"""The identity map of 4 GiB for Linux's 64-bit entry: six pages."""
LINUX_COMMAND_LINE = 0x2_0000
LINUX_COMMAND_LINE_END = 0x9_0000
MULTIBOOT_INFO = 0x9_0000
MULTIBOOT_INFO_END = 0x9_FC00
"""Where multiboot's structures go (end exclusive), unless the kernel itself is there."""
EBDA = 0x9_FC00
BASE_MEMORY_END = 0xA_0000
VGA_MEMORY = 0xA_0000
VGA_MEMORY_END = 0xC_0000
XEN_STORE = 0xD_E000
XEN_CONSOLE = 0xD_F000
"""The pages that a guest of Xen's shares with the domain of the tool stack. No map of its memory has them."""
ACPI_TABLES = 0xE_0000
ACPI_TABLES_END = 0xF_0000
"""The RSDP comes first: guests search it in 0xE0000 to 0xFFFFF only."""
MP_TABLE = 0xF_0000
"""Multiprocessor tables: guests search them in 0xF0000 to 0xFFFFF, among other places."""
MP_TABLE_END = 0xF_8000
BIOS_SEGMENT = 0xF000
BIOS = 0xF_0000
BIOS_RESET_VECTOR = 0xF_FFF0
"""Where a BIOS restarts: FFFF:0000 and F000:FFF0."""
RESET_VECTOR = 0xFFFF_FFF0
"""Where the CPU restarts (SDM vol. 3 section 9.1.4)."""
HIGH_MEMORY = MIB
"""Kernels go here and above."""

PCI_MEMORY = 0xE000_0000
"""Where PCI devices have their memory, up to the interrupt controllers."""
PCI_MEMORY_END = 0xFEC0_0000
IOAPIC = 0xFEC0_0000
HPET = 0xFED0_0000
HPET_BYTES = 0x400
LOCAL_APIC = 0xFEE0_0000

PAGE_SIZE = 4 * KIB


class E820Entry(NamedTuple):
    """One range of the memory map that guests are given. type: 1 RAM, 2 reserved."""

    base: int
    length: int
    type: int


E820_RAM = 1
E820_RESERVED = 2


def e820_map(ram: Sequence[tuple[int, int]]) -> list[E820Entry]:
    """Return the memory map for a guest, ascending.

    ram: as `GuestMemory.ranges`. The first range begins at 0 and reaches at least to 1 MiB.
    """
    low_end = ram[0][0] + ram[0][1]
    entries = [
        E820Entry(0, EBDA, E820_RAM),
        E820Entry(EBDA, BASE_MEMORY_END - EBDA, E820_RESERVED),
        E820Entry(ACPI_TABLES, HIGH_MEMORY - ACPI_TABLES, E820_RESERVED),
    ]
    if low_end > HIGH_MEMORY:
        entries.append(E820Entry(HIGH_MEMORY, low_end - HIGH_MEMORY, E820_RAM))
    entries += [E820Entry(IOAPIC, PAGE_SIZE, E820_RESERVED), E820Entry(LOCAL_APIC, PAGE_SIZE, E820_RESERVED)]
    entries += [E820Entry(base, length, E820_RAM) for base, length in ram[1:]]
    return entries


def align_up(address: int, alignment: int = PAGE_SIZE) -> int:
    """Return the next multiple of `alignment` at or above `address`."""
    return -(-address // alignment) * alignment
