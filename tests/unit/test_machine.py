"""Machines: what is refused, and small kernels of a few bytes run to each kind of end."""

from __future__ import annotations

import gc
import io
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

import paravirt as pv
from paravirt.interfaces import INTERFACES

from ..elfwriter import Segment, multiboot_header, write_elf

MakeMachine = Callable[..., pv.Machine]
MIB = 1 << 20
ENTRY = MIB + 12

# 32-bit code, as a multiboot kernel starts.
HALT = b"\xfa\xf4"  # cli; hlt
SPIN = b"\xeb\xfe"  # jmp .
VMCALL, VMMCALL = b"\x0f\x01\xc1", b"\x0f\x01\xd9"
TRIPLE_FAULT = b"\x0f\x0b"  # ud2, without an IDT


def debug_exit(value: int) -> bytes:
    """mov eax, value; out 0xf4, eax."""
    return b"\xb8" + value.to_bytes(4, "little") + b"\xe7\xf4"


def mov_eax(value: int) -> bytes:
    return b"\xb8" + (value & 0xFFFF_FFFF).to_bytes(4, "little")


def mov_ebx(value: int) -> bytes:
    return b"\xbb" + (value & 0xFFFF_FFFF).to_bytes(4, "little")


def mov_ecx(value: int) -> bytes:
    return b"\xb9" + (value & 0xFFFF_FFFF).to_bytes(4, "little")


def put(text: bytes) -> bytes:
    """mov dx, 0x3f8; mov al, c; out dx, al ..."""
    return b"\x66\xba\xf8\x03" + b"".join(bytes((0xB0, character, 0xEE)) for character in text)


RDMSR, WRMSR, CPUID = b"\x0f\x32", b"\x0f\x30", b"\x0f\xa2"
OUT_EAX_F4 = b"\xe7\xf4"
STORE_EAX = b"\xa3" + (2 * MIB).to_bytes(4, "little")  # mov [2 MiB], eax


def kernel(code: bytes) -> bytes:
    """A multiboot kernel of 32-bit code."""
    symbols = [("start", ENTRY, len(code)), ("end", ENTRY + len(code), 0)]
    return write_elf([Segment(MIB, multiboot_header() + code, 4096)], entry=ENTRY, symbols=symbols)


@pytest.fixture
def run(paravirt_machine: MakeMachine) -> Callable[..., tuple[pv.Machine, pv.Result]]:
    """Run code on a machine with options."""

    def run(code: bytes, **options: Any) -> tuple[pv.Machine, pv.Result]:
        machine = paravirt_machine(**{"memory": "4M", **options})
        machine.boot(kernel(code))
        return machine, machine.run(max_instructions=100_000)

    return run


Run = Callable[..., tuple[pv.Machine, pv.Result]]


class Adder(pv.Interface):
    """The one of the documentation."""

    signature = b"ADDERADDERAD"

    @pv.hypercall(1)
    def add(self, vcpu: pv.Vcpu, a: int, b: int) -> int:
        return a + b


