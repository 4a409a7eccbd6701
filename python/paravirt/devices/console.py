"""A second way to the console: a virtio console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.devices.base import Device, Plugged

if TYPE_CHECKING:
    from paravirt._native import Vm

__all__ = ["VirtioConsole"]


class VirtioConsole(Device):
    """A virtio console (Linux: `console=hvc0`), quicker than a serial port because it takes more than a byte at a time.

    It is the same console as the serial port's: what the guest prints on either goes to `Machine.console`, and all
    input comes to this one, waiting until a driver takes it. A machine has one at most.
    """

    def plug(self, vm: Vm, seed: int) -> Plugged:
        """Add it to a machine."""
        return Plugged(self, vm.add_virtio_console())

    def __repr__(self) -> str:
        return "VirtioConsole()"
