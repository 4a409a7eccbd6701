r"""The DSDT: what of the board an operating system cannot find by asking.

Sleep states, processors, the PCI host bridge with its windows and interrupt routing, the devices behind the ISA bridge.
Source: ACPI specification 6.5; for `_PRT` and the PIIX3's routing, section 6.2.13 and the 82371SB's data sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from paravirt.boot import layout
from paravirt.boot.aml import (
    bus_numbers,
    device,
    eisa_id,
    io_ports,
    io_window,
    irq,
    memory,
    memory_window,
    name,
    package,
    resources,
    scope,
    string,
)

__all__ = ["SCI_IRQ", "build_dsdt_body", "pci_gsi"]

SLEEP_TYPE_S3, SLEEP_TYPE_S5 = 1, 0
"""What PM1a_CNT.SLP_TYP means on this board."""

PCI_SLOTS = 32
PCI_PINS = 4
PIRQ_GSIS = (10, 10, 11, 11)
"""Where the ISA bridge routes PIRQA# to PIRQD# (its registers 0x60 to 0x63)."""
CHIPSET_SLOT = 1
"""Its power management interrupts by the system control interrupt, whatever the bridge routes."""
SCI_IRQ = 9
ISA_BRIDGE_ADDRESS = 0x0001_0000
"""Device 1, function 0, as `_ADR` writes it."""
FW_CFG_PORT, FW_CFG_PORTS = 0x510, 12


def build_dsdt_body(apic_ids: Sequence[int]) -> bytes:
    """Return the table without its header. apic_ids: of the vCPUs; a processor's `_UID` is its place there."""
    return (
        name(r"\_S3", package(SLEEP_TYPE_S3, SLEEP_TYPE_S3, 0, 0))
        + name(r"\_S5", package(SLEEP_TYPE_S5, SLEEP_TYPE_S5, 0, 0))
        + scope(r"\_SB", *(_processor(uid) for uid in range(len(apic_ids))), _pci_host_bridge(), _hpet())
    )


def pci_gsi(slot: int, pin: int) -> int:
    """Return the global system interrupt of a PCI device's pin, INTA# being 0."""
    return SCI_IRQ if slot == CHIPSET_SLOT else PIRQ_GSIS[(slot + pin - 1) % PCI_PINS]


def _processor(uid: int) -> bytes:
    return device(f"C{uid:03X}", name("_HID", string("ACPI0007")), name("_UID", uid))


@cache  # It is the same in each machine, and each reset writes the tables anew.
def _pci_host_bridge() -> bytes:
    return device(
        "PCI0",
        name("_HID", eisa_id("PNP0A03")),
        name("_UID", 0),
        name("_ADR", 0),
        name(
            "_CRS",
            resources(
                bus_numbers(0, 0xFF),
                io_ports(0xCF8, 8),
                io_window(0, 0xCF7),
                io_window(0xD00, 0xFFFF),
                memory_window(layout.VGA_MEMORY, layout.VGA_MEMORY_END - 1),
                memory_window(layout.PCI_MEMORY, layout.PCI_MEMORY_END - 1),
            ),
        ),
        name("_PRT", _interrupt_routing()),
        _isa_bridge(),
    )


def _interrupt_routing() -> bytes:
    """All pins of all slots. The lines are wired to their interrupts, so no link device is between (second 0)."""
    return package(
        *(
            package(slot << 16 | 0xFFFF, pin, 0, pci_gsi(slot, pin))
            for slot in range(1, PCI_SLOTS)
            for pin in range(PCI_PINS)
        )
    )


def _isa_bridge() -> bytes:
    return device(
        "ISA",
        name("_ADR", ISA_BRIDGE_ADDRESS),
        _isa_device("COM1", eisa_id("PNP0501"), io_ports(0x3F8, 8), irq(4)),
        _isa_device("RTC", eisa_id("PNP0B00"), io_ports(0x70, 2), irq(8)),
        _isa_device("KBD", eisa_id("PNP0303"), io_ports(0x60, 1), io_ports(0x64, 1), irq(1)),
        _isa_device("MOU", eisa_id("PNP0F13"), irq(12)),
        _isa_device("FWCF", string("QEMU0002"), io_ports(FW_CFG_PORT, FW_CFG_PORTS)),
    )


def _isa_device(path: str, hardware_id: bytes, *descriptors: bytes) -> bytes:
    return device(path, name("_HID", hardware_id), name("_UID", 1), name("_CRS", resources(*descriptors)))


def _hpet() -> bytes:
    return device(
        "HPET",
        name("_HID", eisa_id("PNP0103")),
        name("_UID", 0),
        name("_CRS", resources(memory(layout.HPET, layout.HPET_BYTES))),
    )
