"""VMware's interface: commands by each way in, what privilege forbids and is done all the same, leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import paravirt as pv
from paravirt.interfaces.vmware import MAGIC, VMware, VMwareBackdoor

from .test_machine import HALT, VMCALL, kernel, mov_eax, mov_ebx, mov_ecx

MakeMachine = Callable[..., pv.Machine]
IN_EAX_DX, OUT_DX_EAX, IN_AL_DX, RDPMC = b"\xed", b"\xef", b"\xec", b"\x0f\x33"
LEFT_ALONE = 0x1234_5678_9ABC_DEF0


def mov_edx(value: int) -> bytes:
    return b"\xba" + value.to_bytes(4, "little")


class AlsoFirst(pv.Interface):
    """Wants to be where VMware must be."""

    signature = b"ALSO FIRST"
    fixed_base = 0x4000_0000


def command(number: int, *, magic: int = MAGIC, port: int = 0x5658) -> bytes:
    """The registers of a command."""
    return mov_eax(magic) + mov_ebx(0x55) + mov_ecx(number) + mov_edx(port)


@pytest.fixture
def run(paravirt_machine: MakeMachine) -> Callable[..., pv.Vcpu]:
    """Run code to its end and return the vCPU."""

    def run(code: bytes, host: str = "intel", interfaces: tuple[str, ...] = ("vmware",)) -> pv.Vcpu:
        machine = paravirt_machine(memory="4M", host=host, interfaces=interfaces)
        machine.boot(kernel(code + HALT))
        assert machine.run(max_instructions=1000).reason is pv.StopReason.HALTED
        return machine.vcpus[0]

    return run


Run = Callable[..., pv.Vcpu]


@pytest.mark.parametrize("way_in", [IN_EAX_DX, OUT_DX_EAX, VMCALL])
@pytest.mark.parametrize("host", ["intel", "amd"])
def test_version(run: Run, way_in: bytes, host: str) -> None:
    """The version and the magic, by port, by OUT as QEMU has it, and by a hypercall that may be foreign."""
    vcpu = run(command(10) + way_in, host)
    assert (vcpu.rax, vcpu.rbx, vcpu.rcx) == (6, MAGIC, 2)


def test_commands(run: Run) -> None:
    """Frequencies in Hz and MHz, memory in MiB, the date, what a vCPU can do."""
    vcpu = run(command(45) + IN_EAX_DX)
    assert (vcpu.rax, vcpu.rbx, vcpu.rcx) == (10**9, 0, 10**9)
    assert run(command(1) + IN_EAX_DX).rax == 1000
    assert run(command(20) + IN_EAX_DX).rax == 4
    assert run(command(68) + IN_EAX_DX).rax == 8
    vcpu = run(command(23) + IN_EAX_DX)
    assert vcpu.rax == 1_767_225_600
    assert vcpu.rbx < 10**6
    vcpu = run(command(46) + IN_EAX_DX)
    assert (vcpu.rax, vcpu.rsi, vcpu.rdx) == (MAGIC, 0, 1_767_225_600)


@pytest.mark.parametrize(
    "code",
    [
        command(0xFFF) + IN_EAX_DX,
        command(91) + IN_EAX_DX,
        command(10, magic=1) + IN_EAX_DX,
        command(10, port=0x5659) + IN_EAX_DX,
        command(0xFFF) + VMCALL,
    ],
)
def test_unknown(run: Run, code: bytes) -> None:
    """All ones in EAX, and no other register is touched."""
    vcpu = run(code)
    assert (vcpu.rax, vcpu.rbx) == (0xFFFF_FFFF, 0x55)


def test_other_widths(run: Run) -> None:
    """A byte from the port is a byte of a bus that nobody drives."""
    vcpu = run(command(10) + IN_AL_DX)
    assert (vcpu.rax, vcpu.rbx) == (MAGIC | 0xFF, 0x55)


@pytest.mark.parametrize("code", [IN_EAX_DX, b"\x2e" + IN_EAX_DX, OUT_DX_EAX])
def test_without_privilege(paravirt_machine: MakeMachine, code: bytes) -> None:
    """A user program that the TSS keeps from the port gets its answer; 64-bit registers that a command sets are
    zero-extended, others stay."""
    machine = paravirt_machine(memory="4M", interfaces=["vmware"])
    machine.boot(kernel(code + HALT))
    vcpu = machine.vcpus[0]
    vcpu.cs, vcpu.ss = 0x1B, 0x23
    vcpu.cs_attributes, vcpu.ss_attributes = vcpu.cs_attributes | 0x60, vcpu.ss_attributes | 0x60
    vcpu.rax, vcpu.rbx, vcpu.rcx, vcpu.rdx = MAGIC, LEFT_ALONE, 10, 0x5658
    start = vcpu.rip
    machine.step()
    assert vcpu.rip == start + len(code)
    assert (vcpu.rax, vcpu.rbx) == (6, MAGIC)


@pytest.mark.parametrize(("index", "answered"), [(0x1_0000, True), (0x1_0001, True), (0x1_0002, True), (0xFFF, False)])
def test_pseudo_counters(paravirt_machine: MakeMachine, index: int, answered: bool) -> None:
    """Three of them, whatever CR4.PCE says; another index faults, here for good."""
    machine = paravirt_machine(memory="4M", interfaces=["vmware"])
    machine.boot(kernel(mov_ecx(index) + RDPMC + HALT))
    reason = machine.run(max_instructions=1000).reason
    assert reason is (pv.StopReason.HALTED if answered else pv.StopReason.TRIPLE_FAULT)
    if answered:
        vcpu = machine.vcpus[0]
        assert 0 < vcpu.rax | vcpu.rdx << 32 <= machine.now_ns


def test_beside_others(run: Run) -> None:
    """The backdoor alone announces nothing and takes only its own calls."""
    vcpu = run(command(10) + IN_EAX_DX, "amd", ("kvm", "vmware-backdoor"))
    assert vcpu.rbx == MAGIC
    assert run(mov_eax(999) + VMCALL, "amd", ("vmware-backdoor", "kvm")).rax == -1000 & 0xFFFF_FFFF
    assert VMwareBackdoor().cpuid() == {}
    with pytest.raises(pv.PlacementError, match="both need CPUID leaf 0x40000000"):
        pv.Machine(memory="4M", interfaces=[VMware(), AlsoFirst()])


@pytest.mark.parametrize(("cpu", "form"), [("zen2", 1), ("haswell", 2)])
def test_leaves(paravirt_machine: MakeMachine, cpu: str, form: int) -> None:
    """Frequencies in kHz, and the hypercall instruction of the guest's CPU."""
    vmware = VMware()
    paravirt_machine(memory="4M", cpu=cpu, interfaces=[vmware])
    leaves = vmware.cpuid()
    assert leaves[0x4000_0000] == (0x4000_0010, 0x6177_4D56, 0x4D56_6572, 0x6572_6177)
    assert leaves[0x4000_0010] == (1_000_000, 1_000_000, form, 0)
