"""The partition as a whole: it crashes, it is reset, it asks what else there is.

Source: TLFS "Guest crash enlightenment", "System reset MSR", "HvExtCallQueryCapabilities".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.errors import GuestFault, GuestMemoryError
from paravirt.interfaces.base import msr_read, msr_write
from paravirt.interfaces.hyperv.definitions import (
    HVCALL_EXT_QUERY_CAPABILITIES,
    MSR_CRASH_CTL,
    MSR_CRASH_P0,
    MSR_RESET,
    NUM_CRASH_PARAMETERS,
    Feature,
    Privilege,
)
from paravirt.interfaces.hyperv.hypercalls import Request, hv_call
from paravirt.interfaces.hyperv.section import Section
from paravirt.result import StopReason

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["Partition"]

CRASH_NOTIFY = 1 << 63
CRASH_MESSAGE = 1 << 62
MAX_CRASH_MESSAGE = 4096
RESET_NOW = 1 << 0


class Partition(Section):
    """CRASH_P0 to CRASH_P4, CRASH_CTL, RESET, ExtCallQueryCapabilities."""

    def __init__(self, interface: HyperV) -> None:
        super().__init__(interface)
        self._crash = [0] * NUM_CRASH_PARAMETERS

    def reset(self) -> None:
        """No crash has been described."""
        self._crash = [0] * NUM_CRASH_PARAMETERS

    @msr_read(MSR_CRASH_P0, MSR_CRASH_P0 + NUM_CRASH_PARAMETERS - 1, feature=Feature.CRASH)
    def read_crash_parameter(self, vcpu: Vcpu, index: int) -> int:
        """Return the last value written."""
        return self._crash[index - MSR_CRASH_P0]

    @msr_write(MSR_CRASH_P0, MSR_CRASH_P0 + NUM_CRASH_PARAMETERS - 1, feature=Feature.CRASH)
    def write_crash_parameter(self, vcpu: Vcpu, index: int, value: int) -> None:
        """Describe a crash."""
        self._crash[index - MSR_CRASH_P0] = value

    @msr_read(MSR_CRASH_CTL, feature=Feature.CRASH)
    def read_crash_ctl(self, vcpu: Vcpu) -> int:
        """Return what can be done about a crash: note it, with a text."""
        return CRASH_NOTIFY | CRASH_MESSAGE

    @msr_write(MSR_CRASH_CTL, feature=Feature.CRASH)
    def write_crash_ctl(self, vcpu: Vcpu, value: int) -> None:
        """Report a crash, which ends the run."""
        if value & CRASH_NOTIFY:
            parameters = ", ".join(f"P{number}={each:#x}" for number, each in enumerate(self._crash))
            text = self._crash_text() if value & CRASH_MESSAGE else ""
            self.machine.shut_down(StopReason.CRASH, vcpu, f"{parameters}{text}")

    def _crash_text(self) -> str:
        """P3 is the address of a text, P4 its length in bytes."""
        gpa, length = self._crash[3:]
        if length > MAX_CRASH_MESSAGE:
            return ""
        try:
            text = self.machine.memory.read(gpa, length)
        except GuestMemoryError:
            return ""
        return "\n" + text.rstrip(b"\0\n").decode("utf-8", "backslashreplace")

    @msr_read(MSR_RESET, feature=Privilege.ACCESS_RESET)
    def read_reset(self, vcpu: Vcpu) -> int:
        """Return 0: no reset is under way."""
        return 0

    @msr_write(MSR_RESET, feature=Privilege.ACCESS_RESET)
    def write_reset(self, vcpu: Vcpu, value: int) -> None:
        """Reset the machine."""
        if value & ~RESET_NOW:
            raise GuestFault
        if value:
            self.machine.shut_down(StopReason.RESET, vcpu)

    @hv_call(HVCALL_EXT_QUERY_CAPABILITIES, header=0, output=8, requires=Privilege.ENABLE_EXTENDED_HYPERCALLS)
    def query_extended_capabilities(self, request: Request) -> None:
        """Tell which extended hypercalls there are: none but this."""
        request.output += bytes(8)
