"""Feed hostile kernels to whole machines: no panic, no hang, no growth.

make fuzz SECONDS=3600 SEED=7
python fuzz/kernels.py --seed 7 --case 1234        # one case again, alone
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import paravirt as pv
from images import kludge_image, mutated_code, mutated_image, noise
from paravirt.guest import build_guest
from watch import RunCase, fuzz

HERE = Path(__file__).parent
MAX_INSTRUCTIONS = 300_000
TIMEOUT_S = 20
"""Ends a guest that does little but reset the machine, each time at the price of booting it."""
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
    """Run one case and say how it ended."""
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


def make_seeds(directory: Path) -> list[bytes]:
    """Working kernels to damage."""
    sources = [HERE.parent / "examples" / "hello.c", HERE.parent / "tests" / "guests" / "kvm.c"]
    return [
        build_guest([source], directory / f"{source.stem}-{bits}.elf", bits=bits).read_bytes()
        for source in sources
        for bits in (64, 32)
    ]


@contextmanager
def prepare(_options: argparse.Namespace) -> Iterator[RunCase]:
    """Build the kernels to damage."""
    with tempfile.TemporaryDirectory() as directory:
        seeds = make_seeds(Path(directory))
        path = Path(directory) / "case"
        yield lambda seed, case: run_case(seed, case, seeds, path)


if __name__ == "__main__":
    sys.exit(fuzz(__doc__, prepare))
