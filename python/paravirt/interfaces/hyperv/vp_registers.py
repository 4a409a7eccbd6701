"""Registers of virtual processors by name, one's own and others'.

Source: TLFS "HvCallGetVpRegisters", "HvCallSetVpRegisters", HV_REGISTER_NAME. The registers are those of this
interface, most of which are MSRs too; the processor's own (RAX, CR3 and so on) are for whoever owns a partition, not
for what runs in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.errors import GuestFault
from paravirt.hypercalls.registers import MASK64
from paravirt.interfaces.hyperv.definitions import (
    HVCALL_GET_VP_REGISTERS,
    HVCALL_SET_VP_REGISTERS,
    LEAF_FEATURES,
    LEAF_LIMITS,
    LEAF_RECOMMENDATIONS,
    LEAF_VERSION,
    MSR_CRASH_P0,
    MSR_EOI,
    MSR_EOM,
    MSR_GUEST_OS_ID,
    MSR_HYPERCALL,
    MSR_ICR,
    MSR_REFERENCE_TSC,
    MSR_SCONTROL,
    MSR_SIEFP,
    MSR_SIMP,
    MSR_SINT0,
    MSR_STIMER0_CONFIG,
    MSR_SVERSION,
    MSR_TIME_REF_COUNT,
    MSR_TPR,
    MSR_VP_ASSIST_PAGE,
    MSR_VP_INDEX,
    MSR_VP_RUNTIME,
    NUM_CRASH_PARAMETERS,
    NUM_SINTS,
    NUM_TIMERS,
    Privilege,
    Status,
)
from paravirt.interfaces.hyperv.hypercalls import Refusal, Request, hv_call
from paravirt.interfaces.hyperv.section import Section

if TYPE_CHECKING:
    from paravirt.interfaces.base import MsrEntry
    from paravirt.vcpu import Vcpu

__all__ = ["VpRegisters"]

PARTITION_SELF = MASK64
VP_SELF = 0xFFFF_FFFE
HEADER_SIZE, NAME_SIZE, VALUE_SIZE = 16, 4, 16
ASSIGNMENT_SIZE = 32
"""HV_REGISTER_ASSOC: name, 12 bytes of nothing, value."""

LEAVES = {0x100: LEAF_VERSION, 0x200: LEAF_FEATURES, 0x201: LEAF_RECOMMENDATIONS, 0x202: LEAF_LIMITS}
"""Registers that hold what a CPUID leaf says, by name."""

MSRS = {
    **{0x210 + number: MSR_CRASH_P0 + number for number in range(NUM_CRASH_PARAMETERS + 1)},
    0x9_0000: MSR_VP_RUNTIME,
    0x9_0001: MSR_HYPERCALL,
    0x9_0002: MSR_GUEST_OS_ID,
    0x9_0003: MSR_VP_INDEX,
    0x9_0004: MSR_TIME_REF_COUNT,
    0x9_0010: MSR_EOI,
    0x9_0011: MSR_ICR,
    0x9_0012: MSR_TPR,
    0x9_0013: MSR_VP_ASSIST_PAGE,
    0x9_0017: MSR_REFERENCE_TSC,
    **{0xA_0000 + number: MSR_SINT0 + number for number in range(NUM_SINTS)},
    0xA_0010: MSR_SCONTROL,
    0xA_0011: MSR_SVERSION,
    0xA_0012: MSR_SIEFP,
    0xA_0013: MSR_SIMP,
    0xA_0014: MSR_EOM,
    **{0xB_0000 + number: MSR_STIMER0_CONFIG + number for number in range(2 * NUM_TIMERS)},
}
"""Registers that are MSRs too, by name."""


class VpRegisters(Section):
    """GetVpRegisters and SetVpRegisters."""

    @hv_call(
        HVCALL_GET_VP_REGISTERS,
        header=HEADER_SIZE,
        element=NAME_SIZE,
        output=VALUE_SIZE,
        requires=Privilege.ACCESS_VP_REGISTERS,
    )
    def get_vp_registers(self, request: Request) -> None:
        """Return a list of registers."""
        vcpu = self._target(request)
        for element in request.elements:
            value = self._read(vcpu, int.from_bytes(element, "little"))
            request.output += value.to_bytes(VALUE_SIZE, "little")
            request.reps_done += 1

    @hv_call(
        HVCALL_SET_VP_REGISTERS,
        header=HEADER_SIZE,
        element=ASSIGNMENT_SIZE,
        requires=Privilege.ACCESS_VP_REGISTERS,
    )
    def set_vp_registers(self, request: Request) -> None:
        """Set a list of registers."""
        vcpu = self._target(request)
        for element in request.elements:
            name, value = (int.from_bytes(part, "little") for part in (element[:NAME_SIZE], element[-VALUE_SIZE:]))
            self._write(vcpu, name, value)
            request.reps_done += 1

    def _target(self, request: Request) -> Vcpu:
        if request.u64(0) != PARTITION_SELF:
            raise Refusal(Status.INVALID_PARTITION_ID)
        if request.u32(12):
            raise Refusal(Status.INVALID_PARAMETER)  # A trust level of its own, of which there is one only.
        index, vcpus = request.u32(8), self.machine.vcpus
        if index == VP_SELF:
            return request.vcpu
        if index >= len(vcpus):
            raise Refusal(Status.INVALID_VP_INDEX)
        return vcpus[index]

    def _read(self, vcpu: Vcpu, name: int) -> int:
        if name in LEAVES:
            words = self.interface.cpuid_leaves()[LEAVES[name]]
            return sum(word << 32 * position for position, word in enumerate(words))
        try:
            return self._access(vcpu, name, write=False) & MASK64
        except GuestFault:
            raise Refusal(Status.INVALID_PARAMETER) from None

    def _write(self, vcpu: Vcpu, name: int, value: int) -> None:
        if value > MASK64:
            raise Refusal(Status.INVALID_REGISTER_VALUE)
        try:
            self._access(vcpu, name, value, write=True)
        except GuestFault:
            raise Refusal(Status.INVALID_REGISTER_VALUE) from None

    def _access(self, vcpu: Vcpu, name: int, *value: int, write: bool) -> int:
        """Read or write the MSR that a register is, as the processor itself would."""
        if name not in MSRS:
            raise Refusal(Status.INVALID_PARAMETER)
        index = MSRS[name]
        entry = self._find_msr(index, write)
        if entry is None:
            raise Refusal(Status.ACCESS_DENIED)
        where = (index,) if entry.with_index else ()
        result: int | None = entry.handler(vcpu, *where, *value)
        return result or 0

    def _find_msr(self, index: int, write: bool) -> MsrEntry | None:
        entries = self.interface.msrs()
        return next((each for each in entries if each.first <= index <= each.last and each.write == write), None)
