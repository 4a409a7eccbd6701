"""The local APIC by MSRs of its own, and interrupts to many processors by one call.

Source: TLFS chapter "Virtual interrupt controller": "Local APIC MSRs", "HvCallSendSyntheticClusterIpi", "...Ex".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paravirt.errors import GuestFault
from paravirt.interfaces.base import msr_read, msr_write
from paravirt.interfaces.hyperv.definitions import (
    HVCALL_SEND_SYNTHETIC_CLUSTER_IPI,
    HVCALL_SEND_SYNTHETIC_CLUSTER_IPI_EX,
    MSR_EOI,
    MSR_ICR,
    MSR_TPR,
    Privilege,
    Recommendation,
    Status,
)
from paravirt.interfaces.hyperv.hypercalls import Refusal, Request, hv_call
from paravirt.interfaces.hyperv.section import Section
from paravirt.interfaces.hyperv.virtual_processors import in_mask, in_vp_set

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["LocalApic"]

APIC_TPR, APIC_EOI, APIC_ICR = 0x80, 0xB0, 0x300
MSR_TO_REGISTER = {MSR_EOI: APIC_EOI, MSR_ICR: APIC_ICR, MSR_TPR: APIC_TPR}
LEAST_VECTOR, LAST_VECTOR = 0x10, 0xFF
TPR_MASK = 0xFF


class LocalApic(Section):
    """EOI, ICR, TPR; SendSyntheticClusterIpi."""

    @msr_read(MSR_EOI, MSR_TPR, feature=Privilege.ACCESS_INTR_CTRL)
    def read_register(self, vcpu: Vcpu, index: int) -> int:
        """Read a register. EOI can only be written, and reads as 0."""
        if index == MSR_EOI:
            return 0
        try:
            return vcpu.read_apic(MSR_TO_REGISTER[index])
        except KeyError:
            raise GuestFault from None

    @msr_write(MSR_EOI, MSR_TPR, feature=Privilege.ACCESS_INTR_CTRL)
    def write_register(self, vcpu: Vcpu, index: int, value: int) -> None:
        """Write a register, with all that follows from it."""
        if index == MSR_EOI:
            value = 0
        elif index == MSR_TPR:
            value &= TPR_MASK
        try:
            vcpu.write_apic(MSR_TO_REGISTER[index], value)
        except KeyError:
            raise GuestFault from None

    @hv_call(HVCALL_SEND_SYNTHETIC_CLUSTER_IPI, header=16, requires=Recommendation.CLUSTER_IPI)
    def send_synthetic_cluster_ipi(self, request: Request) -> None:
        """Send an interrupt to the processors of a mask."""
        vector = _vector(request)
        self._send(vector, in_mask(self.machine.vcpus, request.u64(8)))

    @hv_call(
        HVCALL_SEND_SYNTHETIC_CLUSTER_IPI_EX,
        header=24,
        variable_header=True,
        requires=Recommendation.CLUSTER_IPI,
    )
    def send_synthetic_cluster_ipi_ex(self, request: Request) -> None:
        """Send an interrupt to the processors of a sparse set."""
        vector = _vector(request)
        self._send(vector, in_vp_set(self.machine.vcpus, request.u64(8), request.u64(16), request.words))

    def _send(self, vector: int, targets: Iterable[Vcpu]) -> None:
        for target in targets:
            self.machine.deliver_interrupt(target.apic_id, vector)


def _vector(request: Request) -> int:
    """The vector; above it, the trust level that it is for, of which there is one only."""
    vector = request.u32(0)
    if not LEAST_VECTOR <= vector <= LAST_VECTOR or request.u32(4):
        raise Refusal(Status.INVALID_HYPERCALL_INPUT)
    return vector
