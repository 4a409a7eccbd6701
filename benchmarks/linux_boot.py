"""Boot a distribution's Linux beside QEMU's TCG: same kernel, same initramfs, in turn, in the same run.

    make bench-linux                        # or: python benchmarks/linux_boot.py [--rounds 3] [--cpus 1] [--check]

Measured are the seconds from the start of the process to its end, when the guest has switched itself off; the processor
time of that; and the most memory that the process had. Each figure is the median of the rounds. Where the kernel and
busybox are found: tests/linux_files.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.initramfs import write_initramfs
from tests.linux_files import LinuxFilesMissing, find_busybox, find_kernel

TIME_RATIO_PROMISE = 3.0
"""At most so many times QEMU's time, with one CPU."""
MEMORY_RATIO_PROMISE = 1.0
TIMEOUT_S = 900
DONE = b"reboot: Power down"
QEMU = "qemu-system-x86_64"

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
dmesg | tail -n 3
uname -a
poweroff -f
"""


@dataclass(frozen=True)
class Setup:
    """What is booted. initrd and kernel are files."""

    kernel: Path
    initrd: Path
    cpus: int
    memory_mib: int
    append: str = "console=ttyS0"


@dataclass(frozen=True)
class Sample:
    """One boot: wall-clock and processor seconds, and the most memory in KiB."""

    wall_s: float
    cpu_s: float
    peak_kib: int


def paravirt_command(setup: Setup) -> list[str]:
    command = [sys.executable, "-m", "paravirt", "run", str(setup.kernel), "--initrd", str(setup.initrd)]
    return [*command, "--append", setup.append, "-c", str(setup.cpus), "-m", f"{setup.memory_mib}M"]


def qemu_command(setup: Setup) -> list[str]:
    command = [QEMU, "-accel", "tcg", "-kernel", str(setup.kernel), "-initrd", str(setup.initrd)]
    command += ["-append", setup.append, "-smp", str(setup.cpus), "-m", str(setup.memory_mib)]
    return [*command, "-nographic", "-no-reboot", "-net", "none", "-cpu", "max"]


COMMANDS = {"paravirt": paravirt_command, "qemu": qemu_command}


def boot(command: Sequence[str]) -> Sample:
    """Run a process to its end. Raises RuntimeError if the guest has not switched itself off."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode or DONE not in text:
        raise RuntimeError(f"{' '.join(command)}: status {process.returncode}\n{text[-2000:].decode(errors='replace')}")
    return Sample(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def measure(setup: Setup, engines: Sequence[str], rounds: int) -> dict[str, Sample]:
    """Boot on the engines in turn; the median of each figure."""
    samples: dict[str, list[Sample]] = {engine: [] for engine in engines}
    for number in range(rounds):
        for engine in engines:
            sys.stderr.write(f"\rround {number + 1} of {rounds}: {engine}\033[K")
            sys.stderr.flush()
            samples[engine].append(boot(COMMANDS[engine](setup)))
    sys.stderr.write("\r\033[K")
    return {engine: _median(runs) for engine, runs in samples.items()}


def _median(samples: Sequence[Sample]) -> Sample:
    return Sample(
        statistics.median(sample.wall_s for sample in samples),
        statistics.median(sample.cpu_s for sample in samples),
        int(statistics.median(sample.peak_kib for sample in samples)),
    )


def ratios(figures: Mapping[str, Sample]) -> tuple[float, float] | None:
    """How many times QEMU's time and memory ours are; None without QEMU."""
    if "qemu" not in figures:
        return None
    ours, theirs = figures["paravirt"], figures["qemu"]
    return ours.wall_s / theirs.wall_s, ours.peak_kib / theirs.peak_kib


def print_table(setup: Setup, figures: Mapping[str, Sample]) -> None:
    print(f"{setup.kernel.name}, {setup.cpus} CPUs, {setup.memory_mib} MiB")
    print(f"{'':<10}{'wall':>10}{'processor':>12}{'peak memory':>14}")
    for engine, sample in figures.items():
        print(f"{engine:<10}{sample.wall_s:>8.2f} s{sample.cpu_s:>10.2f} s{sample.peak_kib / 1024:>10.0f} MiB")
    both = ratios(figures)
    if both is not None:
        print(f"{'ratio':<10}{both[0]:>9.2f}x{'':>12}{both[1]:>13.2f}x")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=512, metavar="MIB")
    parser.add_argument("--kernel", type=Path, help="a bzImage, if not the one that the tests use")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--check", action="store_true", help="status 1 if a promise is broken")
    options = parser.parse_args()
    try:
        kernel, busybox = options.kernel or find_kernel(), find_busybox()
    except LinuxFilesMissing as error:
        print(f"not measured: {error}")
        return 0
    engines = [engine for engine in COMMANDS if engine != "qemu" or shutil.which(QEMU)]
    with tempfile.TemporaryDirectory() as directory:
        initrd = Path(directory) / "initrd.gz"
        initrd.write_bytes(write_initramfs(busybox.read_bytes(), INIT))
        setup = Setup(kernel, initrd, options.cpus, options.memory)
        figures = measure(setup, engines, options.rounds)
    print_table(setup, figures)
    if options.json:
        report = {engine: vars(sample) for engine, sample in figures.items()}
        options.json.write_text(json.dumps({"kernel": kernel.name, "cpus": options.cpus, "figures": report}) + "\n")
    both = ratios(figures)
    is_broken = both is not None and (both[0] > TIME_RATIO_PROMISE or both[1] > MEMORY_RATIO_PROMISE)
    return 1 if options.check and is_broken else 0


if __name__ == "__main__":
    sys.exit(main())
