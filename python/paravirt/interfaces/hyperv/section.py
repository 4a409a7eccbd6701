"""What each section of the interface is: MSRs and hypercalls with the state behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.errors import GuestFault, GuestMemoryError
from paravirt.interfaces.hyperv.definitions import PAGE_ADDRESS, PAGE_ENABLE, PAGE_SIZE

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.machine import Machine

__all__ = ["Section", "check_page", "enable_page"]


class Section:
    """One section. Its methods that serve MSRs carry the decorators of `paravirt.interfaces.base`, those that carry out
    hypercalls that of `paravirt.interfaces.hyperv.hypercalls`."""

    def __init__(self, interface: HyperV) -> None:
        self.interface = interface

    @property
    def machine(self) -> Machine:
        """The machine that the interface is part of."""
        return self.interface.machine

    def reset(self) -> None:
        """Forget what the guest has set up."""


def check_page(machine: Machine, value: int) -> None:
    """Check an MSR value that places a page. Raises GuestFault if it enables one that is not RAM."""
    if not value & PAGE_ENABLE:
        return
    try:
        machine.memory.read(value & PAGE_ADDRESS, PAGE_SIZE)
    except GuestMemoryError:
        raise GuestFault from None


def enable_page(machine: Machine, old: int, new: int) -> None:
    """Place a page that begins as zeros where a new MSR value says; nothing to do if it stays where it was.

    The specification lays a page over what is there. Here it is the guest's own RAM, as under KVM.
    Raises GuestFault if there is no RAM.
    """
    moved = (old ^ new) & (PAGE_ADDRESS | PAGE_ENABLE)
    if not new & PAGE_ENABLE or not moved:
        return
    try:
        machine.memory.clear(new & PAGE_ADDRESS, PAGE_SIZE)
    except GuestMemoryError:
        raise GuestFault from None
