"""Linux finds each interface, says so, and takes time from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import paravirt as pv

from ..initramfs import write_initramfs

TIMEOUT_S = 240
INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo "the shell runs on $(nproc) CPUs"
echo "clock source $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
dmesg | grep -E 'WARNING|BUG:|Oops|lockup|stall|nobody cared|Call Trace|unchecked' && echo 'dmesg has complaints'
sleep 1
cat /proc/interrupts
poweroff -f
"""


@dataclass(frozen=True)
class Expected:
    """What a kernel does with an interface: its clock source, and what it says."""

    clock_source: str
    lines: tuple[str, ...]


HYPERV = Expected(
    "hyperv_clocksource_tsc_page",
    (
        "Hypervisor detected: Microsoft Hyper-V",
        "Booting paravirtualized kernel on Hyper-V",
        "Hyper-V: PV spinlocks enabled",
        "Hyper-V: Using IPI hypercalls",
        "Hyper-V: Using hypercall for remote TLB flush",
        "Hyper-V: Using enlightened APIC",
        "Hyper-V stimer0 interrupts",
    ),
)
KVM = Expected("kvm-clock", ("Hypervisor detected: KVM", "kvm-guest: PV spinlocks enabled"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interfaces", "host", "expected"),
    [
        (("hyperv",), "intel", HYPERV),
        (("hyperv",), "amd", HYPERV),
        # Linux takes the one whose leaves are higher.
        (("hyperv", "kvm"), "amd", KVM),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_boot(linux: Path, busybox: bytes, interfaces: tuple[str, ...], host: str, expected: Expected) -> None:
    """A shell on two CPUs, nothing to complain of, power-off."""
    machine = pv.Machine(host=host, cpus=2, memory="256M", interfaces=interfaces)
    machine.boot(linux, append="console=ttyS0", initrd=write_initramfs(busybox, INIT))
    result = machine.run(timeout=TIMEOUT_S)
    text = machine.console.text
    assert result.reason is pv.StopReason.POWER_OFF, text[-4000:]
    assert "the shell runs on 2 CPUs" in text
    assert f"clock source {expected.clock_source}" in text
    assert [line for line in expected.lines if line not in text] == []
    assert "dmesg has complaints" not in text, text
