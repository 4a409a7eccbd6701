"""Repair of foreign hypercall instructions, without a CPU: what is read, written and injected.

The same rules run as guest code in tests/system/test_fixup.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

import paravirt as pv
from paravirt import _native
from paravirt.host import AMD, HOSTS, INT_1F, INTEL, LGUEST, VMCALL, VMMCALL, Host
from paravirt.hypercalls.dispatch import Dispatcher
from paravirt.hypercalls.fixup import FixUpEngine, FixUpLog

from .fakes import CS_16BIT, CS_32BIT, PAGE, FakeExit, FakeMachine, FakeVm

TEXT = 0x1000
UD, GP, DB = 6, 13, 1
RFLAGS_TF = 1 << 8
RFLAGS_RF = 1 << 16
RESULT = 0x1234_5678_9ABC_DEF0


class Answering(pv.Interface):
    """Answers call 7 and counts."""

    signature = b"ANSWERING"

    def __init__(self) -> None:
        self.calls: list[int] = []

    @pv.hypercall(7)
    def answer(self, vcpu: pv.Vcpu, argument: int) -> int:
        self.calls.append(argument)
        return RESULT


class Scene:
    """A vCPU at an instruction that has just raised an exception."""

    def __init__(
        self,
        code: bytes,
        *,
        at: int = TEXT,
        host: Host = INTEL,
        policy: str = "patch",
        vendor: str = "GenuineIntel",
        cpus: int = 1,
        interfaces: Sequence[pv.Interface] | None = None,
    ) -> None:
        self.vm = FakeVm(cpus)
        self.vm.memory.write(at, code)
        self.interface = Answering()
        machine = FakeMachine(self.vm, [self.interface] if interfaces is None else interfaces)
        self.vcpus = machine.vcpus
        for vcpu in self.vcpus:
            vcpu.rip = at
            vcpu.rax = 7
            vcpu.rbx = 0xFFFF_FFFF_0000_0001
        self.log = FixUpLog()
        native = cast("_native.Vm", self.vm)
        self.engine = FixUpEngine(
            vm=native,
            vcpus=self.vcpus,
            host=host,
            guest_vendor=vendor,
            policy=pv.Policy(policy),
            dispatcher=Dispatcher([self.interface] if interfaces is None else interfaces, self.vcpus),
            log=self.log,
            symbol_for=lambda address: f"symbol_{address:x}",
        )

    def fault(self, vector: int = UD, error_code: int | None = None, vcpu: int = 0) -> None:
        self.vm.intercepted_exception = (vcpu, vector, error_code)
        exit = FakeExit(
            kind=_native.ExitKind.EXCEPTION,
            vcpu=vcpu,
            address=vector,
            value=error_code or 0,
            has_error_code=error_code is not None,
        )
        self.engine.on_exception(cast("_native.Exit", exit))

    @property
    def cpu(self) -> pv.Vcpu:
        return self.vcpus[0]

    def text(self, length: int, at: int = TEXT) -> bytes:
        return self.vm.memory.read(at, length)


@pytest.mark.parametrize(("host", "found", "native"), [(INTEL, VMMCALL, VMCALL), (AMD, VMCALL, VMMCALL)])
def test_patch(host: Host, found: bytes, native: bytes) -> None:
    """The last byte is replaced, the vCPU resumes where it was, and the log says all about it."""
    scene = Scene(found + b"\xcc", host=host)
    scene.fault()
    assert scene.text(4) == native + b"\xcc"
    assert scene.cpu.rip == TEXT
    assert scene.vm.injected == []
    assert scene.interface.calls == [], "the native instruction makes the call"
    expected = pv.FixUp(0, TEXT, TEXT + 2, "symbol_1000", found, native, "patch", 0)
    assert scene.log.records == (expected,)
    assert scene.log.counts == {"patch": 1}


def test_patch_keeps_prefixes() -> None:
    """Only the last opcode byte changes, wherever it is; what follows the instruction is left alone."""
    scene = Scene(b"\x66\x48" + VMMCALL + b"\xd9\xd9")
    scene.fault()
    assert scene.text(7) == b"\x66\x48" + VMCALL + b"\xd9\xd9"


@pytest.mark.parametrize("in_first_page", [1, 2])
def test_patch_over_two_pages_that_are_no_neighbours(in_first_page: int) -> None:
    """The byte that differs is found through the guest's page tables."""
    at = TEXT + PAGE - in_first_page
    scene = Scene(VMMCALL[:in_first_page], at=at)
    elsewhere = 0x9000
    scene.vm.pages[at // PAGE + 1] = elsewhere
    scene.vm.memory.write(elsewhere, VMMCALL[in_first_page:])
    scene.fault()
    assert scene.text(3 - in_first_page, elsewhere) == VMCALL[in_first_page:]
    assert scene.log.records[0].gpa == elsewhere + 2 - in_first_page


def test_second_page_absent() -> None:
    """What the CPU could not have fetched is not our instruction; the exception stays what it was."""
    at = TEXT + PAGE - 2
    scene = Scene(VMMCALL[:2], at=at)
    scene.vm.pages[at // PAGE + 1] = None
    scene.fault()
    assert scene.vm.injected == [(0, UD, None)]


def test_last_instruction_before_an_absent_page() -> None:
    """Bytes behind the instruction are not needed."""
    at = TEXT + PAGE - 3
    scene = Scene(VMMCALL, at=at)
    scene.vm.pages[at // PAGE + 1] = None
    scene.fault()
    assert scene.text(3, at) == VMCALL


def test_two_cpus_at_one_place() -> None:
    """The second finds native bytes and resumes: one patch."""
    scene = Scene(VMMCALL, cpus=2)
    scene.fault(vcpu=0)
    scene.fault(vcpu=1)
    assert scene.log.total == 1
    assert scene.vm.injected == []


@pytest.mark.parametrize(("policy", "injected", "rip"), [("patch", [], TEXT + 4), ("reject", [(0, UD, None)], TEXT)])
def test_native_bytes_that_fault_for_ever(policy: str, injected: list[object], rip: int) -> None:
    """If resuming did not help and nothing was executed since, the host does not like a prefix: no endless loop."""
    scene = Scene(b"\x66" + VMCALL, policy=policy)
    scene.fault()
    assert (scene.vm.injected, scene.cpu.rip) == ([], TEXT)
    scene.fault()
    assert (scene.vm.injected, scene.cpu.rip) == (injected, rip)


def test_text_that_cannot_be_written() -> None:
    """A write that changes nothing must not be resumed from: the call is carried out once instead."""
    scene = Scene(VMMCALL)
    scene.vm.memory.read_only = {TEXT + 2}
    scene.fault()
    assert scene.text(3) == VMMCALL
    assert (scene.cpu.rip, scene.cpu.rax) == (TEXT + 3, RESULT)
    assert scene.log.counts == {"emulate": 1}


def test_emulate() -> None:
    """The call is answered, the instruction skipped with its prefixes, the text never touched."""
    code = b"\x48" + VMMCALL
    scene = Scene(code, policy="emulate")
    scene.fault()
    assert scene.text(4) == code
    assert (scene.cpu.rip, scene.cpu.rax) == (TEXT + 4, RESULT)
    assert scene.interface.calls == [0xFFFF_FFFF_0000_0001]
    assert scene.log.records[0].replaced is None
    assert scene.vm.injected == []


def test_emulate_outside_64_bit_code() -> None:
    """Registers count as 32 bits wide, and RIP wraps there."""
    scene = Scene(VMMCALL, policy="emulate")
    scene.cpu.cs_attributes = CS_32BIT
    scene.cpu.cs_base = TEXT + 3
    scene.cpu.rip = 0xFFFF_FFFD
    scene.fault()
    assert scene.interface.calls == [1]
    assert (scene.cpu.rip, scene.cpu.rax) == (0, RESULT & 0xFFFF_FFFF)


def test_emulate_in_16_bit_code() -> None:
    """IP has 16 bits."""
    scene = Scene(VMMCALL, at=0x1FFFD, policy="emulate")
    scene.cpu.cs_attributes = CS_16BIT
    scene.cpu.cs_base = 0x1_0000
    scene.cpu.rip = 0xFFFD
    scene.fault()
    assert scene.cpu.rip == 0


def test_emulate_at_the_edge_of_the_canonical_space() -> None:
    """RIP becomes what it is, not sign-extended; the next fetch faults."""
    edge = 0x7FFF_FFFF_FFFD
    scene = Scene(b"", policy="emulate")
    scene.vm.pages = {edge // PAGE: TEXT, edge // PAGE + 1: None}
    scene.vm.memory.write(TEXT + edge % PAGE, VMMCALL)
    scene.cpu.rip = edge
    scene.fault()
    assert scene.cpu.rip == 0x8000_0000_0000


def test_emulate_ends_as_an_instruction_does() -> None:
    """RF is clear, and with TF set a single-step trap follows."""
    scene = Scene(VMMCALL, policy="emulate")
    scene.cpu.rflags = 2 | RFLAGS_TF | RFLAGS_RF
    scene.fault()
    assert scene.cpu.rflags == 2 | RFLAGS_TF
    assert scene.cpu.dr6 == 1 << 14
    assert scene.vm.injected == [(0, DB, None)]


@pytest.mark.parametrize("host", [INTEL, AMD])
@pytest.mark.parametrize(
    ("vendor", "guest_has", "guest_lacks"),
    [("GenuineIntel", VMCALL, VMMCALL), ("AuthenticAMD", VMMCALL, VMCALL), ("HygonGenuine", VMMCALL, VMCALL)],
)
def test_strict(host: Host, vendor: str, guest_has: bytes, guest_lacks: bytes) -> None:
    """The instruction of the guest's CPU works on both hosts, the other on none."""
    if guest_has == host.hypercall:
        assert not Scene(guest_has, host=host, policy="strict", vendor=vendor).engine.native_is_undefined
    else:
        scene = Scene(guest_has, host=host, policy="strict", vendor=vendor)
        scene.fault()
        assert scene.cpu.rax == RESULT
        assert scene.engine.native_is_undefined
    if guest_lacks != host.hypercall:
        scene = Scene(guest_lacks, host=host, policy="strict", vendor=vendor)
        scene.fault()
        assert scene.vm.injected == [(0, UD, None)]


def test_reject() -> None:
    """The guest gets its exception; the log still says that there was one."""
    scene = Scene(VMMCALL, policy="reject")
    scene.fault()
    assert scene.vm.injected == [(0, UD, None)]
    assert scene.text(3) == VMMCALL
    assert scene.log.counts == {"reject": 1}
    assert scene.log.total == 0


@pytest.mark.parametrize("policy", ["patch", "emulate", "reject"])
@pytest.mark.parametrize(
    "code", [b"\x0f\x0b", b"\xf0" + VMMCALL, b"\xf3" + VMMCALL, b"\x0f\x01\xd8", b"\x0f\x01\xcf", b""]
)
def test_other_undefined_instructions(policy: str, code: bytes) -> None:
    """UD2, LOCK, VMGEXIT, VMRUN, ENCLS: delivered unchanged, nothing logged, nothing written."""
    scene = Scene(code, policy=policy)
    before = scene.text(PAGE)
    scene.fault()
    assert scene.vm.injected == [(0, UD, None)]
    assert scene.text(PAGE) == before
    assert scene.log.records == ()


@pytest.mark.parametrize("policy", ["patch", "emulate"])
def test_user_mode(policy: str) -> None:
    """A user process must not make us write to text that is read-only to it."""
    scene = Scene(VMMCALL, policy=policy)
    scene.cpu.cs = 0x1B
    scene.fault()
    assert scene.vm.injected == [(0, UD, None)]
    assert scene.text(3) == VMMCALL


def test_virtual_8086_mode() -> None:
    """It is user mode, whatever its CS says."""
    scene = Scene(VMMCALL)
    scene.cpu.rflags = 2 | 1 << 17
    scene.cpu.cs_attributes = CS_16BIT
    scene.fault()
    assert scene.vm.injected == [(0, UD, None)]


@pytest.mark.parametrize("vector", [UD, GP])
@pytest.mark.parametrize("found", [VMCALL, VMMCALL])
def test_lguest(vector: int, found: bytes) -> None:
    """A host without virtualization gives #UD or #GP(0), and gets `int $0x1f; nop`."""
    scene = Scene(found, host=LGUEST)
    scene.fault(vector, 0 if vector == GP else None)
    assert scene.text(3) == INT_1F
    assert scene.vm.injected == []


def test_lguest_other_protection_faults() -> None:
    """A #GP with an error code has another cause."""
    scene = Scene(VMCALL, host=LGUEST)
    scene.fault(GP, 8)
    assert scene.vm.injected == [(0, GP, 8)]


def test_strict_needs_a_vendor() -> None:
    """On a host that runs neither instruction there is nothing strict to do."""
    with pytest.raises(
        pv.ConfigurationError, match=r"^policy 'strict' goes by the guest CPU's vendor, and host 'lguest'"
    ):
        Scene(VMCALL, host=LGUEST, policy="strict")


def test_protection_fault_on_a_virtualizing_host() -> None:
    """#GP means nothing there, whatever the bytes."""
    scene = Scene(VMMCALL)
    scene.fault(GP, 0)
    assert scene.vm.injected == [(0, GP, 0)]


def test_fault_from_the_call_itself() -> None:
    """A handler that gives the guest an exception gives it at the instruction."""

    class Faulting(pv.Interface):
        signature = b"F"

        @pv.hypercall(7)
        def fault(self, vcpu: pv.Vcpu) -> int:
            raise pv.GuestFault

    scene = Scene(VMMCALL, policy="emulate", interfaces=[Faulting()])
    scene.fault()
    assert scene.vm.injected == [(0, GP, 0)]
    assert scene.cpu.rip == TEXT


def test_log_is_bounded() -> None:
    """A guest can cause any number of fix-ups; what is kept does not grow, what is counted does."""
    log = FixUpLog()
    for number in range(10_050):
        log.add(pv.FixUp(0, number, number, None, VMCALL, VMMCALL, "patch", 0))
    assert len(log.records) == 10_000
    assert log.records[0].rip == 50
    assert log.total == 10_050


def test_every_host_has_a_row() -> None:
    """The names that users give."""
    assert list(HOSTS) == ["intel", "amd", "lguest"]
