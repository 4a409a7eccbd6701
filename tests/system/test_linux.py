"""Linux as a distribution ships it: boots to a shell on both hosts, good ends, and bad ones that one can use."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import paravirt as pv

from ..initramfs import write_initramfs

TIMEOUT_S = 240
"""A boot takes some seconds of an idle computer."""

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo "the shell runs on $(nproc) CPUs"
echo "hash $(echo abc | sha256sum | cut -c 1-16)"
awk 'BEGIN { for (n = 1; n <= 1000; n++) s += 1 / n; printf "sum %.10f\\n", s }'
dmesg | grep -E 'WARNING|BUG:|Oops|lockup|stall|nobody cared|as unstable|Call Trace' && echo 'dmesg has complaints'
echo "clock source $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
poweroff -f
"""
# Of several AMD CPUs Linux trusts only invariant TSCs, and calls others unstable, under QEMU and KVM too.
EXPECTED = ("the shell runs on 2 CPUs", "hash edeaaff3f1774ad2", "sum 7.4854708606", "reboot: Power down")

HANGING_INIT = """\
#!/bin/sh
echo 'going round in circles'
while true; do true; done
"""


@pytest.fixture(scope="module")
def initrd(busybox: bytes) -> bytes:
    return write_initramfs(busybox, INIT)


def check_boot(machine: pv.Machine) -> None:
    result = machine.run(timeout=TIMEOUT_S)
    text = machine.console.text
    assert result.reason is pv.StopReason.POWER_OFF, text[-4000:]
    assert [line for line in EXPECTED if line not in text] == [], text[-4000:]
    assert "dmesg has complaints" not in text, text


@pytest.mark.slow
def test_boot(linux: Path, initrd: bytes, host: str) -> None:
    """Two CPUs, unpacked by us and entered through its PVH note: a shell, the right results, power-off."""
    machine = pv.Machine(host=host, cpus=2, memory="256M")
    machine.boot(linux, append="console=ttyS0 quiet loglevel=8", initrd=initrd)
    check_boot(machine)
    assert "clock source kvm-clock" in machine.console.text


@pytest.mark.slow
def test_boot_by_its_own_protocol(linux: Path, initrd: bytes) -> None:
    """The kernel unpacks and places itself; RAM goes on above 4 GiB. Its names are known wherever it went."""
    machine = pv.Machine(host="amd", cpus=2, memory="4G", interfaces=[])
    machine.boot(linux, append="console=ttyS0", initrd=initrd, protocol="linux")
    check_boot(machine)
    text = machine.console.text
    assert "Hypervisor detected" not in text
    assert re.search(r"Memory: \d+K/41\d{5}K available", text), text
    assert any((machine.symbols.find(vcpu.linear_rip) or "").split("+")[0] for vcpu in machine.vcpus)


def paravirt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paravirt", "run", *map(str, arguments)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["panic=0", "panic=-1"])
def test_panic(linux: Path, argument: str) -> None:
    """Without a root file system the kernel gives up. Whether it then stays or resets, the status says so."""
    done = paravirt(linux, "-m", "256M", "--append", f"console=ttyS0 {argument}", "--timeout", str(TIMEOUT_S))
    assert done.returncode == 120
    lines = done.stderr.splitlines()
    assert re.match(
        r"paravirt: the guest has crashed: Kernel panic - not syncing: VFS: Unable to mount root fs", lines[0]
    )
    assert any(line.endswith("Call Trace:") for line in lines)
    assert done.stdout.splitlines()[-1] == lines[-1].strip()


@pytest.mark.slow
def test_hang(linux: Path, busybox: bytes, tmp_path: Path) -> None:
    """Each CPU's place, in the kernel by name although its file has no symbol table; a program's address has none."""
    initrd = tmp_path / "initrd.gz"
    initrd.write_bytes(write_initramfs(busybox, HANGING_INIT))
    arguments = ("--append", "console=ttyS0", "--initrd", initrd, "-c", "2", "-m", "256M")
    done = paravirt(linux, *arguments, "--max-instructions", "1900000000")
    assert done.returncode == 124
    assert "going round in circles" in done.stdout
    assert re.fullmatch(
        r"paravirt: stopped after 1,9\d\d,\d{3},\d{3} instructions\n"
        r"(  cpu\d (running|halted) at 0x[0-9a-f]+( <\w[\w.]*(\+0x[0-9a-f]+)?>, cpl 0|, cpl 3)\n){2}",
        done.stderr,
    )
    assert "<" in done.stderr
