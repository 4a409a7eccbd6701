"""Event channel ports, and the older of the two ways in which a guest sees them: one bit for each.

Source: Xen's public/event_channel.h, "EVENT CHANNEL ABI"; common/event_2l.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from paravirt.interfaces.xen.domain import Domain, VcpuState
from paravirt.interfaces.xen.upcalls import Upcalls

__all__ = ["DEFAULT_PRIORITY", "Kind", "Port", "PortAbi", "TwoLevel"]

DEFAULT_PRIORITY = 7


class Kind(IntEnum):
    """What a port is bound to: EVTCHNSTAT_*."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    PIRQ = 3
    VIRQ = 4
    IPI = 5


@dataclass(slots=True)
class Port:
    """An open port.

    vcpu: which is told. remote_domain, remote_port: of UNBOUND and INTERDOMAIN. service: what the other end does on an
    event, if it is not the guest itself.
    """

    number: int
    kind: Kind
    vcpu: int = 0
    remote_domain: int = 0
    remote_port: int = 0
    virq: int = 0
    service: Callable[[], None] | None = None
    priority: int = DEFAULT_PRIORITY
    is_waiting: bool = False
    """It is pending, but has no event word yet."""
    queue: tuple[int, int] | None = None
    """The queue (vCPU, priority) where it was linked last."""


class PortAbi(Protocol):
    """How the guest sees pending and masked ports."""

    @property
    def max_ports(self) -> int:
        """How many ports it can show; their numbers are below."""

    def set_pending(self, port: Port) -> bool:
        """Make it pending, and tell the guest unless it is masked. False if it was pending."""

    def unmask(self, port: Port) -> None:
        """Clear its mask; if it is pending, tell the guest."""

    def is_pending(self, port: Port) -> bool:
        """Whether it is pending."""

    def clear_pending(self, port: Port) -> None:
        """It is closed: nothing is pending."""


class TwoLevel:
    """A bit for each port in the shared page, pending and masked; and for each vCPU one that says in which word to
    look."""

    PENDING = 2048
    """Offset in the shared page."""

    def __init__(self, domain: Domain, upcalls: Upcalls) -> None:
        self._domain = domain
        self._upcalls = upcalls

    @property
    def _word_bytes(self) -> int:
        return 8 if self._domain.is_wide else 4

    @property
    def max_ports(self) -> int:
        """As many as a word of words has bits."""
        return (8 * self._word_bytes) ** 2

    @property
    def _mask(self) -> int:
        return self.PENDING + self.max_ports // 8

    def set_pending(self, port: Port) -> bool:
        """Set the bits from the first level to the last; stop where one was set."""
        if port.number >= self.max_ports or self._set_bit(self.PENDING, port.number):
            return False
        if not self._get_bit(self._mask, port.number):
            self._tell(port)
        return True

    def unmask(self, port: Port) -> None:
        """Clear the mask bit."""
        if port.number >= self.max_ports:
            return
        self._clear_bit(self._mask, port.number)
        if self._get_bit(self.PENDING, port.number):
            self._tell(port)

    def is_pending(self, port: Port) -> bool:
        """Look at its bit."""
        return port.number < self.max_ports and self._get_bit(self.PENDING, port.number)

    def clear_pending(self, port: Port) -> None:
        """Clear its bit."""
        if port.number < self.max_ports:
            self._clear_bit(self.PENDING, port.number)

    def _tell(self, port: Port) -> None:
        state: VcpuState = self._domain.vcpus[port.vcpu]
        offset, size = self._domain.pending_sel
        selector = self._domain.read_info(state, offset, size)
        bit = 1 << port.number // (8 * size)
        if selector & bit:
            return
        self._domain.write_info(state, offset, (selector | bit).to_bytes(size, "little"))
        if self._domain.set_upcall_pending(state):
            self._upcalls.notify(state)

    def _get_bit(self, base: int, number: int) -> bool:
        return bool(self._domain.shared_info.read_int(base + number // 8, 1) >> number % 8 & 1)

    def _set_bit(self, base: int, number: int) -> bool:
        """Return what it was."""
        offset, bit = base + number // 8, 1 << number % 8
        byte = self._domain.shared_info.read_int(offset, 1)
        self._domain.shared_info.write_int(offset, 1, byte | bit)
        return bool(byte & bit)

    def _clear_bit(self, base: int, number: int) -> None:
        offset, bit = base + number // 8, 1 << number % 8
        byte = self._domain.shared_info.read_int(offset, 1)
        self._domain.shared_info.write_int(offset, 1, byte & ~bit)
