"""Options that say what is plugged into a machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt.devices import Device

__all__ = ["make_devices"]


def make_devices(disks: Sequence[str], *, rng: bool, real_rng: bool, virtio_console: bool) -> list[Device | str]:
    """Return the board's test devices and what was asked for besides."""
    from paravirt.devices import BOARD_DEVICES, Entropy, VirtioConsole, parse_disk  # Not needed for --help.

    devices: list[Device | str] = [*BOARD_DEVICES, *map(parse_disk, disks)]
    if rng or real_rng:
        devices.append(Entropy(real=real_rng))
    if virtio_console:
        devices.append(VirtioConsole())
    return devices
