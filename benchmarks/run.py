"""Measure paravirt beside QEMU's TCG and Unicorn: same image, same machine, in turn, in the same run.

    make bench                                  # or: python benchmarks/run.py [--rounds 5] [--json FILE] [--check]

Each figure is the median of the rounds. The time of an empty kernel is taken off where a loop is measured, and shown by
itself: process start to end.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engines import ENGINES, HERE, Engine, Sample
from paravirt import __version__
from paravirt.guest import build_guest


@dataclass(frozen=True)
class Benchmark:
    """A loop, how often it goes round at least, and what is promised of it.

    instructions: of one time round, 0 where time per round is the figure. target: least MIPS, or most seconds.
    """

    name: str
    count: int
    instructions: int
    target: float | None

    @property
    def is_rate(self) -> bool:
        return self.instructions > 0


BENCHMARKS = (
    Benchmark("alu", 50_000_000, 7, 250.0),
    Benchmark("memory", 20_000_000, 7, 150.0),
    Benchmark("hypercall", 100_000, 0, 1.5e-6),
    Benchmark("cpuid", 5_000_000, 0, None),
)
START_TARGET_S = 0.150

MIN_LOOP_S = 1.0
"""A loop that takes less is repeated more often: an engine that starts in a quarter of that would else hide it."""
GROWTH = 4
MAX_COUNT = 1 << 40

Samples = dict[str, dict[str, list[Sample]]]


def calibrate(engine: Engine, image: Path, name: str, count: int) -> int:
    """How often a loop must go round on an engine to take long enough."""
    start = engine.run(image, "empty", 0).seconds
    while engine.run(image, name, count).seconds - start < MIN_LOOP_S and count < MAX_COUNT:
        count *= GROWTH
    return count


def measure(engines: list[Engine], image: Path, rounds: int) -> Samples:
    """Run everything `rounds` times, the engines in turn so that a change of the machine's speed meets them all."""
    pairs = [
        (engine, benchmark) for benchmark in BENCHMARKS for engine in engines if benchmark.name not in engine.cannot
    ]
    counts: list[tuple[Engine, str, int]] = [(engine, "empty", 0) for engine in engines]
    for engine, benchmark in pairs:
        show_progress(f"how long takes {benchmark.name} on {engine.name}")
        counts.append((engine, benchmark.name, calibrate(engine, image, benchmark.name, benchmark.count)))
    names = ["empty", *(benchmark.name for benchmark in BENCHMARKS)]
    samples: Samples = {engine.name: {name: [] for name in names} for engine in engines}
    for number in range(rounds):
        for engine, name, count in counts:
            show_progress(f"round {number + 1} of {rounds}: {name} on {engine.name}")
            samples[engine.name][name].append(engine.run(image, name, count))
    show_progress("")
    return samples


def show_progress(text: str) -> None:
    """Replace the line on stderr."""
    sys.stderr.write(f"\r{text}\033[K")
    sys.stderr.flush()


def figure(benchmark: Benchmark, samples: Mapping[str, list[Sample]]) -> float | None:
    """Million instructions per second of a loop, or seconds of one time round; None if it was not run."""
    if not samples[benchmark.name]:
        return None
    start = statistics.median(sample.seconds for sample in samples["empty"])
    seconds = statistics.median((sample.seconds - start) / sample.count for sample in samples[benchmark.name])
    return benchmark.instructions / seconds / 1e6 if benchmark.is_rate else seconds


def summarise(samples: Samples) -> dict[str, dict[str, float | None]]:
    """All figures: benchmark, then engine."""
    table = {
        benchmark.name: {engine: figure(benchmark, loops) for engine, loops in samples.items()}
        for benchmark in BENCHMARKS
    }
    table["start"] = {
        engine: statistics.median(sample.seconds for sample in loops["empty"]) for engine, loops in samples.items()
    }
    return table


def meets(name: str, value: float) -> bool | None:
    """Whether a figure is what is promised; None if nothing is."""
    if name == "start":
        return value <= START_TARGET_S
    (benchmark,) = (benchmark for benchmark in BENCHMARKS if benchmark.name == name)
    if benchmark.target is None:
        return None
    return value >= benchmark.target if benchmark.is_rate else value <= benchmark.target


def show(name: str, value: float | None) -> str:
    """A figure with its unit."""
    if value is None:
        return "-"
    if name == "start":
        return f"{value * 1e3:.0f} ms"
    if name in {"alu", "memory"}:
        return f"{value:,.0f} MIPS"
    return f"{value * 1e6:.3f} us"


def ratio(name: str, ours: float | None, theirs: float | None) -> str:
    """How many times as fast as the other we are."""
    if ours is None or theirs is None:
        return "-"
    return f"{ours / theirs if name in {'alu', 'memory'} else theirs / ours:.2f}x"


def print_table(table: dict[str, dict[str, float | None]]) -> None:
    """One row for each benchmark: figures, our speed relative to each of the others, and the promise."""
    engines = list(next(iter(table.values())))
    others = engines[1:]
    print("".join(f"{cell:<14}" for cell in ["", *engines, *(f"to {name}" for name in others), "promise"]))
    for name, row in table.items():
        ours = row["paravirt"]
        kept = None if ours is None else meets(name, ours)
        cells = [name, *(show(name, row[engine]) for engine in engines)]
        cells += [ratio(name, ours, row[other]) for other in others]
        cells.append({None: "-", True: "kept", False: "BROKEN"}[kept])
        print("".join(f"{cell:<14}" for cell in cells).rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--check", action="store_true", help="status 1 if a promise is broken")
    options = parser.parse_args()
    engines = [engine for engine in ENGINES if engine.is_there()]
    with tempfile.TemporaryDirectory() as directory:
        image = build_guest([HERE / "guests" / "bench.c"], Path(directory) / "bench.elf")
        samples = measure(engines, image, options.rounds)
    table = summarise(samples)
    print_table(table)
    if options.json:
        report = {"version": __version__, "machine": platform.machine(), "rounds": options.rounds, "figures": table}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    broken = [
        name for name, row in table.items() if row["paravirt"] is not None and meets(name, row["paravirt"]) is False
    ]
    return 1 if options.check and broken else 0


sys.exit(main())
