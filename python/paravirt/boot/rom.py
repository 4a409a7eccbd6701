"""Firmware instead of a kernel: an image that the processor starts in at the reset vector, as SeaBIOS.

The machine does nothing for it but what a board does at power-on. What firmware asks for is in `firmware_files`.
Source: QEMU's `docs/specs/fw_cfg` for the device; SeaBIOS' documentation ("Runtime config files") for the names.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from paravirt.boot import acpi
from paravirt.boot.acpi_blob import CHECKSUM_OFFSET, AcpiBlob
from paravirt.boot.image import Kernel, KernelFile, ResetEntry
from paravirt.boot.layout import E820_RAM
from paravirt.errors import ImageError
from paravirt.memory import GuestMemory
from paravirt.symbols import SymbolTable

__all__ = ["FirmwareImage", "firmware_files"]

KIB = 1 << 10
IMAGE_UNIT = 64 * KIB
MAX_IMAGE_BYTES = 16 << 20

SERIAL_PORT_1 = 0x3F8
SLEEP_STATES = bytes((128, 0, 0, 128 | 1, 0, 128))
"""By state, S0 to S5: bit 7 if it exists, and what goes to PM1a_CNT."""

LOADER_FILE_BYTES = 56
LOADER_ENTRY_BYTES = 128
ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3
ZONE_HIGH, ZONE_FSEG = 1, 2
"""Anywhere below 4 GiB; between 0xF0000 and 1 MiB, where guests search the RSDP."""
TABLES_FILE, RSDP_FILE = "etc/acpi/tables", "etc/acpi/rsdp"


class FirmwareImage(Kernel):
    """An image of 64 KiB, or a multiple of that up to 16 MiB. data: its content."""

    def __init__(self, file: KernelFile) -> None:
        self.data = file.data
        size = len(file.data)
        if size % IMAGE_UNIT or not 0 < size <= MAX_IMAGE_BYTES:
            raise ImageError(file.name, f"firmware has a multiple of 64 KiB, up to 16 MiB; this has {size} bytes")

    def load(self, _memory: GuestMemory) -> ResetEntry:
        """Do nothing: it is in its ROM."""
        return ResetEntry()

    def symbols(self) -> SymbolTable:
        """Return no symbols: there are none."""
        return SymbolTable()


def firmware_files(ram: Sequence[tuple[int, int]], apic_ids: Sequence[int]) -> dict[str, bytes]:
    """Return what firmware asks the fw_cfg device for, by file name. ram: as `GuestMemory.ranges`."""
    blob = acpi.build_tables(apic_ids)
    return {
        "etc/e820": b"".join(struct.pack("<QQI", base, length, E820_RAM) for base, length in ram),
        "etc/system-states": SLEEP_STATES,
        "etc/sercon-port": SERIAL_PORT_1.to_bytes(2, "little"),
        TABLES_FILE: bytes(blob.data),
        RSDP_FILE: acpi.build_rsdp(blob),
        "etc/table-loader": _loader_script(blob),
    }


def _loader_script(blob: AcpiBlob) -> bytes:
    """Say how to place the tables: the blocks, then the pointers, which hold offsets until then, then the sums."""
    pointers = [(TABLES_FILE, pointer.offset, pointer.size) for pointer in blob.pointers]
    pointers += [(RSDP_FILE, acpi.RSDP_RSDT, 4), (RSDP_FILE, acpi.RSDP_XSDT, 8)]
    sums = [(TABLES_FILE, table.offset + CHECKSUM_OFFSET, table.offset, table.length) for table in blob.tables]
    sums += [
        (RSDP_FILE, acpi.RSDP_CHECKSUM, 0, acpi.RSDP_V1_BYTES),
        (RSDP_FILE, acpi.RSDP_EXTENDED_CHECKSUM, 0, acpi.RSDP_BYTES),
    ]
    entries = [
        struct.pack("<I56sIB", ALLOCATE, _name(TABLES_FILE), 64, ZONE_HIGH),
        struct.pack("<I56sIB", ALLOCATE, _name(RSDP_FILE), 16, ZONE_FSEG),
        *(
            struct.pack("<I56s56sIB", ADD_POINTER, _name(file), _name(TABLES_FILE), offset, size)
            for file, offset, size in pointers
        ),
        *(struct.pack("<I56sIII", ADD_CHECKSUM, _name(file), *numbers) for file, *numbers in sums),
    ]
    return b"".join(entry.ljust(LOADER_ENTRY_BYTES, b"\0") for entry in entries)


def _name(file: str) -> bytes:
    return file.encode("ascii").ljust(LOADER_FILE_BYTES, b"\0")
