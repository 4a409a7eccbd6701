"""What can be plugged into a machine: `Machine(devices=[...])`.

Test devices of the board go by name; a disk, an entropy source or a console is an object that says what is wanted. The
same object can be given to several machines: each gets a device of its own.
"""

from __future__ import annotations

from paravirt.devices.base import BOARD_DEVICES, Device, Plugged, plug_devices, unplug_devices
from paravirt.devices.console import VirtioConsole
from paravirt.devices.disk import Disk, parse_disk
from paravirt.devices.entropy import Entropy

__all__ = [
    "BOARD_DEVICES",
    "Device",
    "Disk",
    "Entropy",
    "Plugged",
    "VirtioConsole",
    "parse_disk",
    "plug_devices",
    "unplug_devices",
]
