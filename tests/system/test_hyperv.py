"""Hyper-V's interface, by the guest tests/guests/hyperv.c."""

from __future__ import annotations

import pytest

import paravirt as pv
from paravirt.interfaces.hyperv import HyperV

from .support import RunGuest

CASES = ["discovery", "page", "user", "ipi", "flush", "output", "time", "apic", "timer"]


@pytest.mark.parametrize("case", CASES)
def test_case(run_guest: RunGuest, host: str, bits: int, case: str) -> None:
    """The guest itself says what the rule of each case is."""
    cpus = 3 if case == "ipi" else 1
    run_guest("hyperv", case, bits=bits, host=host, cpus=cpus, interfaces=[HyperV()]).expect_success()


@pytest.mark.parametrize("policy", list(pv.Policy))
def test_page_under_each_policy(run_guest: RunGuest, host: str, policy: pv.Policy) -> None:
    """The page has an instruction that works, whatever is done with others."""
    for cpu in ("default", "default,vendor=AuthenticAMD", "default,vendor=GenuineIntel"):
        run = run_guest("hyperv", "page", host=host, policy=policy, cpu=cpu, interfaces=[HyperV()])
        assert policy is pv.Policy.STRICT or not run.expect_success().machine.fixups


@pytest.mark.parametrize("order", [1, -1])
def test_beside_kvm(run_guest: RunGuest, host: str, order: int) -> None:
    """Both answer, in whatever order they are given: Hyper-V to its page, KVM to everything else."""
    run_guest("hyperv", "beside-kvm", host=host, interfaces=[pv.KVM(), HyperV()][::order]).expect_success()


def test_crash(run_guest: RunGuest) -> None:
    """The end of the run says what the guest says."""
    result = run_guest("hyperv", "crash", interfaces=[HyperV()]).result
    assert (result.reason, result.status, result.vcpu) == ("crash", 120, 0)
    parameters, text = result.message.split("\n")
    assert parameters.startswith("P0=0x10, P1=0x11, P2=0x12, P3=0x")
    assert text == "out of ideas"


def test_reset(run_guest: RunGuest) -> None:
    """The reset MSR is a hard reset."""
    assert run_guest("hyperv", "reset", interfaces=[HyperV()]).result.reason == "reset"


def test_same_run_twice(run_guest: RunGuest) -> None:
    """Timers and interrupts come at the same instructions."""
    runs = [run_guest("hyperv", "timer", "apic", cpus=2, seed=7, interfaces=[HyperV()]).machine for _ in range(2)]
    assert len({(machine.state_hash(), machine.now_ns) for machine in runs}) == 1


def test_other_host(run_guest: RunGuest) -> None:
    """After a change of the host the page has its instruction: nothing is repaired."""
    interface = HyperV()
    machine = run_guest("hyperv", "page", host="intel", interfaces=[interface]).expect_success().machine
    machine.host = "amd"
    assert interface.page.gpa is not None
    assert machine.memory.read(interface.page.gpa, 4) == b"\x0f\x01\xd9\xc3"
