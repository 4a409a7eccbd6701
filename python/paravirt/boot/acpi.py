"""ACPI tables of the board: RSDP, RSDT, XSDT, FADT, FACS, MADT and a DSDT that knows how to switch off and to suspend.

Source: ACPI specification 6.5 chapter 5. Both 32- and 64-bit fields are filled in, since old guests read the former.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from paravirt.boot import layout
from paravirt.boot.layout import align_up
from paravirt.memory import GuestMemory

__all__ = ["build_tables", "waking_vector", "write_tables"]

OEM_ID = b"PARAVT"
OEM_TABLE_ID = b"PARAVIRT"
CREATOR_ID = b"PVRT"
HEADER_BYTES = 36

# The board's power management block, laid out as the PIIX4's at 0x600.
SCI_IRQ = 9
PM1A_EVENT = 0x600
PM1A_CONTROL = 0x604
PM_TIMER = 0x608
RESET_PORT = 0xCF9
RESET_VALUE = 6

FADT_BYTES = 276
FADT_REVISION = 6
FADT_MINOR_REVISION = 5
FLAG_WBINVD = 1 << 0
FLAG_NO_POWER_BUTTON = 1 << 4
FLAG_NO_SLEEP_BUTTON = 1 << 5
FLAG_TIMER_32_BITS = 1 << 8
FLAG_RESET_REGISTER = 1 << 10
BOOT_LEGACY_DEVICES = 1 << 0
BOOT_8042 = 1 << 1
BOOT_NO_VGA = 1 << 2

MADT_DUAL_8259 = 1
MADT_LOCAL_APIC = 0
MADT_IOAPIC = 1
MADT_OVERRIDE = 2
MADT_LOCAL_NMI = 4
LEVEL_HIGH = 0xD
"""Interrupt flags: active high, level-triggered."""
IOAPIC_ID = 0

S3_PACKAGE = b"\x08_S3_\x12\x06\x04\x01\x00\x00\x00"
r"""AML of `Name(\_S3, Package(4) {1, 0, 0, 0})`: sleep type 1 in PM1a_CNT suspends to RAM."""
S5_PACKAGE = b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"
r"""AML of `Name(\_S5, Package(4) {0, 0, 0, 0})`: sleep type 0 in PM1a_CNT switches off."""


def write_tables(memory: GuestMemory, apic_ids: Sequence[int]) -> None:
    """Write all tables, the RSDP at the start of their region."""
    memory.write(layout.ACPI_TABLES, build_tables(layout.ACPI_TABLES, apic_ids))


def build_tables(gpa: int, apic_ids: Sequence[int]) -> bytes:
    """Return all tables as one block for that address (64-byte aligned); the RSDP comes first.

    apic_ids: of the vCPUs in their order, each below 255.
    """
    facs_at = _facs_address(gpa)
    dsdt_at = facs_at + FACS_BYTES
    dsdt = _table(b"DSDT", 2, S3_PACKAGE + S5_PACKAGE)
    fadt_at = align_up(dsdt_at + len(dsdt), 8)
    fadt = _fadt(facs_at, dsdt_at)
    madt_at = align_up(fadt_at + len(fadt), 8)
    madt = _madt(apic_ids)
    rsdt_at = align_up(madt_at + len(madt), 8)
    rsdt = _table(b"RSDT", 1, struct.pack("<II", fadt_at, madt_at))
    xsdt_at = align_up(rsdt_at + len(rsdt), 8)
    xsdt = _table(b"XSDT", 1, struct.pack("<QQ", fadt_at, madt_at))
    block = bytearray(xsdt_at + len(xsdt) - gpa)
    placed = (
        (gpa, _rsdp(rsdt_at, xsdt_at)),
        (facs_at, _facs()),
        (dsdt_at, dsdt),
        (fadt_at, fadt),
        (madt_at, madt),
        (rsdt_at, rsdt),
        (xsdt_at, xsdt),
    )
    for address, table in placed:
        block[address - gpa : address - gpa + len(table)] = table
    return bytes(block)


def waking_vector(memory: GuestMemory) -> int:
    """Return where the guest wants to go on in real mode after it has been suspended; 0 if it has not said."""
    return memory.read_int(_facs_address(layout.ACPI_TABLES) + FACS_WAKING_VECTOR, 4)


def _facs_address(tables: int) -> int:
    return align_up(tables + RSDP_BYTES, 64)


RSDP_BYTES = 36
FACS_BYTES = 64
FACS_WAKING_VECTOR = 12


def _rsdp(rsdt_at: int, xsdt_at: int) -> bytes:
    rsdp = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, OEM_ID, 2, rsdt_at, RSDP_BYTES, xsdt_at, 0))
    rsdp[8] = _checksum(rsdp[:20])
    rsdp[32] = _checksum(rsdp)
    return bytes(rsdp)


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    length = HEADER_BYTES + len(body)
    header = struct.pack("<4sIBB6s8sI4sI", signature, length, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1)
    table = bytearray(header + body)
    table[9] = _checksum(table)
    return bytes(table)


def _checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all, itself included, 0."""
    return -sum(data) & 0xFF


