"""KVM's interface, by the guest tests/guests/kvm.c."""

from __future__ import annotations

import pytest

import paravirt as pv

from .support import RunGuest

CASES = ["cpuid", "clock", "steal-time", "pv-eoi", "kick-cpu", "send-ipi", "pairing", "msrs", "unknown", "user"]


@pytest.mark.parametrize("case", CASES)
def test_case(run_guest: RunGuest, host: str, bits: int, case: str) -> None:
    """The guest itself says what the rule of each case is."""
    run_guest("kvm", case, bits=bits, host=host, cpus=3, interfaces=[pv.KVM()]).expect_success()


def test_wall_clock(run_guest: RunGuest) -> None:
    """The wall clock is the time at power-on that the machine was given."""
    run = run_guest("kvm", "clock", interfaces=[pv.KVM()], start_unix_ns=1_700_000_000_250_000_000)
    assert "wall clock 1700000000.250000000" in run.expect_success().console


def test_clock_after_tsc_write(run_guest: RunGuest, host: str) -> None:
    """KVM rewrites the clock's structure when the guest moves its TSC, so that time goes on evenly."""
    run_guest("kvm", "clock-tsc", host=host, interfaces=[pv.KVM()]).expect_success()
