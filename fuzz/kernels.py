"""Feed hostile kernels to whole machines: no panic, no hang, no growth.

    make fuzz SECONDS=3600 SEED=7
    python fuzz/kernels.py --seed 7 --case 1234        # one case again, alone

A worker process runs the cases one after the other and says so; this process watches it. A worker that dies, is silent
for too long or grows has found a bug, and the command line of the case is printed.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import paravirt as pv
from images import kludge_image, mutated_code, mutated_image, noise
from paravirt.guest import build_guest

HERE = Path(__file__).parent
MAX_INSTRUCTIONS = 300_000
SILENCE_S = 60
"""Nearly no case takes a hundredth of it."""
TIMEOUT_S = 20
"""Ends a guest that does little but reset the machine, each time at the price of booting it."""
MAX_GROWTH_BYTES = 256 << 20
WARM_UP_CASES = 200
TEXT_OFFSET, TEXT_LENGTH = 0x1000, 0x2800
"""Where the guest kit's text is in the file of an image; see guest.ld."""


def make_image(random: Random, seeds: list[bytes]) -> bytes:
    """One hostile file."""
    match random.randrange(10):
        case 0:
            return noise(random)
        case 1 | 2 | 3:
            return kludge_image(random)
        case 4 | 5:
            return mutated_image(random, random.choice(seeds))
        case _:
            return mutated_code(random, random.choice(seeds), TEXT_OFFSET, TEXT_LENGTH)


def run_case(seed: int, case: int, seeds: list[bytes], path: Path) -> str:
    """Run one case and say how it ended. Whatever it raises but a refused image is a bug."""
    random = Random(f"{seed}:{case}")
    path.write_bytes(make_image(random, seeds))
    host = random.choice(("intel", "amd", "lguest"))
    policies = ("patch", "emulate", "reject") if host == "lguest" else ("patch", "emulate", "strict", "reject")
    machine = pv.Machine(
        host=host,
        cpus=random.choice((1, 1, 2, 4)),
        memory=random.choice(("4M", "16M", "64M")),
        interfaces=random.choice(([], [pv.KVM()])),
        policy=random.choice(policies),
        cpu=random.choice(("default", "max")),
        seed=random.getrandbits(16),
    )
    with machine:
        try:
            machine.boot(path, args=[random.choice(("", "x", "alu 100000", "hypercall 1000", "all"))])
        except pv.ImageError:
            return "refused"
        result = machine.run(max_instructions=MAX_INSTRUCTIONS, timeout=TIMEOUT_S)
        look_at(machine, random)
        return str(result.reason)


def look_at(machine: pv.Machine, random: Random) -> None:
    """What a debugger or a crash report reads must work whatever the guest has made of its registers."""
    for vcpu in machine.vcpus:
        registers = vcpu.registers
        vcpu.recent_blocks()
        for address in (registers["rip"], registers["rsp"], random.getrandbits(64)):
            vcpu.translate(address)
    machine.console.output  # noqa: B018


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def make_seeds(directory: Path) -> list[bytes]:
    """Working kernels to damage."""
    sources = [HERE.parent / "examples" / "hello.c", HERE.parent / "tests" / "guests" / "kvm.c"]
    return [
        build_guest([source], directory / f"{source.stem}-{bits}.elf", bits=bits).read_bytes()
        for source in sources
        for bits in (64, 32)
    ]


def work(seed: int, first: int, seconds: float) -> None:
    """Run cases until the time is up; a line before each, and one with how it ended."""
    deadline = time.monotonic() + seconds
    baseline = 0
    with tempfile.TemporaryDirectory() as directory:
        seeds = make_seeds(Path(directory))
        path = Path(directory) / "case"
        case = first
        while time.monotonic() < deadline:
            print(f"case {case}", flush=True)
            print(f"end {run_case(seed, case, seeds, path)}", flush=True)
            case += 1
            if case == first + WARM_UP_CASES:
                baseline = resident_bytes()
            if baseline and resident_bytes() > baseline + MAX_GROWTH_BYTES:
                raise SystemExit(f"grew by more than {MAX_GROWTH_BYTES >> 20} MiB since case {first + WARM_UP_CASES}")


def watch(seed: int, seconds: float) -> int:
    """Let a worker run, and report the case in which it died or went silent."""
    command = [sys.executable, __file__, "--seed", str(seed), "--seconds", str(seconds), "--worker"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE)
    stream = worker.stdout
    assert stream is not None
    os.set_blocking(stream.fileno(), False)
    case, ends, text = "none", dict[str, int](), b""
    while True:
        ready, _, _ = select.select([stream], [], [], SILENCE_S)
        if not ready:
            worker.kill()
            return report(seed, case, f"did not end within {SILENCE_S} s")
        chunk = stream.read()
        if not chunk:
            break
        *lines, text = (text + chunk).split(b"\n")
        for line in lines:
            kind, _, value = line.decode().partition(" ")
            if kind == "case":
                case = value
            else:
                ends[value] = ends.get(value, 0) + 1
    if worker.wait():
        return report(seed, case, f"the worker ended with status {worker.returncode}")
    total = sum(ends.values())
    print(f"{total} cases from seed {seed}: " + ", ".join(f"{n} {end}" for end, n in sorted(ends.items())))
    return 0 if total else 1


def report(seed: int, case: str, what: str) -> int:
    """Say what was found, and how to see it again."""
    print(f"FOUND in case {case}: {what}\nagain: python fuzz/kernels.py --seed {seed} --case {case}")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="run this one only, in this process")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "case"
            print(run_case(options.seed, options.case, make_seeds(Path(directory)), path))
        return 0
    if options.worker:
        work(options.seed, 0, options.seconds)
        return 0
    return watch(options.seed, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