# -- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "arm"}, "unknown host 'arm'; known: intel, amd, lguest"),
        ({"cpus": 0}, "cpus 0 is not a number from 1 to 255"),
        ({"cpus": 1000}, "cpus 1000 is not a number from 1 to 255"),
        ({"cpus": 1.5}, "cpus 1.5 is not a number from 1 to 255"),
        ({"memory": "0"}, "memory '0' is too small; the least is '1M'"),
        ({"policy": "pray"}, "unknown policy 'pray'; known: patch, emulate, strict, reject"),
        ({"engine": "magic"}, "unknown engine 'magic'; known: soft"),
        ({"seed": -1}, "seed -1 is not a number from 0 to 18446744073709551615"),
        ({"interfaces": ["acme"]}, f"unknown interface 'acme'; known: {', '.join(sorted(INTERFACES))}"),
        (
            {"devices": ["gpu"]},
            "unknown device 'gpu'; known: testdev, debug-exit, debugcon, pci-testdev, and objects as Disk('FILE')",
        ),
        ({"tsc_khz": 1}, "tsc_khz 1 is not a number from 1000 to 4000000"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    """One line, with the value."""
    with pytest.raises(pv.ConfigurationError, match=f"^{re.escape(message)}$"):
        pv.Machine(**options)


def test_conflict_leaves_interfaces_free() -> None:
    """Interfaces of a machine that could not be made can be used in another."""

    class Other(Adder):
        signature = b"OTHER"

    adder, other = Adder(), Other()
    with pytest.raises(pv.PlacementError, match=r"^interfaces 'adder' and 'other' both claim hypercall 0x1;"):
        pv.Machine(interfaces=[adder, other])
    with pv.Machine(interfaces=[adder]):
        pass
    with pv.Machine(interfaces=[adder]):
        pass


def test_states(paravirt_machine: MakeMachine) -> None:
    """Not before booting, not after closing, not inside a run."""
    machine = paravirt_machine(memory="4M", interfaces=[Adder()])
    with pytest.raises(pv.MachineStateError, match=r"^nothing to run: call boot\(\) first$"):
        machine.run()
    machine.boot(kernel(VMCALL + HALT))
    machine.hook("hypercall", lambda vcpu, exit: vcpu.machine.run())
    with pytest.raises(pv.MachineStateError, match=r"^the machine is already running$"):
        machine.run(max_instructions=100)
    machine.close()
    machine.close()
    with pytest.raises(pv.MachineStateError, match=r"^the machine is closed$"):
        machine.run()


def test_failed_boot_changes_nothing(run: Run) -> None:
    """A bad kernel does not take the place of a good one."""
    machine, _ = run(debug_exit(5))
    with pytest.raises(pv.ImageError):
        machine.boot(b"garbage")
    machine.reset()
    assert machine.run(max_instructions=1000).debug_exit == 5


# -- ends of a run


def test_debug_exit(run: Run) -> None:
    """QEMU's status, and what the run did."""
    _, result = run(debug_exit(3))
    assert (result.reason, result.debug_exit, result.status) == (pv.StopReason.DEBUG_EXIT, 3, 7)
    assert result.instructions == 2
    assert result.exits["debug_exit"] == 1
    assert (result.engine, result.fixups) == ("soft", 0)


def test_console(run: Run) -> None:
    """What is printed is kept."""
    machine, _ = run(put(b"hi\r\n") + HALT)
    assert machine.console.text == "hi\n"


def test_console_stream(run: Run) -> None:
    """Or goes to a stream while it runs."""
    stream = io.StringIO()
    run(put(b"hi") + HALT, console=stream)
    assert stream.getvalue() == "hi"


@pytest.mark.parametrize(
    ("code", "reason"), [(HALT, "halted"), (TRIPLE_FAULT, "triple-fault"), (SPIN, "max-instructions")]
)
def test_ends(run: Run, code: bytes, reason: str) -> None:
    """Halted for ever, triple fault, budget."""
    _, result = run(code)
    assert result.reason == reason


def test_triple_fault_leaves_its_state(run: Run) -> None:
    """RIP is at the instruction that began it, and the way there is known."""
    machine, result = run(b"\x90\x90" + TRIPLE_FAULT)
    assert result.vcpu == 0
    assert machine.vcpus[0].rip == ENTRY + 2
    assert ENTRY in {address for address, *_ in machine.vcpus[0].recent_blocks()}


def test_budget_goes_on(run: Run) -> None:
    """Exactly as many instructions as asked for, as often as asked."""
    machine, result = run(SPIN)
    assert result.instructions == 100_000
    assert machine.run(max_instructions=7).instructions == 7


@pytest.mark.parametrize("code", [SPIN, VMCALL + b"\xeb\xfb"])
def test_timeout(paravirt_machine: MakeMachine, code: bytes) -> None:
    """Of the host's time; also a guest that makes nothing but hypercalls."""
    machine = paravirt_machine(memory="4M")
    machine.boot(kernel(code))
    assert machine.run(timeout=0.05).reason == "timeout"


def test_stop_from_another_thread(paravirt_machine: MakeMachine) -> None:
    """While guest code runs."""
    machine = paravirt_machine(memory="4M")
    machine.boot(kernel(VMCALL + SPIN))
    thread = threading.Thread(target=machine.stop)
    machine.hook("hypercall", lambda vcpu, exit: thread.start())
    assert machine.run().reason == "stopped"
    thread.join()


@pytest.mark.parametrize(("value", "reboot", "reason"), [(6, False, "reset"), (6, True, "max-instructions")])
def test_hard_reset(run: Run, value: int, reboot: bool, reason: str) -> None:
    """Ends the run, or starts the kernel anew: this one over and over."""
    _, result = run(b"\x66\xba\xf9\x0c\xb0" + bytes((value,)) + b"\xee" + SPIN, reboot=reboot)
    assert result.reason == reason
    assert (result.exits["reset"] > 1) == reboot


def outb(port: int, value: int) -> bytes:
    """mov dx, port; mov al, value; out dx, al."""
    return b"\x66\xba" + port.to_bytes(2, "little") + bytes((0xB0, value, 0xEE))


SUSPEND = outb(0x603, 4) + outb(0x604, 0) + outb(0x605, 0x24)
"""The real-time clock's alarm wakes the machine; suspend to RAM."""


@pytest.mark.parametrize("vector", [0x1234, 0x54321])
def test_suspend_to_ram(run: Run, vector: int) -> None:
    """The clock wakes the machine, and the guest goes on in real mode where it said, with its memory."""
    machine, _ = run(HALT)
    clock_interrupts = outb(0x70, 0x0B) + outb(0x71, 0x12)  # at the end of each second
    machine.boot(kernel(clock_interrupts + SUSPEND + debug_exit(1)))
    facs = 0xE0000 + machine.memory.read(0xE0000, 0x1000).index(b"FACS")
    machine.memory.write_int(facs + 12, 4, vector)
    machine.memory.write(vector, b"\x66\xb8\x2a\x00\x00\x00\x66\xe7\xf4")  # mov eax, 42; out 0xf4, eax
    result = machine.run(max_instructions=100)
    assert result.debug_exit == 42
    assert machine.vcpus[0].rip == 9 + (vector & 0xF)
    assert result.exits["suspend"] == 1


def test_suspend_for_ever(run: Run) -> None:
    """Nothing wakes the machine."""
    _, result = run(SUSPEND + SPIN)
    assert result.reason == "halted"


# -- hypercalls


@pytest.mark.parametrize(("host", "native", "foreign"), [("intel", VMCALL, VMMCALL), ("amd", VMMCALL, VMCALL)])
def test_both_instructions(run: Run, host: str, native: bytes, foreign: bytes) -> None:
    """Both make the call; the foreign one is patched."""
    call = mov_eax(1) + mov_ebx(40) + mov_ecx(2)
    machine, result = run(call + foreign + STORE_EAX + call + native + OUT_EAX_F4, host=host, interfaces=[Adder()])
    assert (result.debug_exit, result.fixups) == (42, 1)
    assert machine.memory.read_int(2 * MIB, 4) == 42
    (fixup,) = machine.fixups
    assert (fixup.rip, fixup.symbol, fixup.found, fixup.replaced) == (ENTRY + 15, "start+0xf", foreign, native)
    assert machine.memory.read(ENTRY + 15, 3) == native


@pytest.mark.parametrize("policy", ["patch", "emulate"])
def test_host_without_virtualization(run: Run, policy: str) -> None:
    """Both instructions are foreign; what they become is a call too."""
    call = mov_eax(1) + mov_ebx(40) + mov_ecx(2)
    code = call + VMCALL + STORE_EAX + call + VMMCALL + OUT_EAX_F4
    machine, result = run(code, host="lguest", interfaces=[Adder()], policy=policy)
    assert (result.debug_exit, result.fixups) == (42, 2)
    assert machine.memory.read_int(2 * MIB, 4) == 42
    after = b"\xcd\x1f\x90" if policy == "patch" else VMCALL
    assert machine.memory.read(ENTRY + 15, 3) == after


def test_no_hypervisor(run: Run) -> None:
    """Without an interface the instruction is undefined and no hypervisor is announced."""
    code = mov_eax(1) + CPUID + b"\xc1\xe9\x1f" + b"\x89\xc8" + STORE_EAX + VMCALL
    machine, result = run(code, interfaces=[])
    assert result.reason == "triple-fault"
    assert machine.memory.read_int(2 * MIB, 4) == 0


def test_exception_in_a_handler(run: Run) -> None:
    """Comes out unchanged; the machine is where it was and can go on."""

    class Failing(pv.Interface):
        """Fails once."""

        signature = b"FAILING"
        failed = False

        @pv.hypercall(9)
        def fail(self, vcpu: pv.Vcpu) -> int:
            if not self.failed:
                self.failed = True
                raise ZeroDivisionError("once")
            return 77

    machine = pv.Machine(memory="4M", interfaces=[Failing()])
    machine.boot(kernel(mov_eax(9) + VMCALL + OUT_EAX_F4))
    with pytest.raises(ZeroDivisionError, match=r"^once$"):
        machine.run()
    assert machine.vcpus[0].rip == ENTRY + 5
    assert machine.run(max_instructions=100).debug_exit == 77


def test_stop_in_a_handler(run: Run) -> None:
    """The call has been made when the run returns: another host may be beneath the guest by then."""

    class Stopping(Adder):
        """Stops the machine."""

        signature = b"STOPPING"

        @pv.hypercall(2)
        def stop(self, vcpu: pv.Vcpu) -> int:
            vcpu.machine.stop()
            return 5

    machine, result = run(mov_eax(2) + VMCALL + OUT_EAX_F4, interfaces=[Stopping()])
    assert result.reason == "stopped"
    assert (machine.vcpus[0].rip, machine.vcpus[0].rax) == (ENTRY + 8, 5)
    machine.host = "amd"
    assert machine.run(max_instructions=100).debug_exit == 5
    assert machine.fixups == ()


def test_watch_msr(run: Run) -> None:
    """An MSR of the CPU still does its work; writes that fault are not told."""
    seen: list[int] = []

    class Watching(pv.Interface):
        """Looks when the TSC is set."""

        signature = b"WATCHING"

        def attached(self) -> None:
            self.machine.watch_msr(0x10, lambda vcpu: seen.append(vcpu.tsc))
            self.machine.watch_msr(0x1B, lambda vcpu: seen.append(-1))

    tsc = mov_ecx(0x10) + mov_eax(0) + b"\xba\x01\0\0\0"  # mov edx, 1
    _, result = run(tsc + WRMSR + RDMSR + b"\x89\xd0" + OUT_EAX_F4, interfaces=[Watching()])  # mov eax, edx
    assert result.debug_exit == 1
    (value,) = seen
    assert 1 << 32 <= value < (1 << 32) + 1000
    _, result = run(mov_ecx(0x1B) + mov_eax(1) + WRMSR, interfaces=[Watching()])
    assert (result.reason, len(seen)) == ("triple-fault", 1)


def test_show_cpu_feature(run: Run) -> None:
    """CPUID says so from then on, and no longer."""

    class Showing(pv.Interface):
        """Shows the invariant TSC."""

        signature = b"SHOWING"

        @pv.hypercall(1)
        def show(self, vcpu: pv.Vcpu) -> int:
            return vcpu.machine.show_cpu_feature("invtsc", True)

    ask = mov_eax(0x8000_0007) + CPUID + b"\x89\xd0"  # mov eax, edx
    assert run(ask + OUT_EAX_F4, interfaces=[Showing()])[1].debug_exit == 0
    machine, result = run(mov_eax(1) + VMCALL + ask + OUT_EAX_F4, interfaces=[Showing()])
    assert result.debug_exit == 1 << 8
    assert machine.show_cpu_feature("invtsc", False)


class Asking(pv.Interface):
    """Does what a guest asks its hypervisor for."""

    signature = b"ASKING"

    def __init__(self) -> None:
        self.times: list[int] = []

    @pv.hypercall(1)
    def crash(self, vcpu: pv.Vcpu) -> int:
        vcpu.machine.shut_down(pv.StopReason.CRASH, vcpu, "no more ideas")
        return 0

    @pv.hypercall(2)
    def reset_machine(self, vcpu: pv.Vcpu) -> int:
        self.times.append(vcpu.machine.now_ns)
        vcpu.machine.shut_down(pv.StopReason.RESET, vcpu)
        return 0

    @pv.hypercall(3)
    def doze(self, vcpu: pv.Vcpu) -> int:
        machine = vcpu.machine
        self.times = [machine.now_ns, vcpu.run_ns]
        vcpu.doze()
        machine.call_at(machine.now_ns + 10**6, lambda: machine.deliver_interrupt(vcpu.apic_id, 0x50))
        return 7


def test_shut_down(run: Run) -> None:
    """A guest's own words about its crash come with the result."""
    _, result = run(mov_eax(1) + VMCALL + SPIN, interfaces=[Asking()])
    assert (result.reason, result.vcpu, result.message) == ("crash", 0, "no more ideas")
    _, result = run(mov_eax(2) + VMCALL + SPIN, interfaces=[Asking()])
    assert result.reason == "reset"


def test_shut_down_restarts(paravirt_machine: MakeMachine) -> None:
    """A machine that reboots starts again, behind the call that asked for it."""
    asking = Asking()
    machine = paravirt_machine(memory="4M", interfaces=[asking], reboot=True)
    machine.boot(kernel(mov_eax(2) + VMCALL + SPIN))
    assert machine.run(max_instructions=20_000).reason == "max-instructions"
    assert len(asking.times) > 1


def test_doze(run: Run) -> None:
    """An interrupt that IF holds off ends the sleep behind the instruction, and is not taken; asleep is not running."""
    enable_apic = b"\xc7\x05" + (0xFEE0_00F0).to_bytes(4, "little") + (0x1FF).to_bytes(4, "little")
    asking = Asking()
    machine, result = run(enable_apic + mov_eax(3) + VMCALL + OUT_EAX_F4, interfaces=[asking])
    assert result.debug_exit == 7
    slept_ns, ran_ns = machine.now_ns - asking.times[0], machine.vcpus[0].run_ns - asking.times[1]
    assert slept_ns >= 10**6
    assert 0 < ran_ns < 10**5


def test_local_apic(run: Run) -> None:
    """Registers by their offset, in either mode, ICR as one; none while it is off."""
    machine, _ = run(HALT)
    vcpu = machine.vcpus[0]
    vcpu.write_apic(0x80, 0x35)
    assert (vcpu.read_apic(0x80), vcpu.cr8) == (0x35, 3)
    vcpu.write_apic(0xF0, 0x1FF)
    vcpu.write_apic(0x300, 0x4_0051)  # To itself.
    assert vcpu.read_apic(0x220) == 1 << 0x11
    enabled = vcpu.rdmsr(0x1B)
    vcpu.wrmsr(0x1B, enabled | 1 << 10)
    vcpu.write_apic(0x300, 0x4_0052)
    assert vcpu.read_apic(0x300) == 0x4_0052
    assert vcpu.read_apic(0x220) == 0b11 << 0x11
    with pytest.raises(KeyError):
        vcpu.read_apic(0x310)  # A half of ICR, which is one here.
    with pytest.raises(KeyError):
        vcpu.write_apic(0x80, 1 << 40)
    vcpu.wrmsr(0x1B, 0xFEE0_0100)
    with pytest.raises(KeyError):
        vcpu.read_apic(0x80)


def test_msrs(run: Run) -> None:
    """An interface's MSRs are read and written by RDMSR and WRMSR."""

    class Msr(pv.Interface):
        """Adds one."""

        signature = b"MSR"
        value = 0

        @pv.msr_write(0x4000_0200)
        def write(self, vcpu: pv.Vcpu, value: int) -> None:
            self.value = value

        @pv.msr_read(0x4000_0200)
        def read(self, vcpu: pv.Vcpu) -> int:
            return self.value + 1

    interface = Msr()
    code = mov_ecx(0x4000_0200) + mov_eax(6) + b"\xba\x01\x00\x00\x00" + WRMSR + RDMSR + OUT_EAX_F4
    _, result = run(code, interfaces=[interface])
    assert interface.value == 1 << 32 | 6
    assert result.debug_exit == 7


def test_cpuid(run: Run) -> None:
    """The guest finds the signature."""
    _, result = run(mov_eax(0x4000_0000) + CPUID + b"\x89\xd8" + OUT_EAX_F4, interfaces=[Adder()])
    assert result.debug_exit == int.from_bytes(b"ADDE", "little")


# -- looking inside


def test_breakpoint(run: Run) -> None:
    """By symbol and by address, with and without a function; the run goes on behind it."""
    machine, _ = run(HALT)
    machine.boot(kernel(b"\x90" * 4 + debug_exit(1)))
    seen: list[int] = []
    counting = machine.breakpoint("start", lambda vcpu: seen.append(vcpu.rip))
    stopping = machine.breakpoint(ENTRY + 2)
    result = machine.run(max_instructions=100)
    assert (result.reason, result.vcpu) == ("breakpoint", 0)
    assert machine.vcpus[0].rip == ENTRY + 2
    assert seen == [ENTRY]
    assert (counting.hits, stopping.hits) == (1, 1)
    stopping.remove()
    stopping.remove()
    assert machine.run(max_instructions=100).debug_exit == 1


def test_unknown_symbol(run: Run) -> None:
    """Says which, and why."""
    machine, _ = run(HALT)
    with pytest.raises(pv.BreakpointError, match=r"^no symbol 'nobody': the kernel has no such symbol$"):
        machine.breakpoint("nobody")
    with pytest.raises(pv.BreakpointError, match=r"^breakpoint address -0x1 is not in 0 to 2\*\*64-1$"):
        machine.breakpoint(-1)


def test_step(paravirt_machine: MakeMachine) -> None:
    """One instruction at a time, hypercalls included."""
    machine = paravirt_machine(memory="4M", interfaces=[Adder()])
    machine.boot(kernel(mov_eax(1) + mov_ebx(2) + mov_ecx(3) + VMCALL + debug_exit(0)))
    vcpu = machine.vcpus[0]
    assert machine.step().reason == "step"
    assert vcpu.rip == ENTRY + 5
    machine.step(count=3)
    assert (vcpu.rip, vcpu.rax) == (ENTRY + 18, 5)
    assert machine.step(count=10).debug_exit == 0


def test_registers_and_memory(run: Run) -> None:
    """Read and written, and refused where they cannot hold a value."""
    machine, _ = run(mov_eax(0x1234) + HALT)
    vcpu = machine.vcpus[0]
    assert vcpu.rax == vcpu.registers["rax"] == 0x1234
    vcpu.rbx = 1 << 63
    assert vcpu.rbx == 1 << 63
    with pytest.raises(pv.ConfigurationError, match=r"^rax cannot hold -0x1; give 0 to 2\*\*64-1$"):
        vcpu.rax = -1
    assert vcpu.read(ENTRY, 1) == b"\xb8"
    assert vcpu.translate(ENTRY) == ENTRY
    with pytest.raises(pv.GuestMemoryError):
        vcpu.read(0x4000_0000, 1)
    assert (vcpu.cpl, vcpu.is_64bit, vcpu.is_halted) == (0, False, True)
    assert repr(vcpu) == f"<Vcpu 0 rip={ENTRY + 7:#x} halted>"


def test_ports(run: Run) -> None:
    """A device in Python hides nothing but what it claims."""
    machine, _ = run(HALT)
    machine.boot(kernel(b"\xe5\x10" + OUT_EAX_F4))  # in eax, 0x10
    machine.serve_ports(0x10, read=lambda vcpu, port, size: port + size)
    assert machine.run(max_instructions=100).debug_exit == 0x14


def test_hooks(run: Run) -> None:
    """Watch what the board does by itself, and change nothing."""
    machine, _ = run(HALT)
    machine.boot(kernel(put(b"x") + mov_eax(0) + CPUID + b"\x89\xd8" + OUT_EAX_F4))
    ports: list[int] = []
    leaves: list[int] = []
    machine.hook("port", lambda vcpu, exit: ports.append(exit.address))
    machine.hook("cpuid", lambda vcpu, exit: leaves.append(exit.address))
    assert machine.run(max_instructions=100).debug_exit == int.from_bytes(b"Genu", "little")
    assert ports == [0x3F8, 0xF4]
    assert leaves == [0]
    assert machine.console.text.endswith("x")


def test_watched_exceptions_stay_what_they_are(run: Run) -> None:
    """CR2 of a page fault is as if nobody had looked; there is no IDT, so the triple fault keeps it."""
    page_directory = 2 * MIB
    set_paging = (
        b"\xc7\x05"
        + page_directory.to_bytes(4, "little")
        + b"\x83\x00\x00\x00"  # mov dword [2 MiB], 0x83
        + mov_eax(0x10)
        + b"\x0f\x22\xe0"  # mov cr4, eax: PSE
        + mov_eax(page_directory)
        + b"\x0f\x22\xd8"  # mov cr3, eax
        + mov_eax(0x8000_0011)
        + b"\x0f\x22\xc0"  # mov cr0, eax
    )
    code = set_paging + b"\xa1\x00\x00\x00\x40"  # mov eax, [0x40000000]
    machine, _ = run(HALT)
    machine.boot(kernel(code))
    seen: list[tuple[int, int]] = []
    machine.hook("exception", lambda vcpu, exit: seen.append((exit.address, exit.value)))
    assert machine.run(max_instructions=1000).reason == "triple-fault"
    assert seen == [(14, 0)]
    assert machine.vcpus[0].cr2 == 0x4000_0000


def test_trace(run: Run) -> None:
    """A line per event, with virtual time and vCPU."""
    stream = io.StringIO()
    tracer = pv.Tracer(stream, "hypercall,fixup")
    run(mov_eax(1) + mov_ebx(2) + mov_ecx(3) + VMMCALL + debug_exit(0), interfaces=[Adder()], trace=tracer)
    fixup, call = stream.getvalue().splitlines()
    assert fixup.endswith(
        f"cpu0 fixup     patch at {ENTRY + 15:#x} <start+0xf> gpa {ENTRY + 17:#x}: 0f 01 d9 -> 0f 01 c1"
    )
    assert call.endswith(f"rsi 0x0 rip {ENTRY + 15:#x} cpl 0 32-bit -> 0x5")


def test_same_seed_same_run() -> None:
    """State and time are equal after equal runs."""

    def state() -> tuple[int, int]:
        with pv.Machine(memory="4M", cpus=2, seed=7) as machine:
            machine.boot(kernel(put(b"hello") + SPIN))
            machine.run(max_instructions=50_000)
            return machine.state_hash(), machine.now_ns

    assert state() == state()


def test_machines_are_freed() -> None:
    """Nothing keeps a machine that nobody has any more."""
    import weakref

    machine = pv.Machine(memory="4M")
    machine.boot(kernel(HALT))
    machine.run()
    machine.close()
    gone = weakref.ref(machine)
    del machine
    gc.collect()
    assert gone() is None


def test_repr(paravirt_machine: MakeMachine) -> None:
    """What a notebook shows."""
    machine = paravirt_machine(memory="64M", cpus=2)
    assert repr(machine) == "<Machine soft on intel: 2 vCPUs, 64 MiB, kvm, policy patch>"
    assert repr(machine.memory) == "<GuestMemory 64 MiB>"
