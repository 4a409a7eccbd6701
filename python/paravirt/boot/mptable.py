"""Multiprocessor tables, for guests that know no ACPI or are told not to use it.

Source: Intel MultiProcessor Specification 1.4, chapter 4. Of the three places that guests search, the table is in the
last, the BIOS area.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

from paravirt.boot import layout
from paravirt.boot.acpi_blob import checksum
from paravirt.boot.acpi_dsdt import PCI_PINS, PCI_SLOTS, pci_gsi
from paravirt.memory import GuestMemory

__all__ = ["build_mp_table", "write_mp_table"]

SPECIFICATION_1_4 = 4
POINTER_BYTES = 16
HEADER_BYTES = 44
CHECKSUM_OFFSET = 7
"""In the header; in the floating pointer it is three bytes further."""
POINTER_CHECKSUM_OFFSET = 10

PROCESSOR, BUS, IOAPIC, INTERRUPT, LOCAL_INTERRUPT = range(5)
APIC_VERSION = 0x14
PROCESSOR_ENABLED, PROCESSOR_BOOT = 1, 2
SIGNATURE, FEATURES = 0x600, 0x201
"""Family 6; APIC and FPU. Guests ask CPUID for more."""
INT, NMI, EXTINT = 0, 1, 3
CONFORMS = 0
LEVEL_HIGH = 0xD
"""Active high and level-triggered."""
PCI_BUS, ISA_BUS = 0, 1
IOAPIC_ID = 0
"""As in the MADT: 8-bit processor ids leave none of the I/O APIC's 4-bit ids free, and they travel different buses."""
ALL_APICS = 0xFF
TIMER_IRQ, TIMER_PIN, CASCADE_IRQ = 0, 2, 2
ISA_IRQS = 16
PCI_IRQS = (10, 11)


def write_mp_table(memory: GuestMemory, apic_ids: Sequence[int]) -> None:
    """Write the floating pointer and, behind it, the table."""
    memory.write(layout.MP_TABLE, build_mp_table(layout.MP_TABLE, apic_ids))


def build_mp_table(gpa: int, apic_ids: Sequence[int]) -> bytes:
    """Return both for that address, a multiple of 16. apic_ids: of the vCPUs, the boot processor's first."""
    pointer = bytearray(struct.pack("<4sIBBB5x", b"_MP_", gpa + POINTER_BYTES, 1, SPECIFICATION_1_4, 0))
    pointer[POINTER_CHECKSUM_OFFSET] = checksum(pointer)
    entries = [
        *(_processor(apic_id, is_boot=index == 0) for index, apic_id in enumerate(apic_ids)),
        struct.pack("<BB6s", BUS, PCI_BUS, b"PCI   "),
        struct.pack("<BB6s", BUS, ISA_BUS, b"ISA   "),
        struct.pack("<BBBBI", IOAPIC, IOAPIC_ID, 0x11, 1, layout.IOAPIC),
        *_interrupts(),
        struct.pack("<BBHBBBB", LOCAL_INTERRUPT, EXTINT, CONFORMS, ISA_BUS, 0, apic_ids[0], 0),
        struct.pack("<BBHBBBB", LOCAL_INTERRUPT, NMI, CONFORMS, ISA_BUS, 0, ALL_APICS, 1),
    ]
    body = b"".join(entries)
    names = (b"PARAVIRT", b"paravirt".ljust(12))
    length = HEADER_BYTES + len(body)
    numbers = (0, 0, len(entries), layout.LOCAL_APIC, 0)
    table = bytearray(struct.pack("<4sHBB8s12sIHHII", b"PCMP", length, SPECIFICATION_1_4, 0, *names, *numbers) + body)
    table[CHECKSUM_OFFSET] = checksum(table)
    return bytes(pointer + table)


def _processor(apic_id: int, is_boot: bool) -> bytes:
    flags = PROCESSOR_ENABLED | (PROCESSOR_BOOT if is_boot else 0)
    return struct.pack("<BBBBII8x", PROCESSOR, apic_id, APIC_VERSION, flags, SIGNATURE, FEATURES)


@cache  # As it is the same in each machine.
def _interrupts() -> tuple[bytes, ...]:
    """The pins of the PCI slots, then the ISA interrupts that are left: the cascade has none, the timer is on pin 2."""
    pci = [
        _interrupt(LEVEL_HIGH, PCI_BUS, slot << 2 | pin, pci_gsi(slot, pin))
        for slot in range(1, PCI_SLOTS)
        for pin in range(PCI_PINS)
    ]
    isa = [
        _interrupt(CONFORMS, ISA_BUS, irq, TIMER_PIN if irq == TIMER_IRQ else irq)
        for irq in range(ISA_IRQS)
        if irq != CASCADE_IRQ and irq not in PCI_IRQS
    ]
    return (*pci, *isa)


def _interrupt(flags: int, bus: int, source: int, pin: int) -> bytes:
    return struct.pack("<BBHBBBB", INTERRUPT, INT, flags, bus, source, IOAPIC_ID, pin)
