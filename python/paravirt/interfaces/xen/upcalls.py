"""Telling a guest of events: the callback by vector, by interrupt line, or by a vector of a vCPU's own.

Source: Xen's arch/x86/hvm/irq.c and public/hvm/params.h (HVM_PARAM_CALLBACK_IRQ).
"""

from __future__ import annotations

from collections.abc import Callable

from paravirt.interfaces.xen.domain import Domain, VcpuState
from paravirt.timers import Timer

__all__ = ["Upcalls"]

TYPE_SHIFT = 56
TYPE_GSI, TYPE_PCI_INTX, TYPE_VECTOR = 0, 1, 2
NUM_GSIS = 24
PIRQ_GSIS = (10, 10, 11, 11)
"""Where the chipset's four PCI interrupt lines end."""
FIRST_CHECK_NS = 10_000
LAST_CHECK_NS = 1_000_000_000
"""An interrupt line goes down once the guest has cleared evtchn_upcall_pending, and a local APIC that was off gets its
vector once it is on. Both are looked at after these times, each twice the last, and at each hypercall."""
APIC_IRR, APIC_ISR = 0x200, 0x100


class Upcalls:
    """How events become interrupts."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.callback = 0
        """HVM_PARAM_CALLBACK_IRQ."""
        self._line: int | None = None
        self._is_asserted = False
        self._checks: dict[int, Timer] = {}

    def reset(self) -> None:
        """No way is set up."""
        self.callback = 0
        self._line = None
        self._is_asserted = False
        for timer in self._checks.values():
            timer.cancel()
        self._checks.clear()

    def set_callback(self, value: int) -> None:
        """Take HVM_PARAM_CALLBACK_IRQ."""
        self._lower_line()
        self.callback = value
        self._line = _line_of(value)
        for state in self.domain.vcpus:
            self.attach(state)
        if self._line is not None and self.domain.is_upcall_pending(self.domain.vcpus[0]):
            self._raise_line()

    def attach(self, state: VcpuState) -> None:
        """Tell the vCPU where its byte is, and by which vector it is called. Something may be pending already."""
        gpa = self.domain.info_gpa(state)
        if self.callback >> TYPE_SHIFT == TYPE_VECTOR and state.upcall_vector is None and gpa is not None:
            state.vcpu.set_upcall(self.callback & 0xFF, gpa)
        else:
            state.vcpu.set_upcall(None)

    def notify(self, state: VcpuState) -> None:
        """evtchn_upcall_pending has become 1: interrupt the vCPU."""
        if state.polled is not None:
            state.polled = None
            state.vcpu.wake()
        if state.upcall_vector is not None:
            self._deliver(state, state.upcall_vector)
        elif self.callback >> TYPE_SHIFT == TYPE_VECTOR:
            state.vcpu.raise_upcall()
        elif state.vcpu.index == 0 and self._line is not None:
            self._raise_line()

    def after_call(self, state: VcpuState) -> None:
        """A vCPU has made a hypercall: what may have changed without our notice is looked at again."""
        if state.upcall_vector is not None:
            self._deliver_lost(state)
        elif self._is_asserted:
            self._check_line()
        elif self.callback >> TYPE_SHIFT == TYPE_VECTOR:
            state.vcpu.raise_upcall()

    def _check_later(self, state: VcpuState, delay_ns: int, check: Callable[[], bool]) -> None:
        """Check again and again, less and less often, as long as `check()` says so."""
        index = state.vcpu.index

        def look() -> None:
            if check() and delay_ns < LAST_CHECK_NS:
                self._check_later(state, 2 * delay_ns, check)

        machine = self.domain.machine
        if index in self._checks:
            self._checks[index].cancel()
        self._checks[index] = machine.call_at(machine.now_ns + delay_ns, look)

    # -- vectors of vCPUs' own

    def _deliver(self, state: VcpuState, vector: int) -> None:
        if not self.domain.machine.deliver_interrupt(state.vcpu.apic_id, vector):
            self._check_later(state, FIRST_CHECK_NS, lambda: self._deliver_lost(state))

    def _deliver_lost(self, state: VcpuState) -> bool:
        """Deliver the vector if the guest has events and does not know: its local APIC was off, or has been reset. True
        if it is still off."""
        vector = state.upcall_vector
        if vector is None or not self.domain.is_upcall_pending(state) or _is_in_apic(state, vector):
            return False
        return not self.domain.machine.deliver_interrupt(state.vcpu.apic_id, vector)

    # -- interrupt lines

    def _raise_line(self) -> None:
        if self._line is not None and not self._is_asserted:
            self._is_asserted = True
            self.domain.machine.set_irq(self._line, True)
            self._check_later(self.domain.vcpus[0], FIRST_CHECK_NS, self._check_line)

    def _lower_line(self) -> None:
        if self._line is not None and self._is_asserted:
            self._is_asserted = False
            self.domain.machine.set_irq(self._line, False)

    def _check_line(self) -> bool:
        """Lower the line if the guest has seen its events. True if it is still up."""
        if self._is_asserted and not self.domain.is_upcall_pending(self.domain.vcpus[0]):
            self._lower_line()
        return self._is_asserted


def _is_in_apic(state: VcpuState, vector: int) -> bool:
    """Whether a vector waits at a local APIC, or is being handled."""
    offset, bit = vector // 32 * 0x10, vector % 32
    try:
        return any(state.vcpu.read_apic(base + offset) >> bit & 1 for base in (APIC_IRR, APIC_ISR))
    except KeyError:
        return False


def _line_of(callback: int) -> int | None:
    """The global interrupt number that a callback names, if it names one."""
    kind = callback >> TYPE_SHIFT
    value = callback & (1 << TYPE_SHIFT) - 1
    if kind == TYPE_GSI and 0 < value < NUM_GSIS:
        return value
    if kind == TYPE_PCI_INTX:
        slot, pin = value >> 11 & 0x1F, value & 3
        return PIRQ_GSIS[(slot + pin - 1) & 3]
    return None
