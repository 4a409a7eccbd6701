"""Run random code on four vCPUs in every mode of the CPU, twice: no panic, no hang, no growth, the same end both times.

    make fuzz-modes SECONDS=3600 SEED=7
    python fuzz/modes.py --modes long64,real --seed 7 --case 1234

Timers and other vCPUs interrupt the code, which shares one piece of memory for code, data and stacks, so that it
modifies itself and the others. Handlers go on one byte behind a fault: nothing but a triple fault ends a vCPU's run,
and then it starts again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from images import random_code
from paravirt import _native
from paravirt._native import ExitKind
from paravirt.cpuid import build_cpuid, parse_cpu
from paravirt.host import find_host
from start import MODES, SHARED, SHARED_SIZE, enter, write_tables
from watch import RunCase, fuzz

CPUS = 4
MEMORY = 4 << 20
ROUNDS = 8
ROUND_INSTRUCTIONS = 4000
EXITS_PER_ROUND = 200
"""A round ends after so many, whatever they are."""


def run_case(seed: int, case: int, modes: list[str]) -> str:
    """Run a case twice and compare."""
    mode = Random(f"{seed}:{case}:mode").choice(modes)
    first, second = (run_once(Random(f"{seed}:{case}"), mode) for _ in range(2))
    if first != second:
        raise AssertionError(f"two runs in mode {mode} differ: {first} and {second}")
    return mode


def run_once(random: Random, mode: str) -> tuple[int, int, int]:
    """Run random code in a mode. Returns instructions, virtual time and a hash of everything."""
    host = random.choice(("intel", "amd"))
    vm = _native.Vm(cpus=CPUS, memory_bytes=MEMORY, host=host, seed=random.getrandbits(32))
    model = parse_cpu("max", find_host(host))
    vm.set_cpuid(build_cpuid(model, cpus=CPUS, tsc_khz=1_000_000))
    xcr0 = 7 if "avx" in model.features else 0
    start = Start(vm, mode, xcr0, random)
    vm.memory.write(SHARED, random_code(random, SHARED_SIZE))
    start.all()
    for _ in range(ROUNDS):
        run_round(vm, start, random)
    return vm.instructions(), vm.now_ns(), vm.state_hash()


class Start:
    """Brings vCPUs into the mode."""

    def __init__(self, vm: _native.Vm, mode: str, xcr0: int, random: Random) -> None:
        self._vm, self._mode, self._xcr0, self._random = vm, mode, xcr0, random

    def all(self) -> None:
        """All of them, with new tables: after power-on or reset."""
        write_tables(self._vm, self._mode)
        for vcpu in range(CPUS):
            self.one(vcpu)

    def one(self, vcpu: int) -> None:
        """One of them."""
        enter(self._vm, vcpu, self._mode, self._random, xcr0=self._xcr0)


def run_round(vm: _native.Vm, start: Start, random: Random) -> None:
    """Disturb the vCPUs and let them run."""
    if random.random() < 0.5:
        vm.deliver_interrupt(random.randrange(CPUS), random.randrange(32, 256), random.choice((0, 0, 0, 4)))
    if random.random() < 0.5:
        length = random.randrange(1, 64)
        vm.memory.write(SHARED + random.randrange(SHARED_SIZE - length), random_code(random, length))
    end = vm.instructions() + ROUND_INSTRUCTIONS
    answer: int | None = None
    for _ in range(EXITS_PER_ROUND):
        if vm.instructions() >= end:
            return
        exit = vm.run(end - vm.instructions(), answer)
        answer = None
        match exit.kind:
            case ExitKind.HYPERCALL:
                answer = random.getrandbits(64)
            case ExitKind.SHUTDOWN:
                start.one(exit.vcpu)
            case ExitKind.RESET | ExitKind.SOFT_RESET | ExitKind.POWER_OFF | ExitKind.DEADLOCK:
                vm.reset(hard=exit.kind == ExitKind.RESET)
                start.all()


@contextmanager
def prepare(options: argparse.Namespace) -> Iterator[RunCase]:
    """Choose the modes."""
    modes = options.modes.split(",") if options.modes else list(MODES)
    if unknown := set(modes) - set(MODES):
        raise SystemExit(f"unknown modes {', '.join(unknown)}; known: {', '.join(MODES)}")
    yield lambda seed, case: run_case(seed, case, modes)


if __name__ == "__main__":
    sys.exit(fuzz(__doc__, prepare, "modes"))
