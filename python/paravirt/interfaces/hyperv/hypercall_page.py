"""How a guest comes to make hypercalls: it says who it is, and asks for a page with the instruction in it.

Source: TLFS section "Establishing the hypercall interface". The page is an overlay there: it hides what the guest has
at that address, which comes back when the page goes. Here the content of the guest's page is kept aside meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.errors import GuestFault
from paravirt.hypercalls.fixup import Policy, guest_hypercall
from paravirt.interfaces.base import msr_read, msr_write
from paravirt.interfaces.hyperv.definitions import (
    MSR_GUEST_OS_ID,
    MSR_HYPERCALL,
    PAGE_ADDRESS,
    PAGE_ENABLE,
    PAGE_SIZE,
    Feature,
    Privilege,
)
from paravirt.interfaces.hyperv.section import Section, check_page

if TYPE_CHECKING:
    from paravirt.hypercalls.dispatch import Call
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["HypercallPage"]

LOCKED = 1 << 1
RET = b"\xc3"
INT3 = b"\xcc"
CALL_MARK = 1 << 31
"""In EAX at the instruction: a call that does not come from the page but is meant for this interface all the same."""


class HypercallPage(Section):
    """GUEST_OS_ID, HYPERCALL and the page."""

    def __init__(self, interface: HyperV) -> None:
        super().__init__(interface)
        self.guest_os_id = 0
        self._hypercall = 0
        self._hidden: bytes | None = None

    def reset(self) -> None:
        """The page goes; what it hid comes back."""
        self._place(0)
        self.guest_os_id = 0

    def host_changed(self) -> None:
        """Make the page anew: it has the instruction of the host beneath."""
        if self._hidden is not None:
            self._fill()

    @property
    def gpa(self) -> int | None:
        """Where the page is; None without one."""
        return self._hypercall & PAGE_ADDRESS if self._hidden is not None else None

    @property
    def is_open(self) -> bool:
        """Whether the guest has said who it is, so that it may make hypercalls."""
        return self.guest_os_id != 0

    def claims(self, call: Call) -> bool:
        """Whether a call is this interface's: it comes from the page, or is marked."""
        if not self.is_open:
            return False
        if self._hidden is not None and call.gpa is not None and call.gpa & PAGE_ADDRESS == self.gpa:
            return True
        return call.is_64bit and bool(call.registers[0] & CALL_MARK)

    # -- MSRs

    @msr_read(MSR_GUEST_OS_ID, feature=Privilege.ACCESS_HYPERCALL_MSRS)
    def read_guest_os_id(self, vcpu: Vcpu) -> int:
        """Return who the guest is."""
        return self.guest_os_id

    @msr_write(MSR_GUEST_OS_ID, feature=Privilege.ACCESS_HYPERCALL_MSRS)
    def write_guest_os_id(self, vcpu: Vcpu, value: int) -> None:
        """Say who the guest is. 0 also takes the page away."""
        if not value:
            self._place(self._hypercall & ~PAGE_ENABLE)
        self.guest_os_id = value

    @msr_read(MSR_HYPERCALL, feature=Privilege.ACCESS_HYPERCALL_MSRS)
    def read_hypercall(self, vcpu: Vcpu) -> int:
        """Return where the page is."""
        return self._hypercall

    @msr_write(MSR_HYPERCALL, feature=Privilege.ACCESS_HYPERCALL_MSRS)
    def write_hypercall(self, vcpu: Vcpu, value: int) -> None:
        """Place the page. It does not come before the guest has said who it is, nor where there is no RAM; once locked
        it stays until reset."""
        if self._hypercall & LOCKED:
            raise GuestFault
        if not self.interface.offers(Feature.HYPERCALL_LOCK):
            value &= ~LOCKED
        if not self.is_open:
            value &= ~PAGE_ENABLE
        check_page(self.machine, value)
        self._place(value)

    # -- the page

    def _place(self, value: int) -> None:
        memory = self.machine.memory
        if self._hidden is not None:
            memory.write(self._hypercall & PAGE_ADDRESS, self._hidden)
            self._hidden = None
        self._hypercall = value
        if value & PAGE_ENABLE:
            self._hidden = memory.read(value & PAGE_ADDRESS, PAGE_SIZE)
            self._fill()

    def _fill(self) -> None:
        machine = self.machine
        native = machine.host.hypercall
        if machine.policy is Policy.STRICT:
            native = guest_hypercall(machine.cpu_vendor)
        machine.memory.write(self._hypercall & PAGE_ADDRESS, (native + RET).ljust(PAGE_SIZE, INT3))
