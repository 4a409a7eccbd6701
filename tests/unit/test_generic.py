"""The vendor-neutral interface: leaves, mirrored MSRs, and the style that decides whose a hypercall is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import paravirt as pv
from paravirt.hypercalls.registers import XEN_CONVENTION
from paravirt.interfaces.generic import MSR_BASE, MSR_STYLE, Generic
from paravirt.interfaces.kvm_legacy import KVMLegacy

MakeMachine = Callable[..., pv.Machine]
MASK64 = (1 << 64) - 1


class Xen(pv.Interface):
    """One of another convention, by the name that the style goes by."""

    name = "xen"
    signature = b"XenVMMXenVMM"
    convention = XEN_CONVENTION
    unknown_call = -38

    @pv.hypercall(17)
    def version(self, vcpu: pv.Vcpu, command: int) -> int:
        return 4 << 16 | command


class Setting:
    """A machine with KVM, Xen and the generic interface."""

    def __init__(self, machine: pv.Machine) -> None:
        self.machine = machine
        self.vcpu = machine.vcpus[0]
        self.generic = next(item for item in machine.interfaces if isinstance(item, Generic))

    def call(self, **registers: int) -> int | None:
        values = [registers.get(name, 0) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi")] + [0] * 5
        return self.machine._dispatcher.call(self.vcpu, tuple(values), is_64bit=True, cpl=0)  # type: ignore[arg-type]


@pytest.fixture
def setting(paravirt_machine: MakeMachine) -> Setting:
    return Setting(paravirt_machine(memory="4M", interfaces=[pv.KVM(), Generic(), Xen()]))


def test_leaves(setting: Setting) -> None:
    """At its own place; features and hints are KVM's, and each interface adds its style."""
    leaves = setting.generic.cpuid()
    assert leaves[0x4000_1000] == (0x4000_1002, 0x6172_6170, 0x7472_6976, 0x7370_6F5F)
    kvm = setting.machine.interfaces[0]
    assert isinstance(kvm, pv.KVM)
    assert leaves[0x4000_1001] == (int(kvm.features), 0b110, 1, 0)
    assert leaves[0x4000_1002] == (0x4000_1000, 0x20, 0, 0)


def test_styles(setting: Setting) -> None:
    """KVM's at first, since it is first; then what the vCPU selects. Unknown ones are refused and change nothing."""
    assert setting.generic.read_style(setting.vcpu) == 1
    assert setting.call(rax=17, rbx=1, rdi=2) == -1000 & MASK64
    setting.generic.write_style(setting.vcpu, 2)
    assert setting.call(rax=17, rbx=1, rdi=2) == 4 << 16 | 2
    for bad in (3, 9, 1 << 8 | 1, -1 & MASK64):
        with pytest.raises(pv.GuestFault):
            setting.generic.write_style(setting.vcpu, bad)
    assert setting.generic.read_style(setting.vcpu) == 2
    setting.generic.write_style(setting.vcpu, 0)
    assert setting.call(rax=17) is None


def test_style_is_of_a_vcpu(paravirt_machine: MakeMachine) -> None:
    """And a reset takes it back."""
    machine = paravirt_machine(memory="4M", cpus=2, interfaces=[pv.KVM(), Generic(), Xen()])
    generic = Setting(machine).generic
    generic.write_style(machine.vcpus[1], 2)
    assert [generic.read_style(vcpu) for vcpu in machine.vcpus] == [1, 2]
    generic.reset()
    assert [generic.read_style(vcpu) for vcpu in machine.vcpus] == [1, 1]


def test_mirrored_msrs(setting: Setting) -> None:
    """KVM's clock by the neutral number, seen by both; no more than KVM has."""
    setting.generic.write_mirrored(setting.vcpu, MSR_BASE + 1, 0x3001)
    assert setting.generic.read_mirrored(setting.vcpu, MSR_BASE + 1) == 0x3001
    kvm = setting.machine.interfaces[0]
    assert isinstance(kvm, pv.KVM)
    assert kvm.read_system_time(setting.vcpu) == 0x3001
    assert setting.machine.memory.read_int(0x3000 + 24, 4) == 0x8000_0000
    for index in (MSR_BASE + 9, MSR_STYLE - 1):
        with pytest.raises(pv.GuestFault):
            setting.generic.read_mirrored(setting.vcpu, index)


