"""What a device is to a machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from paravirt import _native
from paravirt.errors import ConfigurationError

if TYPE_CHECKING:
    from paravirt._native import Vm

__all__ = ["BOARD_DEVICES", "Device", "Plugged", "plug_devices", "unplug_devices"]

BOARD_DEVICES = ("testdev", "debug-exit", "debugcon", "pci-testdev")
"""Devices for test kernels, by the names that QEMU has for them; all are there by default."""


class Plugged:
    """A device in a machine. device: what was asked for. slot: its PCI device number."""

    def __init__(self, device: Device, slot: int) -> None:
        self.device = device
        self.slot = slot

    def problems(self) -> list[str]:
        """Return what the host could not do for the guest since the last call, a line each."""
        return []

    def unplug(self) -> None:
        """Give back what belongs to the host. The machine does not run any more."""

    def __repr__(self) -> str:
        return f"<{self.device!r} in PCI slot {self.slot}>"


class Device(ABC):
    """A piece of hardware that a machine can have. Subclasses say which: `Disk`, `Entropy`, `VirtioConsole`."""

    @abstractmethod
    def plug(self, vm: Vm, seed: int) -> Plugged:
        """Add it to a machine that has not run yet. seed: the machine's.

        Raises ConfigurationError if that is not possible.
        """


def plug_devices(vm: Vm, devices: Iterable[Device | str], seed: int) -> tuple[Plugged, ...]:
    """Give a machine its devices, in this order of PCI slots, and of `BOARD_DEVICES` those that are named.

    seed: the machine's. Raises ConfigurationError if one cannot be had; the others are then given back.
    """
    names, objects = _sort_out(devices)
    for name in BOARD_DEVICES:
        vm.set_policy_port(name, name in names)
    plugged: list[Plugged] = []
    try:
        for device in objects:
            plugged.append(device.plug(vm, seed))
    except _native.HostError as error:
        unplug_devices(plugged)
        raise ConfigurationError(f"cannot add {device!r}: {error}", option="devices", value=device) from error
    except BaseException:
        unplug_devices(plugged)
        raise
    return tuple(plugged)


def unplug_devices(devices: Iterable[Plugged]) -> None:
    """Give back what the devices hold of the host."""
    for device in devices:
        device.unplug()


def _sort_out(devices: Iterable[Device | str]) -> tuple[frozenset[str], list[Device]]:
    names: set[str] = set()
    objects: list[Device] = []
    if isinstance(devices, str):
        devices = [devices]
    for device in devices:
        if isinstance(device, Device):
            objects.append(device)
        elif device in BOARD_DEVICES:
            names.add(device)
        else:
            raise ConfigurationError(
                f"unknown device {device!r}; known: {', '.join(BOARD_DEVICES)}, and objects as Disk('FILE')",
                option="devices",
                value=device,
            )
    return frozenset(names), objects
