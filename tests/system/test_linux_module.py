"""A Linux kernel makes hypercalls with both vendors' instructions: one repair of the foreign one, in read-only text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import paravirt as pv

from ..initramfs import write_initramfs
from .support import GUESTS

INIT = """\
#!/bin/sh
mount -t proc proc /proc
insmod /hypercalls.ko
dmesg | grep hypercalls:
poweroff -f
"""
CPUS, ROUNDS = 2, 3


@pytest.fixture(scope="module")
def module(linux: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """tests/guests/linux/hypercalls.c, built for the kernel."""
    release = linux.name.removeprefix("vmlinuz-")
    headers = Path("/usr/src") / f"linux-headers-{release}"
    if not headers.is_dir():
        pytest.skip(f"no headers to build a module with; on Debian: apt-get install linux-headers-{release}")
    directory = tmp_path_factory.mktemp("module")
    shutil.copytree(GUESTS / "linux", directory, dirs_exist_ok=True)
    done = subprocess.run(
        ["make", "-C", str(headers), f"M={directory}", "modules"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (directory / "hypercalls.ko").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["patch", "emulate"])
def test_foreign_hypercalls(linux: Path, busybox: bytes, module: bytes, host: str, policy: str) -> None:
    """The kernel's log and ours agree: every call is answered, by whichever instruction, on each CPU."""
    machine = pv.Machine(host=host, cpus=CPUS, memory="256M", policy=policy)
    calls: list[int] = []
    machine.hook("hypercall", lambda _vcpu, exit: calls.append(exit.registers[0]))
    machine.boot(linux, append="console=ttyS0 quiet", initrd=write_initramfs(busybox, INIT, {"hypercalls.ko": module}))
    assert machine.run(timeout=240).reason is pv.StopReason.POWER_OFF
    text = machine.console.text
    told = re.findall(r"hypercalls: cpu (\d) vmcall 0 -1000 vmmcall 0 -1000", text)
    assert sorted(told) == sorted("01" * ROUNDS), text[-2000:]
    foreign = {"intel": b"\x0f\x01\xd9", "amd": b"\x0f\x01\xc1"}[host]
    # The kernel makes hypercalls of its own, with its CPU's instruction.
    repaired = [fixup for fixup in machine.fixups if fixup.found == foreign]
    if policy == "patch":
        assert len(repaired) == 1
        assert repaired[0].symbol is None or "call_" in repaired[0].symbol
        assert [number for number in calls if number == 99] == [99] * (2 * CPUS * ROUNDS)
    else:
        assert len(repaired) == 2 * CPUS * ROUNDS
        assert [number for number in calls if number == 99] == [99] * (CPUS * ROUNDS)
