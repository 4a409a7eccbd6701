"""Boot distribution kernels in every shape, and compare what they complain about with the same boot under QEMU.

    python -m tests.system.linux_matrix KERNEL... [--hosts intel,amd] [--cpus 1,2,4] [--memory 256M,4G] [--seeds 1]

For each combination: whether the guest's shell ran and the machine was switched off, with which time and instructions,
and the kernel's messages of level "warning" and worse that QEMU's TCG does not show for the same kernel and number of
CPUs. Status 1 if there is any, or a boot failed.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import paravirt as pv

from ..initramfs import write_initramfs
from ..linux_files import find_busybox

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo "the shell runs on $(nproc) CPUs"
echo "[messages begin]"
dmesg -r
echo "[messages end]"
poweroff -f
"""
APPEND = "console=ttyS0 loglevel=3"
TIMEOUT_S = 900
WARNING = 4
"""Level of KERN_WARNING; less is worse."""

_MESSAGE = re.compile(r"^<(\d+)>\[ *\d+\.\d+\] (.*)$", re.MULTILINE)
_NUMBERS = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]*\d[0-9a-f]*\b")


@dataclass(frozen=True)
class Boot:
    """One boot: what is wrong with it ("" if nothing), its complaints, and what it took."""

    failure: str
    complaints: frozenset[str]
    seconds: float
    instructions: int = 0


def complaints_in(text: str) -> frozenset[str]:
    """Messages of the kernel that are warnings or worse, numbers left out: addresses and times differ by nature."""
    text = text.replace("\r\n", "\n")
    messages = text.partition("[messages begin]")[2].partition("[messages end]")[0]
    found = ((int(level) & 7, message) for level, message in _MESSAGE.findall(messages))
    return frozenset(_NUMBERS.sub("N", message) for level, message in found if level <= WARNING)


def failure_in(text: str, cpus: int) -> str:
    if f"the shell runs on {cpus} CPUs" not in text:
        return "no shell"
    return "" if "[messages end]" in text else "no messages"


def boot_paravirt(kernel: Path, initrd: bytes, host: str, cpus: int, memory: str, seed: int) -> Boot:
    machine = pv.Machine(host=host, cpus=cpus, memory=memory, seed=seed)
    machine.boot(kernel, append=APPEND, initrd=initrd)
    result = machine.run(timeout=TIMEOUT_S)
    text = machine.console.text
    failure = failure_in(text, cpus)
    if result.reason is not pv.StopReason.POWER_OFF:
        failure = f"{result.reason}: {text[-500:]}"
    return Boot(failure, complaints_in(text), result.wall_s, result.instructions)


def boot_qemu(kernel: Path, initrd: Path, cpus: int) -> Boot:
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", str(cpus), "-m", "512", "-nographic"]
    command += ["-no-reboot", "-net", "none", "-kernel", str(kernel), "-initrd", str(initrd), "-append", APPEND]
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    text = done.stdout.decode("utf-8", "replace")
    return Boot(failure_in(text, cpus), complaints_in(text), time.perf_counter() - start)


def list_of(text: str) -> list[str]:
    return text.split(",")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="+", type=Path, metavar="KERNEL")
    parser.add_argument("--hosts", type=list_of, default=["intel", "amd"])
    parser.add_argument("--cpus", type=list_of, default=["1", "2", "4"])
    parser.add_argument("--memory", type=list_of, default=["256M", "4G"])
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    options = parser.parse_args()
    busybox = find_busybox().read_bytes()
    initrd = write_initramfs(busybox, INIT)
    bad = 0
    with tempfile.TemporaryDirectory() as directory:
        initrd_file = Path(directory) / "initrd.gz"
        initrd_file.write_bytes(initrd)
        for kernel, cpus in itertools.product(options.kernels, map(int, options.cpus)):
            theirs = boot_qemu(kernel, initrd_file, cpus)
            print(f"{kernel.name} {cpus} CPUs qemu: {theirs.failure or 'ok'}, {theirs.seconds:.1f} s", flush=True)
            shapes = itertools.product(options.hosts, options.memory, range(options.seeds))
            for host, memory, seed in shapes:
                ours = boot_paravirt(kernel, initrd, host, cpus, memory, seed)
                new = sorted(ours.complaints - theirs.complaints)
                bad += bool(ours.failure or new)
                print(
                    f"{kernel.name} {cpus} CPUs {host} {memory} seed {seed}: {ours.failure or 'ok'},"
                    f" {ours.seconds:.1f} s, {ours.instructions / 1e6:,.0f} M instructions",
                    *(f"\n    new: {message}" for message in new),
                    flush=True,
                )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
