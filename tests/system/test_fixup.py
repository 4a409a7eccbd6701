"""Repair of hypercall instructions, by the guest tests/guests/fixup.c and its neighbours."""

from __future__ import annotations

import pytest

import paravirt as pv

from .support import RunGuest, SumInterface

VMCALL = b"\x0f\x01\xc1"
VMMCALL = b"\x0f\x01\xd9"

CASES = [
    "writable",
    "native",
    "read-only",
    "straddling",
    "straddling-absent",
    "last-before-absent",
    "harmless-prefixes",
    "other-prefixes",
    "single-step",
    "canonical-edge",
    "user",
    "in-ud-handler",
    "other-invalid",
]


@pytest.mark.parametrize("policy", ["patch", "emulate"])
@pytest.mark.parametrize("case", CASES)
def test_case(run_guest: RunGuest, host: str, foreign: str, bits: int, policy: str, case: str) -> None:
    """The guest itself says what the rule of each case is."""
    run_guest("fixup", foreign, policy, case, bits=bits, host=host, policy=policy).expect_success()


@pytest.mark.parametrize("instruction", ["vmcall", "vmmcall"])
@pytest.mark.parametrize("case", sorted({*CASES} - {"native"}))
def test_case_without_virtualization(run_guest: RunGuest, bits: int, instruction: str, case: str) -> None:
    """Where both instructions are foreign, they become `int 0x1f; nop`: three bytes, straddling pages or not."""
    run_guest("fixup", instruction, "patch-to-int", case, bits=bits, host="lguest").expect_success()


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        ("patch", "result 1506, text changed"),
        ("emulate", "result 1506, text unchanged"),
        ("reject", "exception 6, text unchanged"),
    ],
)
def test_policy_without_virtualization(run_guest: RunGuest, policy: str, outcome: str) -> None:
    """Both instructions are foreign to such a host."""
    run = run_guest("policy", host="lguest", policy=policy)
    assert run.console.splitlines() == [f"vmcall: {outcome}", f"vmmcall: {outcome}"]


def test_patched_once(run_guest: RunGuest, host: str, foreign: str) -> None:
    """One place is repaired once, and logged with all that is known about it."""
    run = run_guest("fixup", foreign, "patch", "writable", host=host).expect_success()
    (fixup,) = run.machine.fixups
    native, other = (VMCALL, VMMCALL) if host == "intel" else (VMMCALL, VMCALL)
    assert (fixup.found, fixup.replaced) == (other, native)
    assert (fixup.vcpu, fixup.gpa) == (0, fixup.rip + 2)
    assert fixup.action == "patch"
    assert run.result.fixups == 1


def test_emulated_each_time(run_guest: RunGuest, host: str, foreign: str) -> None:
    """Without patching, the same place traps again."""
    run = run_guest("fixup", foreign, "emulate", "writable", host=host, policy="emulate").expect_success()
    first, second = run.machine.fixups
    assert first.rip == second.rip
    assert first.replaced is None
    assert first.action == "emulate"


def test_native_is_not_touched(run_guest: RunGuest, host: str, foreign: str) -> None:
    """The host's own instruction is a hypercall and nothing else."""
    run = run_guest("fixup", foreign, "patch", "native", host=host).expect_success()
    assert not run.machine.fixups
    assert run.result.exits["hypercall"] == 1


def test_symbol(run_guest: RunGuest, host: str) -> None:
    """A repair in the guest's own text is logged with the function's name."""
    run = run_guest("kvm", "unknown", host=host, interfaces=[pv.KVM()]).expect_success()
    symbols = {fixup.symbol.split("+")[0] for fixup in run.machine.fixups if fixup.symbol}
    assert symbols <= {"test_unknown", "main"}
    assert symbols


@pytest.mark.parametrize(
    ("policy", "vendor", "vmcall", "vmmcall"),
    [
        # patch and emulate: both work, whatever the guest's CPU is.
        ("patch", None, "result 1506, text unchanged", "result 1506, text changed"),
        ("emulate", None, "result 1506, text unchanged", "result 1506, text unchanged"),
        # strict: what the guest's CPU has, on any host; the other is #UD.
        ("strict", "GenuineIntel", "result 1506, text unchanged", "exception 6, text unchanged"),
        ("strict", "AuthenticAMD", "exception 6, text unchanged", "result 1506, text unchanged"),
        # reject: what the host has.
        ("reject", "GenuineIntel", "result 1506, text unchanged", "exception 6, text unchanged"),
        ("reject", "AuthenticAMD", "result 1506, text unchanged", "exception 6, text unchanged"),
    ],
)
def test_policy(run_guest: RunGuest, policy: str, vendor: str | None, vmcall: str, vmmcall: str, host: str) -> None:
    """The table of policies, on an Intel host; on an AMD host the same with the names exchanged."""
    cpu = "default" if vendor is None else f"default,vendor={vendor}"
    if host == "amd":
        other = {None: None, "GenuineIntel": "AuthenticAMD", "AuthenticAMD": "GenuineIntel"}[vendor]
        cpu = "default" if other is None else f"default,vendor={other}"
        vmcall, vmmcall = vmmcall, vmcall
    run = run_guest("policy", host=host, policy=policy, cpu=cpu)
    assert run.console.splitlines() == [f"vmcall: {vmcall}", f"vmmcall: {vmmcall}"]


@pytest.mark.parametrize("seed", range(24))
def test_two_cpus_at_one_place(run_guest: RunGuest, seed: int) -> None:
    """Whatever the interleaving, one place is patched once: the second CPU finds native bytes and goes on."""
    host, foreign = (("intel", "vmmcall"), ("amd", "vmcall"))[seed % 2]
    run = run_guest("smp_site", foreign, "8", host=host, cpus=2 + seed % 3, seed=seed).expect_success()
    places = [fixup.rip for fixup in run.machine.fixups if fixup.action == "patch"]
    assert len(places) == len(set(places)) == 8


@pytest.mark.parametrize("seed", range(6))
def test_code_that_another_cpu_writes(run_guest: RunGuest, host: str, foreign: str, seed: int) -> None:
    """Decoded code is dropped at once when another CPU writes to its page, and repair works there too."""
    run_guest("cross_modify", foreign, host=host, cpus=2, seed=seed).expect_success()


class Mover(SumInterface):
    """Moves the machine to a host of the other vendor when the guest asks for it."""

    signature = b"PARAVIRTMOVE"

    @pv.hypercall(0x101)
    def move(self, vcpu: pv.Vcpu) -> int:
        self.machine.stop()
        return 0


def test_host_changes_vendor(run_guest: RunGuest, guest_image: object, host: str) -> None:
    """A place that was patched for one vendor is patched back when the host is of the other, each time."""
    run = run_guest("migrate", host=host, interfaces=[Mover()])
    machine = run.machine
    moves = 0
    result = run.result
    while result.reason == pv.StopReason.STOPPED:
        machine.host = "amd" if str(machine.host) == "intel" else "intel"
        moves += 1
        result = machine.run(max_instructions=100_000_000)
    assert moves == 4
    assert result.debug_exit == 0, machine.console.text
    by_place: dict[int, int] = {}
    for fixup in machine.fixups:
        by_place[fixup.rip] = by_place.get(fixup.rip, 0) + 1
    assert max(by_place.values()) == 4


def test_text_in_device_memory(run_guest: RunGuest, host: str, foreign: str) -> None:
    """Text that cannot be changed makes no endless loop: the run goes on, or the guest gets an exception."""
    run = run_guest("mmio_text", foreign, host=host)
    assert run.result.reason == pv.StopReason.DEBUG_EXIT, run.console
