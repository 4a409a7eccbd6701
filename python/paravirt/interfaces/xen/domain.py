"""The guest as Xen sees it: what all sections share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from paravirt.errors import GuestMemoryError
from paravirt.interfaces.xen.abi import DOMID_OWN, DOMID_SELF, DOMID_TOOLS, Errno, XenError
from paravirt.interfaces.xen.pages import MovablePage, PageMap

if TYPE_CHECKING:
    from paravirt.machine import Machine
    from paravirt.vcpu import Vcpu

__all__ = ["Domain", "VcpuState"]

VCPU_INFO_BYTES = 64
NUM_SHARED_VCPU_INFOS = 32
"""How many vCPUs have a place in the shared page."""
UPCALL_PENDING = 0
"""Offset of evtchn_upcall_pending in vcpu_info."""
PENDING_SEL_WIDE, PENDING_SEL_NARROW = 8, 4
TIME_INFO = 32
"""Offset of vcpu_time_info in vcpu_info."""


@dataclass(slots=True)
class VcpuState:
    """What belongs to one vCPU. Addresses are guest-physical."""

    vcpu: Vcpu
    info_gpa: int | None = None
    """Where the guest has moved its vcpu_info."""
    upcall_vector: int | None = None
    """Its own vector (HVMOP_set_evtchn_upcall_vector)."""
    polled: frozenset[int] | None = None
    """The ports that it waits for in SCHEDOP_poll; empty in SCHEDOP_block, which waits for any upcall."""
    virqs: dict[int, int] = field(default_factory=dict)
    """Ports of its virtual interrupts, by number."""


class Domain:
    """One guest."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.uuid = UUID(int=0)
        self.pages = PageMap(machine)
        self.shared_info = MovablePage(machine)
        self.is_wide = True
        """Whether the shared page is laid out for 64-bit guests: as the guest was when it last set up its hypercall
        page or callback (the width "latches")."""
        self.vcpus = [VcpuState(vcpu) for vcpu in machine.vcpus]

    def reset(self) -> None:
        """Begin anew."""
        self.pages.reset()
        self.shared_info = MovablePage(self.machine)
        self.is_wide = True
        self.vcpus = [VcpuState(vcpu) for vcpu in self.machine.vcpus]

    def find_vcpu(self, number: int) -> VcpuState:
        """Return a vCPU's state. Raises XenError if there is none."""
        if number >= len(self.vcpus):
            raise XenError(Errno.ENOENT)
        return self.vcpus[number]

    @staticmethod
    def check_domid(domid: int) -> None:
        """Raise XenError unless a guest names itself."""
        if domid not in (DOMID_SELF, DOMID_OWN):
            raise XenError(Errno.EPERM if domid == DOMID_TOOLS else Errno.ESRCH)

    # -- vcpu_info

    def info_gpa(self, state: VcpuState) -> int | None:
        """Where a vCPU's vcpu_info is, if it is in RAM."""
        if state.info_gpa is not None:
            return state.info_gpa
        page = self.shared_info.ram_gpa
        index = state.vcpu.index
        return None if page is None or index >= NUM_SHARED_VCPU_INFOS else page + VCPU_INFO_BYTES * index

    def read_info(self, state: VcpuState, offset: int, size: int) -> int:
        """Return a number in a vCPU's vcpu_info; 0 if it has none."""
        if state.info_gpa is None:
            index = state.vcpu.index
            return (
                self.shared_info.read_int(VCPU_INFO_BYTES * index + offset, size)
                if index < NUM_SHARED_VCPU_INFOS
                else 0
            )
        return self.machine.memory.read_int(state.info_gpa + offset, size)

    def write_info(self, state: VcpuState, offset: int, data: bytes) -> None:
        """Set a part of a vCPU's vcpu_info, if it has one."""
        if state.info_gpa is not None:
            self.machine.memory.write(state.info_gpa + offset, data)
        elif state.vcpu.index < NUM_SHARED_VCPU_INFOS:
            self.shared_info.write(VCPU_INFO_BYTES * state.vcpu.index + offset, data)

    # -- upcalls

    @property
    def pending_sel(self) -> tuple[int, int]:
        """Offset and size of evtchn_pending_sel."""
        return (PENDING_SEL_WIDE, 8) if self.is_wide else (PENDING_SEL_NARROW, 4)

    def is_upcall_pending(self, state: VcpuState) -> bool:
        """Whether events wait for a vCPU."""
        return self.read_info(state, UPCALL_PENDING, 1) != 0

    def set_upcall_pending(self, state: VcpuState) -> bool:
        """Say that events wait. False if that was said before."""
        if self.is_upcall_pending(state):
            return False
        self.write_info(state, UPCALL_PENDING, b"\1")
        return True

    def read_at(self, gpa: int, size: int) -> int | None:
        """Return a number in RAM; None if there is no RAM."""
        try:
            return self.machine.memory.read_int(gpa, size)
        except GuestMemoryError:
            return None