def _facs() -> bytes:
    return struct.pack("<4sI", b"FACS", FACS_BYTES).ljust(FACS_BYTES, b"\0")


def _io_address(port: int, bits: int) -> bytes:
    """A generic address structure for an I/O port."""
    return struct.pack("<BBBBQ", 1, bits, 0, 0, port)


def _fadt(facs_at: int, dsdt_at: int) -> bytes:
    fadt = bytearray(FADT_BYTES)

    def put(offset: int, layout_text: str, *values: int) -> None:
        struct.pack_into("<" + layout_text, fadt, offset, *values)

    put(36, "II", facs_at, dsdt_at)
    put(46, "H", SCI_IRQ)
    put(56, "I", PM1A_EVENT)
    put(64, "I", PM1A_CONTROL)
    put(76, "I", PM_TIMER)
    put(88, "BBxB", 4, 2, 4)  # PM1_EVT_LEN, PM1_CNT_LEN, PM_TMR_LEN
    put(96, "HH", 0xFFFF, 0xFFFF)  # C2 and C3 latency: not supported
    put(108, "B", 0x32)  # CMOS register of the century
    put(109, "H", BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA)
    put(
        112,
        "I",
        FLAG_WBINVD | FLAG_NO_POWER_BUTTON | FLAG_NO_SLEEP_BUTTON | FLAG_TIMER_32_BITS | FLAG_RESET_REGISTER,
    )
    fadt[116:128] = _io_address(RESET_PORT, 8)
    put(128, "B", RESET_VALUE)
    put(131, "B", FADT_MINOR_REVISION)
    put(132, "QQ", facs_at, dsdt_at)
    fadt[148:160] = _io_address(PM1A_EVENT, 32)
    fadt[172:184] = _io_address(PM1A_CONTROL, 16)
    fadt[208:220] = _io_address(PM_TIMER, 32)
    return _table(b"FACP", FADT_REVISION, bytes(fadt[HEADER_BYTES:]))


def _madt(apic_ids: Sequence[int]) -> bytes:
    body = struct.pack("<II", layout.LOCAL_APIC, MADT_DUAL_8259)
    for uid, apic_id in enumerate(apic_ids):
        body += struct.pack("<BBBBI", MADT_LOCAL_APIC, 8, uid, apic_id, 1)
    body += struct.pack("<BBBBII", MADT_IOAPIC, 12, IOAPIC_ID, 0, layout.IOAPIC, 0)
    body += _override(0, 2, 0)  # The 8254 is on pin 2 of the IOAPIC.
    for irq in (5, 9, 10, 11):
        body += _override(irq, irq, LEVEL_HIGH)
    body += struct.pack("<BBBHB", MADT_LOCAL_NMI, 6, 0xFF, 0, 1)
    return _table(b"APIC", 3, body)


def _override(irq: int, gsi: int, flags: int) -> bytes:
    return struct.pack("<BBBBIH", MADT_OVERRIDE, 10, 0, irq, gsi, flags)