def test_alone(paravirt_machine: MakeMachine) -> None:
    """With nobody else there is no style, and so no hypercall."""
    machine = paravirt_machine(memory="4M", interfaces=["generic"])
    assert Setting(machine).generic.cpuid()[0x4000_1001] == (0, 0, 1, 0)
    assert Setting(machine).call(rax=1) is None


class TestKvmLegacy:
    """KVM's first interface: registration, the stub, calls that go to user space."""

    STATE, STUB = 0x5000, 0x6FF0

    def register(self, machine: pv.Machine, version: int = 1, stub: int = STUB) -> int:
        """Register vCPU 0. Returns what the host says in `ret`."""
        legacy = machine.interfaces[0]
        assert isinstance(legacy, KVMLegacy)
        memory = machine.memory
        memory.write_int(self.STATE, 4, version)
        memory.write_int(self.STATE + 16, 8, stub)
        legacy.write_magic(machine.vcpus[0], self.STATE)
        assert memory.read_int(self.STATE + 4, 4) == 1
        return memory.read_int(self.STATE + 12, 4)

    @pytest.mark.parametrize(("host", "opcode"), [("intel", b"\x0f\x01\xc1\xc3"), ("amd", b"\x0f\x01\xd9\xc3")])
    def test_registration(self, paravirt_machine: MakeMachine, host: str, opcode: bytes) -> None:
        """The stub has the host's instruction, and keeps it when the host changes: what came after does better."""
        machine = paravirt_machine(memory="4M", host=host, interfaces=[KVMLegacy()])
        assert self.register(machine) == 0
        assert machine.memory.read(self.STUB, 4) == opcode
        machine.host = "amd" if host == "intel" else "intel"
        assert machine.memory.read(self.STUB, 4) == opcode

    @pytest.mark.parametrize(("version", "stub"), [(2, STUB), (1, 0x6FFD), (1, 1 << 40)])
    def test_refused(self, paravirt_machine: MakeMachine, version: int, stub: int) -> None:
        """A version that is not known, a stub across pages, a stub where there is no RAM."""
        machine = paravirt_machine(memory="4M", interfaces=[KVMLegacy()])
        assert self.register(machine, version, stub) == 0xFFFF_FFFF

    @pytest.mark.parametrize("gpa", [0x5001, 1 << 40])
    def test_bad_page(self, gpa: int) -> None:
        """#GP for a state page that is not aligned or not there."""
        machine = pv.Machine(memory="4M", interfaces=[KVMLegacy()])
        legacy = machine.interfaces[0]
        assert isinstance(legacy, KVMLegacy)
        with pytest.raises(pv.GuestFault):
            legacy.write_magic(machine.vcpus[0], gpa)

    def test_calls(self, paravirt_machine: MakeMachine) -> None:
        """Made from the stub they are its own, with six arguments, though KVM is there; else -EINVAL of then."""
        seen: list[tuple[int, tuple[int, ...]]] = []

        def on_hypercall(vcpu: pv.Vcpu, number: int, arguments: tuple[int, ...]) -> int:
            seen.append((number, arguments))
            return 42

        for function, expected in ((on_hypercall, 42), (None, MASK64)):
            machine = paravirt_machine(memory="4M", interfaces=[KVMLegacy(function), pv.KVM()])
            self.register(machine)
            vcpu = machine.vcpus[0]
            registers = (7, 0, 4, 3, 2, 1, 0, 5, 6, 0, 0)
            vcpu.cs_base, vcpu.rip = 0, self.STUB
            call = machine._dispatcher.call
            assert call(vcpu, registers, is_64bit=True, cpl=0) == expected
        assert seen == [(7, (1, 2, 3, 4, 5, 6))]


@pytest.mark.parametrize("name", ["acrn", "bhyve", "jailhouse", "parallels", "qnx", "tcg", "virtualbox"])
def test_announced(paravirt_machine: MakeMachine, name: str) -> None:
    """A signature of 12 bytes at the start of the name space; calls do not exist."""
    machine = paravirt_machine(memory="4M", interfaces=[name])
    interface = machine.interfaces[0]
    leaves = interface.cpuid()
    assert b"".join(word.to_bytes(4, "little") for word in leaves[0x4000_0000][1:]) == interface.signature
    assert leaves[0x4000_0000][0] == max(leaves)
    assert machine._dispatcher.call(machine.vcpus[0], (1,) * 11, is_64bit=True, cpl=0) == -1000 & MASK64
    if name in ("acrn", "virtualbox"):
        assert leaves[0x4000_0010] == (1_000_000, 1_000_000, 0, 0)
