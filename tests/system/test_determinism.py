"""The same guest, options and seed give the same run; seeds give other interleavings."""

from __future__ import annotations

import io

import pytest

import paravirt as pv

from .support import BuildGuest, RunGuest


def _trace(image: object, seed: int) -> tuple[str, str, int, int]:
    trace = io.StringIO()
    machine = pv.Machine(cpus=4, seed=seed, interfaces=[pv.KVM()], trace=pv.Tracer(trace, "all"))
    machine.boot(image)  # type: ignore[arg-type]
    result = machine.run(max_instructions=200_000_000)
    assert result.debug_exit == 0, machine.console.text
    return trace.getvalue(), machine.console.text, result.instructions, result.virtual_ns


def test_same_seed_same_trace(guest_image: BuildGuest) -> None:
    """Four racing CPUs: every event, the output, the instruction count and the clock are the same twice."""
    image = guest_image("race")
    assert _trace(image, 7) == _trace(image, 7)


def test_seeds_interleave_differently(guest_image: BuildGuest) -> None:
    """Ten seeds give more than one order of CPUs at a lock; each run is right in itself."""
    orders = {_trace(guest_image("race"), seed)[1].splitlines()[0] for seed in range(10)}
    assert len(orders) > 1


@pytest.mark.parametrize("cpus", [1, 2, 8])
def test_number_of_cpus(run_guest: RunGuest, cpus: int) -> None:
    """What locks and atomics protect is right on any number of CPUs."""
    run_guest("race", cpus=cpus).expect_success()
