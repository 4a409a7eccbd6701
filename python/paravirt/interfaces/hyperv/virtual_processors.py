"""Virtual processors: which is which, how long they have run, how they sleep, the page they share with the hypervisor,
and sets of them as hypercalls name them.

Source: TLFS chapter "Virtual processors", "Sparse virtual processor set".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from paravirt.interfaces.base import msr_read, msr_write
from paravirt.interfaces.hyperv.definitions import (
    HVCALL_NOTIFY_LONG_SPIN_WAIT,
    MSR_GUEST_IDLE,
    MSR_VP_ASSIST_PAGE,
    MSR_VP_INDEX,
    MSR_VP_RUNTIME,
    NS_PER_TICK,
    PAGE_ADDRESS,
    PAGE_ENABLE,
    Privilege,
    Status,
)
from paravirt.interfaces.hyperv.hypercalls import Refusal, Request, hv_call
from paravirt.interfaces.hyperv.section import Section, enable_page

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["VirtualProcessors", "in_mask", "in_vp_set"]

VP_SET_SPARSE, VP_SET_ALL = 0, 1
VPS_PER_BANK = 64


class VirtualProcessors(Section):
    """VP index, run time, idle sleep, VP assist page, NotifyLongSpinWait."""

    def __init__(self, interface: HyperV) -> None:
        super().__init__(interface)
        self._assist_pages: dict[int, int] = {}

    def reset(self) -> None:
        """No vCPU has an assist page."""
        for index in self._assist_pages:
            self.machine.vcpus[index].set_pv_eoi(None)
        self._assist_pages.clear()

    @msr_read(MSR_VP_INDEX, feature=Privilege.ACCESS_VP_INDEX)
    def read_vp_index(self, vcpu: Vcpu) -> int:
        """Return its number, by which hypercalls name it."""
        return vcpu.index

    @msr_read(MSR_VP_RUNTIME, feature=Privilege.ACCESS_VP_RUN_TIME)
    def read_vp_runtime(self, vcpu: Vcpu) -> int:
        """Return how long it has been running, in units of 100 ns."""
        return vcpu.run_ns // NS_PER_TICK

    @msr_read(MSR_GUEST_IDLE, feature=Privilege.ACCESS_GUEST_IDLE)
    def read_guest_idle(self, vcpu: Vcpu) -> int:
        """Sleep until an interrupt arrives, even if RFLAGS.IF holds it off."""
        vcpu.doze()
        return 0

    @msr_read(MSR_VP_ASSIST_PAGE, feature=Privilege.ACCESS_INTR_CTRL)
    def read_vp_assist_page(self, vcpu: Vcpu) -> int:
        """Return where its assist page is."""
        return self._assist_pages.get(vcpu.index, 0)

    @msr_write(MSR_VP_ASSIST_PAGE, feature=Privilege.ACCESS_INTR_CTRL)
    def write_vp_assist_page(self, vcpu: Vcpu, value: int) -> None:
        """Place its assist page, whose first word spares the guest its ends of interrupts. All else in it is for nested
        hypervisors and stays 0."""
        enable_page(self.machine, self._assist_pages.get(vcpu.index, 0), value)
        self._assist_pages[vcpu.index] = value
        vcpu.set_pv_eoi(value & PAGE_ADDRESS if value & PAGE_ENABLE else None)

    @hv_call(HVCALL_NOTIFY_LONG_SPIN_WAIT, header=4)
    def notify_long_spin_wait(self, request: Request) -> None:
        """Do nothing: every vCPU gets its turn anyway."""


def in_mask(vcpus: Sequence[Vcpu], mask: int) -> Iterable[Vcpu]:
    """Return the vCPUs in a processor mask of 64 bits; bits of those that do not exist mean nothing."""
    return [vcpu for vcpu in vcpus[:VPS_PER_BANK] if mask >> vcpu.index & 1]


def in_vp_set(vcpus: Sequence[Vcpu], set_format: int, valid_banks: int, banks: Sequence[int]) -> Iterable[Vcpu]:
    """Return the vCPUs in a sparse set: one word of 64 bits for each valid bank. Raises Refusal if it is none."""
    if len(banks) != valid_banks.bit_count():
        raise Refusal(Status.INVALID_HYPERCALL_INPUT)
    if set_format == VP_SET_ALL:
        return vcpus
    if set_format != VP_SET_SPARSE:
        raise Refusal(Status.INVALID_PARAMETER)
    numbers = [number for number in range(VPS_PER_BANK) if valid_banks >> number & 1]
    masks = dict(zip(numbers, banks, strict=True))
    return [vcpu for vcpu in vcpus if masks.get(vcpu.index // VPS_PER_BANK, 0) >> vcpu.index % VPS_PER_BANK & 1]
