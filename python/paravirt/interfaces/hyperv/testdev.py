"""The device of test kernels that makes connections and raises synthetic interrupts: kvm-unit-tests' `hyperv-testdev`.

A 32-bit write to port 0x3000: bits 7:0 SINT, 15:8 VP index, 23:16 command, 31:24 connection.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from paravirt.interfaces.hyperv.definitions import NUM_SINTS

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["TestDevice"]

FIRST_PORT, LAST_PORT = 0x3000, 0x3003


class Command(IntEnum):
    """What to do."""

    CREATE_ROUTE = 1
    DESTROY_ROUTE = 2
    RAISE = 3
    CREATE_MESSAGE_CONNECTION = 4
    DESTROY_MESSAGE_CONNECTION = 5
    CREATE_EVENT_CONNECTION = 6
    DESTROY_EVENT_CONNECTION = 7


class TestDevice:
    """The device. What it cannot do it ignores."""

    __test__ = False  # Not a test of pytest's.

    def __init__(self, interface: HyperV) -> None:
        self._interface = interface
        self._routes: set[tuple[int, int]] = set()
        interface.machine.serve_ports(FIRST_PORT, LAST_PORT, read=self._read, write=self._write)

    def reset(self) -> None:
        """No routes."""
        self._routes.clear()

    @staticmethod
    def _read(_vcpu: Vcpu, _port: int, _size: int) -> int:
        return 0

    def _write(self, _vcpu: Vcpu, port: int, size: int, value: int) -> None:
        sint, vp, command, connection = value.to_bytes(4, "little")
        vcpus = self._interface.machine.vcpus
        if (port, size) != (FIRST_PORT, 4) or vp >= len(vcpus) or sint >= NUM_SINTS:
            return
        synic, connections = self._interface.synic, self._interface.connections
        match command:
            case Command.CREATE_ROUTE:
                self._routes.add((vp, sint))
            case Command.DESTROY_ROUTE:
                self._routes.discard((vp, sint))
            case Command.RAISE if (vp, sint) in self._routes:
                synic.interrupt(vcpus[vp], sint)
            case Command.CREATE_MESSAGE_CONNECTION:
                connections.connect_messages(connection, vcpus[vp], sint)
            case Command.DESTROY_MESSAGE_CONNECTION:
                connections.disconnect_messages(connection)
            case Command.CREATE_EVENT_CONNECTION:
                connections.connect_events(connection, vcpus[vp], sint, flag=connection)
            case Command.DESTROY_EVENT_CONNECTION:
                connections.disconnect_events(connection)
