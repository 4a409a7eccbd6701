"""Time: the reference counter, the page from which guests compute it, and frequencies.

Source: TLFS chapter "Timers": "Partition reference counter", "Partition reference TSC mechanism"; "Reenlightenment".

One formula makes time of the TSC for everything, the counter, the page and the timers: in units of 100 ns,
((tsc * scale) >> 64) + offset. Virtual time is the same for all vCPUs, so the page is good while all their TSCs are the
same; a guest that sets them apart finds it invalid and reads the counter instead. When it sets all of them to something
else, the page gets a new offset, so that time goes on from where it was.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from paravirt.cpuid import LAPIC_TIMER_HZ
from paravirt.errors import GuestFault
from paravirt.hypercalls.registers import MASK64
from paravirt.interfaces.base import msr_read, msr_write
from paravirt.interfaces.hyperv.definitions import (
    MSR_APIC_FREQUENCY,
    MSR_REENLIGHTENMENT_CONTROL,
    MSR_REFERENCE_TSC,
    MSR_TIME_REF_COUNT,
    MSR_TSC_EMULATION_CONTROL,
    MSR_TSC_EMULATION_STATUS,
    MSR_TSC_FREQUENCY,
    MSR_TSC_INVARIANT_CONTROL,
    NS_PER_TICK,
    PAGE_ADDRESS,
    PAGE_ENABLE,
    TICKS_PER_S,
    Privilege,
)
from paravirt.interfaces.hyperv.section import Section, check_page

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["ReferenceTime", "tsc_scale"]

MSR_TSC, MSR_TSC_ADJUST = 0x10, 0x3B

SEQUENCE_INVALID = 0
LAST_SEQUENCE = 0xFFFF_FFFE
"""0 and 0xFFFFFFFF both say that the page must not be used."""
REENLIGHTENMENT_VALID = 0xFFFF_FFFF_0001_00FF
EXPOSE_INVARIANT_TSC = 1 << 0
TSC_EMULATION_ENABLE = 1 << 0
TSC_EMULATION_IN_PROGRESS = 1 << 0


def tsc_scale(tsc_hz: int) -> int | None:
    """Return the scale of the reference TSC page, a fraction of 64 bits; None for a TSC too slow to have one."""
    scale = (TICKS_PER_S << 64) // tsc_hz
    return scale if scale <= MASK64 else None


class ReferenceTime(Section):
    """TIME_REF_COUNT, the reference TSC page, the frequency MSRs."""

    def __init__(self, interface: HyperV) -> None:
        super().__init__(interface)
        self._page = 0
        self._sequence = SEQUENCE_INVALID
        self._tsc_offset = 0
        self._offset = 0
        self._reenlightenment = 0
        self._tsc_emulation = 0
        self._tsc_invariant = 0
        self._was_shown = False

    def attached(self) -> None:
        """Look when the guest sets its TSC."""
        for index in (MSR_TSC, MSR_TSC_ADJUST):
            self.machine.watch_msr(index, lambda _vcpu: self.tsc_written())

    def reset(self) -> None:
        """No page. Time goes on."""
        if self._tsc_invariant:
            self._tsc_invariant = 0
            self.machine.show_cpu_feature("invtsc", self._was_shown)
        self._page = 0
        self._reenlightenment = 0
        self._tsc_emulation = 0
        self._follow_tsc()

    # -- the formula

    def now(self) -> int:
        """Time since the machine was made, in units of 100 ns."""
        return self._at(self._tsc())

    def ns_of(self, ticks: int) -> int:
        """The first nanosecond of virtual time at which reference time has come to `ticks`."""
        scale = self._scale
        if scale is None:
            return (ticks - self._offset) * NS_PER_TICK
        tsc = -(-(ticks - self._offset << 64) // scale) - self._tsc_offset
        return -(-tsc * 10**6 // self.machine.tsc_khz)

    def _at(self, tsc: int) -> int:
        scale = self._scale
        if scale is None:
            return self.machine.now_ns // NS_PER_TICK + self._offset
        return (tsc * scale >> 64) + self._offset

    @cached_property
    def _scale(self) -> int | None:
        return tsc_scale(self.machine.tsc_khz * 1000)

    def _tsc(self) -> int:
        """The TSC that all vCPUs have, or that they had when they last had the same."""
        vcpu = self.machine.vcpus[0]
        return (vcpu.tsc - vcpu.tsc_offset & MASK64) + self._tsc_offset & MASK64

    # -- the page

    def tsc_written(self) -> None:
        """A vCPU's TSC was set: keep time steady, and say whether the page may still be used."""
        self._follow_tsc()
        if self._page & PAGE_ENABLE:
            self._write_page()

    def _follow_tsc(self) -> None:
        offsets = {vcpu.tsc_offset for vcpu in self.machine.vcpus}
        if len(offsets) == 1 and self._tsc_offset not in offsets:
            now = self.now()
            (self._tsc_offset,) = offsets
            self._offset += now - self.now()

    def _write_page(self) -> None:
        """Write the page: first it is invalid, last it has a new sequence number."""
        gpa, memory = self._page & PAGE_ADDRESS, self.machine.memory
        memory.write_int(gpa, 8, SEQUENCE_INVALID)
        scale = self._scale
        memory.write_int(gpa + 8, 8, scale or 0)
        memory.write_int(gpa + 16, 8, self._offset)
        is_valid = scale is not None and all(vcpu.tsc_offset == self._tsc_offset for vcpu in self.machine.vcpus)
        if is_valid:
            self._sequence = self._sequence + 1 if self._sequence < LAST_SEQUENCE else 1
            memory.write_int(gpa, 4, self._sequence)

    # -- MSRs

    @msr_read(MSR_TIME_REF_COUNT, feature=Privilege.ACCESS_PARTITION_REFERENCE_COUNTER)
    def read_time_ref_count(self, vcpu: Vcpu) -> int:
        """Return reference time."""
        return self.now()

    @msr_read(MSR_REFERENCE_TSC, feature=Privilege.ACCESS_PARTITION_REFERENCE_TSC)
    def read_reference_tsc(self, vcpu: Vcpu) -> int:
        """Return where the page is."""
        return self._page

    @msr_write(MSR_REFERENCE_TSC, feature=Privilege.ACCESS_PARTITION_REFERENCE_TSC)
    def write_reference_tsc(self, vcpu: Vcpu, value: int) -> None:
        """Place the page."""
        check_page(self.machine, value)
        self._page = value
        self._follow_tsc()
        if value & PAGE_ENABLE:
            self._write_page()

    @msr_read(MSR_TSC_FREQUENCY, feature=Privilege.ACCESS_FREQUENCIES)
    def read_tsc_frequency(self, vcpu: Vcpu) -> int:
        """Return the TSC's frequency in Hz."""
        return self.machine.tsc_khz * 1000

    @msr_read(MSR_APIC_FREQUENCY, feature=Privilege.ACCESS_FREQUENCIES)
    def read_apic_frequency(self, vcpu: Vcpu) -> int:
        """Return the frequency of the local APIC's timer, undivided, in Hz."""
        return LAPIC_TIMER_HZ

    @msr_read(MSR_TSC_INVARIANT_CONTROL, feature=Privilege.ACCESS_TSC_INVARIANT)
    def read_tsc_invariant_control(self, vcpu: Vcpu) -> int:
        """Return whether the guest has asked CPUID to say that the TSC is invariant."""
        return self._tsc_invariant

    @msr_write(MSR_TSC_INVARIANT_CONTROL, feature=Privilege.ACCESS_TSC_INVARIANT)
    def write_tsc_invariant_control(self, vcpu: Vcpu, value: int) -> None:
        """Ask for that. It cannot be taken back."""
        if value & ~EXPOSE_INVARIANT_TSC or self._tsc_invariant & ~value:
            raise GuestFault
        if value & ~self._tsc_invariant:
            self._tsc_invariant = value
            self._was_shown = self.machine.show_cpu_feature("invtsc", True)

    # -- reenlightenment: news of another TSC frequency, which a machine's never has

    @msr_read(MSR_REENLIGHTENMENT_CONTROL, feature=Privilege.ACCESS_REENLIGHTENMENT)
    def read_reenlightenment_control(self, vcpu: Vcpu) -> int:
        """Return which vector tells of it, and whom."""
        return self._reenlightenment

    @msr_write(MSR_REENLIGHTENMENT_CONTROL, feature=Privilege.ACCESS_REENLIGHTENMENT)
    def write_reenlightenment_control(self, vcpu: Vcpu, value: int) -> None:
        """Say which vector tells of it, and whom."""
        if value & ~REENLIGHTENMENT_VALID & MASK64:
            raise GuestFault
        self._reenlightenment = value

    @msr_read(MSR_TSC_EMULATION_CONTROL, feature=Privilege.ACCESS_REENLIGHTENMENT)
    def read_tsc_emulation_control(self, vcpu: Vcpu) -> int:
        """Return whether the guest wants the TSC emulated after a change of its frequency."""
        return self._tsc_emulation

    @msr_write(MSR_TSC_EMULATION_CONTROL, feature=Privilege.ACCESS_REENLIGHTENMENT)
    def write_tsc_emulation_control(self, vcpu: Vcpu, value: int) -> None:
        """Say whether the guest wants that."""
        if value & ~TSC_EMULATION_ENABLE:
            raise GuestFault
        self._tsc_emulation = value

    @msr_read(MSR_TSC_EMULATION_STATUS, feature=Privilege.ACCESS_REENLIGHTENMENT)
    def read_tsc_emulation_status(self, vcpu: Vcpu) -> int:
        """Return whether it is being emulated: never."""
        return 0

    @msr_write(MSR_TSC_EMULATION_STATUS, feature=Privilege.ACCESS_REENLIGHTENMENT)
    def write_tsc_emulation_status(self, vcpu: Vcpu, value: int) -> None:
        """End the emulation that is not there."""
        if value & ~TSC_EMULATION_IN_PROGRESS:
            raise GuestFault
