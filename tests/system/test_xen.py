"""Xen's interface, by the guest tests/guests/xen.c."""

from __future__ import annotations

import pytest

import paravirt as pv
from paravirt.interfaces.xen import Xen

from .support import RunGuest

CASES = {"page": 1, "callback": 1, "vector": 1, "timer": 1, "poll": 2, "down": 2}
"""With how many vCPUs."""


@pytest.mark.parametrize("case", CASES)
def test_case(run_guest: RunGuest, host: str, bits: int, case: str) -> None:
    """The guest itself says what the rule of each case is."""
    run_guest("xen", case, bits=bits, host=host, cpus=CASES[case], interfaces=[Xen()]).expect_success()


@pytest.mark.parametrize("policy", list(pv.Policy))
def test_page_under_each_policy(run_guest: RunGuest, host: str, policy: pv.Policy) -> None:
    """The page has the host's own instruction, so nothing is ever repaired."""
    run = run_guest("xen", "page", host=host, policy=policy, interfaces=[Xen()])
    assert not run.expect_success().machine.fixups


def test_behind_kvm(run_guest: RunGuest, host: str) -> None:
    """What comes from the page is Xen's, wherever its leaves are."""
    run_guest("xen", "page", host=host, interfaces=[pv.KVM(), Xen()]).expect_success()


@pytest.mark.parametrize("seed", range(3))
def test_runs_can_be_repeated(run_guest: RunGuest, seed: int) -> None:
    """Sleeps, events and timers included: the same seed gives the same run."""
    runs = [run_guest("xen", "poll", cpus=2, seed=seed, interfaces=[Xen()]).expect_success() for _ in range(2)]
    assert runs[0].machine.state_hash() == runs[1].machine.state_hash()
    assert runs[0].result.virtual_ns == runs[1].result.virtual_ns


@pytest.mark.parametrize(
    ("case", "reason", "status"), [("poweroff", "power-off", 0), ("reboot", "reset", 0), ("crash", "crash", 120)]
)
def test_shutting_down(run_guest: RunGuest, case: str, reason: str, status: int) -> None:
    """The guest's reason is the run's."""
    result = run_guest("xen", case, interfaces=[Xen()]).result
    assert (result.reason, result.status, result.vcpu) == (reason, status, 0)
