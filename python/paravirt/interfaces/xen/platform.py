"""The I/O ports by which an HVM guest says that it has drivers of its own, so that emulated disks and network cards can
go, and by which it logs.

There are no emulated ones, so nothing goes. Source: Xen's docs/misc/hvm-emulated-unplug.pandoc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt.machine import Machine
    from paravirt.vcpu import Vcpu

__all__ = ["serve_platform_ports"]

FIRST_PORT, LAST_PORT = 0x10, 0x13
PORT_MAGIC, PORT_PROTOCOL = 0x10, 0x12
MAGIC = 0x49D2
PROTOCOL = 1
OPEN_BUS = 0xFFFF_FFFF


def serve_platform_ports(machine: Machine) -> None:
    """Be the device at these ports."""
    machine.serve_ports(FIRST_PORT, LAST_PORT, read=_read, write=_write)


def _read(_vcpu: Vcpu, port: int, size: int) -> int:
    return {(PORT_MAGIC, 2): MAGIC, (PORT_PROTOCOL, 1): PROTOCOL}.get((port, size), OPEN_BUS)


def _write(_vcpu: Vcpu, _port: int, _size: int, _value: int) -> None:
    """What to unplug, which driver it is, or a character for the log: accepted, and that is all."""
