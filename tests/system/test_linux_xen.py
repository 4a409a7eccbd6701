"""Linux as a guest of Xen: what it finds, what it uses, and that it ends well."""

from __future__ import annotations

from pathlib import Path

import pytest

import paravirt as pv
from paravirt.interfaces.xen import Xen

from ..initramfs import write_initramfs

TIMEOUT_S = 240

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo "the shell runs on $(nproc) CPUs of $(cat /sys/hypervisor/type)"
echo "clock source $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "features $(cat /sys/hypervisor/properties/features)"
grep -q xenbus /proc/interrupts && echo 'the store sends events'
dmesg | grep -E 'WARNING|BUG:|Oops|lockup|self-detected|nobody cared|clocksource.*unstable|Call Trace' \\
    && echo 'dmesg has complaints'
poweroff -f
"""
EXPECTED = (
    "xen:events: Using FIFO-based ABI",
    "Xen HVM callback vector for event delivery is enabled",
    "the shell runs on 2 CPUs of xen",
    "clock source xen",
    "features 000c0305",
    "the store sends events",
    "reboot: Power down",
)
WAYS = {"pvh": "Booting kernel on Xen PVH", "linux": "Booting paravirtualized kernel on Xen HVM"}


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "host"), [("pvh", "amd"), ("linux", "intel")])
def test_boot(linux: Path, busybox: bytes, protocol: str, host: str) -> None:
    """As a PVH guest with the serial port, and as an HVM guest with Xen's console."""
    console = "ttyS0" if protocol == "pvh" else "hvc0"
    machine = pv.Machine(host=host, cpus=2, memory="256M", interfaces=[Xen()])
    machine.boot(
        linux,
        append=f"console={console} quiet loglevel=8",
        initrd=write_initramfs(busybox, INIT),
        protocol=None if protocol == "pvh" else protocol,
    )
    result = machine.run(timeout=TIMEOUT_S)
    text = machine.console.text
    assert result.reason is pv.StopReason.POWER_OFF, text[-4000:]
    assert [line for line in (*EXPECTED, WAYS[protocol]) if line not in text] == [], text
    assert "dmesg has complaints" not in text, text
