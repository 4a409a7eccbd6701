"""ACPI tables of the board: RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET, WAET, and the DSDT of `acpi_dsdt`.

Source: ACPI specification 6.5 chapter 5, and the specifications of HPET and WAET that it links to. Both 32- and 64-bit
fields are filled in, since old guests read the former.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from paravirt.boot import layout
from paravirt.boot.acpi_blob import FACS_BYTES, FACS_WAKING_VECTOR, AcpiBlob, Pointer, checksum
from paravirt.boot.acpi_dsdt import SCI_IRQ, build_dsdt_body
from paravirt.memory import GuestMemory

__all__ = ["build_rsdp", "build_tables", "waking_vector", "write_tables"]

RSDP_BYTES = 36
RSDP_V1_BYTES = 20
RSDP_CHECKSUM, RSDP_RSDT, RSDP_XSDT, RSDP_EXTENDED_CHECKSUM = 8, 16, 24, 32
TABLES_OFFSET = 64
"""Where the tables begin behind the RSDP: the FACS is the first and wants that alignment."""

# The board's power management block, laid out as the PIIX4's at 0x600.
PM1A_EVENT = 0x600
PM1A_CONTROL = 0x604
PM_TIMER = 0x608
RESET_PORT = 0xCF9
RESET_VALUE = 6

FADT_BYTES = 276
FADT_REVISION = 6
FADT_MINOR_REVISION = 5
FADT_FACS, FADT_DSDT, FADT_X_DSDT = 36, 40, 140
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

HPET_BLOCK_ID = 0x8086_A201
"""Its own register 0: three comparators, 64 bits, able to replace the legacy timers."""
HPET_MIN_TICKS = 100
WAET_PM_TIMER_GOOD = 1 << 1
"""Reading the PM timer once is enough. (Bit 0, an RTC whose interrupt needs no reading of register C, is not so.)"""


def write_tables(memory: GuestMemory, apic_ids: Sequence[int]) -> None:
    """Write all tables, the RSDP at the start of their region."""
    at = layout.ACPI_TABLES
    blob = build_tables(apic_ids)
    memory.write(at, _finished_rsdp(blob, at + TABLES_OFFSET))
    memory.write(at + TABLES_OFFSET, blob.placed(at + TABLES_OFFSET))


def waking_vector(memory: GuestMemory) -> int:
    """Return where the guest wants to go on in real mode after it has been suspended; 0 if it has not said."""
    return memory.read_int(layout.ACPI_TABLES + TABLES_OFFSET + FACS_WAKING_VECTOR, 4)


def build_tables(apic_ids: Sequence[int]) -> AcpiBlob:
    """Return all tables but the RSDP, the FACS first. apic_ids: of the vCPUs in their order, each below 255."""
    blob = AcpiBlob()
    facs = blob.add_raw(struct.pack("<4sI", b"FACS", FACS_BYTES).ljust(FACS_BYTES, b"\0"))
    dsdt = blob.add(b"DSDT", 2, build_dsdt_body(apic_ids))
    tables = [
        blob.add(b"FACP", FADT_REVISION, *_fadt(facs, dsdt)),
        blob.add(b"APIC", 3, _madt(apic_ids)),
        blob.add(b"HPET", 1, _hpet()),
        blob.add(b"WAET", 1, struct.pack("<I", WAET_PM_TIMER_GOOD)),
    ]
    blob.rsdt = blob.add_index(b"RSDT", tables, 4)
    blob.xsdt = blob.add_index(b"XSDT", tables, 8)
    return blob


def build_rsdp(blob: AcpiBlob) -> bytes:
    """Return the RSDP with offsets in the blob for addresses, and without its two checksums."""
    signature = b"RSD PTR "
    return struct.pack("<8sB6sBIIQB3x", signature, 0, blob.OEM_ID, 2, blob.rsdt, RSDP_BYTES, blob.xsdt, 0)


def _finished_rsdp(blob: AcpiBlob, tables_at: int) -> bytes:
    rsdp = bytearray(build_rsdp(blob))
    struct.pack_into("<I", rsdp, RSDP_RSDT, tables_at + blob.rsdt)
    struct.pack_into("<Q", rsdp, RSDP_XSDT, tables_at + blob.xsdt)
    rsdp[RSDP_CHECKSUM] = checksum(rsdp[:RSDP_V1_BYTES])
    rsdp[RSDP_EXTENDED_CHECKSUM] = checksum(rsdp)
    return bytes(rsdp)


def _io_address(port: int, bits: int) -> bytes:
    """A generic address structure for an I/O port."""
    return struct.pack("<BBBBQ", 1, bits, 0, 0, port)


def _fadt(facs: int, dsdt: int) -> tuple[bytes, list[Pointer]]:
    """The body, and where it points to the other two, which are given by their offsets in the blob."""
    fadt = bytearray(FADT_BYTES)

    def put(offset: int, layout_text: str, *values: int) -> None:
        struct.pack_into("<" + layout_text, fadt, offset, *values)

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
    fadt[148:160] = _io_address(PM1A_EVENT, 32)
    fadt[172:184] = _io_address(PM1A_CONTROL, 16)
    fadt[208:220] = _io_address(PM_TIMER, 32)
    # X_FIRMWARE_CTRL stays 0: the FACS is below 4 GiB, and only one of the two may be given (table 5.9).
    pointers = [Pointer(FADT_FACS, 4, facs), Pointer(FADT_DSDT, 4, dsdt), Pointer(FADT_X_DSDT, 8, dsdt)]
    return bytes(fadt[AcpiBlob.HEADER_BYTES :]), pointers


def _madt(apic_ids: Sequence[int]) -> bytes:
    body = struct.pack("<II", layout.LOCAL_APIC, MADT_DUAL_8259)
    for uid, apic_id in enumerate(apic_ids):
        body += struct.pack("<BBBBI", MADT_LOCAL_APIC, 8, uid, apic_id, 1)
    body += struct.pack("<BBBBII", MADT_IOAPIC, 12, IOAPIC_ID, 0, layout.IOAPIC, 0)
    body += _override(0, 2, 0)  # The 8254 is on pin 2 of the IOAPIC.
    for irq in (5, 9, 10, 11):
        body += _override(irq, irq, LEVEL_HIGH)
    body += struct.pack("<BBBHB", MADT_LOCAL_NMI, 6, 0xFF, 0, 1)
    return body


def _override(irq: int, gsi: int, flags: int) -> bytes:
    return struct.pack("<BBBBIH", MADT_OVERRIDE, 10, 0, irq, gsi, flags)


def _hpet() -> bytes:
    address = struct.pack("<BBBBQ", 0, 64, 0, 0, layout.HPET)
    return struct.pack("<I12sBHB", HPET_BLOCK_ID, address, 0, HPET_MIN_TICKS, 0)
