"""Run cases one after the other in a worker process, and watch it.

A worker that dies, is silent for too long or grows has found a bug, and the command line of the case is printed.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

SILENCE_S = 60
"""Nearly no case takes a hundredth of it."""
MAX_GROWTH_BYTES = 256 << 20
WARM_UP_CASES = 200

RunCase = Callable[[int, int], str]
"""Runs a case, given seed and number, and says how it ended. Whatever it raises is a bug."""


def fuzz(doc: str | None, prepare: Callable[[argparse.Namespace], AbstractContextManager[RunCase]], *own: str) -> int:
    """Do what the command line says. `own` are options beyond the common ones; `prepare` gets what they are set to."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="run this one only, in this process")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for name in own:
        parser.add_argument(f"--{name}", default="")
    options = parser.parse_args()
    passed_on = [f"--{name}={value}" for name in own if (value := getattr(options, name))]
    if options.case is None and not options.worker:
        return _watch(options.seed, options.seconds, passed_on)
    with prepare(options) as run_case:
        if options.case is not None:
            print(run_case(options.seed, options.case))
        else:
            _work(run_case, options.seed, options.seconds)
    return 0


def _resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _work(run_case: RunCase, seed: int, seconds: float) -> None:
    """Run cases until the time is up; a line before each, and one with how it ended."""
    deadline = time.monotonic() + seconds
    baseline = case = 0
    while time.monotonic() < deadline:
        print(f"case {case}", flush=True)
        print(f"end {run_case(seed, case)}", flush=True)
        case += 1
        if case == WARM_UP_CASES:
            baseline = _resident_bytes()
        if baseline and _resident_bytes() > baseline + MAX_GROWTH_BYTES:
            raise SystemExit(f"grew by more than {MAX_GROWTH_BYTES >> 20} MiB since case {WARM_UP_CASES}")


def _watch(seed: int, seconds: float, options: list[str]) -> int:
    """Let a worker run, and report the case in which it died or went silent."""
    again = f"python {' '.join([sys.argv[0], *options])} --seed {seed}"
    command = [sys.executable, sys.argv[0], *options, "--seed", str(seed), "--seconds", str(seconds), "--worker"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE)
    stream = worker.stdout
    assert stream is not None
    os.set_blocking(stream.fileno(), False)
    case, ends, text = "none", dict[str, int](), b""
    while True:
        ready, _, _ = select.select([stream], [], [], SILENCE_S)
        if not ready:
            worker.kill()
            return _report(again, case, f"did not end within {SILENCE_S} s")
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
        return _report(again, case, f"the worker ended with status {worker.returncode}")
    total = sum(ends.values())
    print(f"{total} cases from seed {seed}: " + ", ".join(f"{n} {end}" for end, n in sorted(ends.items())))
    return 0 if total else 1


def _report(again: str, case: str, what: str) -> int:
    """Say what was found, and how to see it again."""
    print(f"FOUND in case {case}: {what}\nagain: {again} --case {case}")
    return 1
