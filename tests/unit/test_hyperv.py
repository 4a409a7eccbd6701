"""The Hyper-V interface: leaves, MSRs, the hypercall convention with every status, messages, events, timers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paravirt as pv
from paravirt.cpuid import place_interfaces
from paravirt.host import find_host
from paravirt.hypercalls.dispatch import Call
from paravirt.interfaces import make_interface
from paravirt.interfaces.hyperv import HyperV
from paravirt.interfaces.hyperv.reference_time import tsc_scale
from paravirt.timers import Timers

from .fakes import CS_32BIT, FakeExit, FakeMachine, FakeVm

PAGE, MESSAGES, EVENTS, INPUT, OUTPUT = 0x3000, 0x4000, 0x5000, 0x6000, 0x7000
GUEST_OS_ID, HYPERCALL, VP_INDEX = 0x4000_0000, 0x4000_0001, 0x4000_0002
REFERENCE_TSC, TIME_REF_COUNT = 0x4000_0021, 0x4000_0020
SCONTROL, SIEFP, SIMP, EOM, SINT0 = 0x4000_0080, 0x4000_0082, 0x4000_0083, 0x4000_0084, 0x4000_0090
STIMER0_CONFIG, STIMER0_COUNT = 0x4000_00B0, 0x4000_00B1
FAST = 1 << 16
US, MS = 1000, 10**6


class HyperVVm(FakeVm):
    """An engine that keeps what this interface tells it."""

    def __init__(self, cpus: int) -> None:
        super().__init__(cpus)
        self.flushed: list[int] = []
        self.auto_eoi: set[tuple[int, int]] = set()
        self.apic: dict[tuple[int, int], int] = {}
        self.dozing: list[int] = []
        self.alarm: int | None = None
        self.images = [bytes(832)] * cpus

    def get_xsave_image(self, vcpu: int) -> bytes:
        return self.images[vcpu]

    def set_xsave_image(self, vcpu: int, image: bytes) -> None:
        self.images[vcpu] = image

    def flush_tlb(self, vcpu: int) -> None:
        self.flushed.append(vcpu)

    def set_auto_eoi(self, vcpu: int, vector: int, enabled: bool) -> None:
        (self.auto_eoi.add if enabled else self.auto_eoi.discard)((vcpu, vector))

    def read_apic(self, vcpu: int, offset: int) -> int:
        return self.apic[vcpu, offset]

    def write_apic(self, vcpu: int, offset: int, value: int) -> None:
        self.apic[vcpu, offset] = value

    def doze(self, vcpu: int) -> None:
        self.dozing.append(vcpu)

    def run_ns(self, vcpu: int) -> int:
        return 12_345

    def set_alarm(self, deadline_ns: int | None) -> None:
        self.alarm = deadline_ns


class HyperVMachine(FakeMachine):
    """A machine with timers and ends of interrupts."""

    def __init__(self, vm: HyperVVm) -> None:
        super().__init__(vm)
        self.host = find_host("intel")
        self.policy = pv.Policy.PATCH
        self.cpu_vendor = "GenuineIntel"
        self.timers = Timers(cast(Any, vm))
        self.watched: dict[tuple[int, int], Callable[[], object]] = {}
        self.ended: list[tuple[Any, ...]] = []
        self.shown: set[str] = set()

    def call_at(self, deadline_ns: int, function: Callable[[], object]) -> pv.Timer:
        return self.timers.call_at(deadline_ns, function)

    def _watch_end_of_interrupt(self, vcpu: int, vector: int, function: Callable[[], object] | None) -> None:
        self.watched.pop((vcpu, vector), None)
        if function is not None:
            self.watched[vcpu, vector] = function

    def show_cpu_feature(self, name: str, shown: bool) -> bool:
        before = name in self.shown
        (self.shown.add if shown else self.shown.discard)(name)
        return before

    def shut_down(self, *arguments: Any) -> None:
        self.ended.append(arguments)


class Setting:
    """The interface on a machine that is not there."""

    def __init__(self, cpus: int = 2, **options: Any) -> None:
        self.vm = HyperVVm(cpus)
        self.machine = HyperVMachine(self.vm)
        self.memory = self.machine.memory
        self.hv = HyperV(**options)
        self.hv.attach(cast(pv.Machine, self.machine))
        self.hv.reset()
        self.vcpu = self.machine.vcpus[0]

    def wrmsr(self, index: int, value: int, vcpu: int = 0) -> None:
        self._msr(index, vcpu, True, value)

    def rdmsr(self, index: int, vcpu: int = 0) -> int:
        return cast(int, self._msr(index, vcpu, False))

    def _msr(self, index: int, vcpu: int, write: bool, *value: int) -> object:
        for entry in self.hv.msrs():
            if entry.first <= index <= entry.last and entry.write == write:
                where = (index,) if entry.with_index else ()
                return entry.handler(self.machine.vcpus[vcpu], *where, *value)
        raise pv.GuestFault

    def call(self, control: int, first: int = 0, second: int = 0, cpl: int = 0) -> int:
        """One call from 64-bit code: its whole result."""
        registers = (0, 0, control, first, 0, 0, 0, second, 0, 0, 0)
        call = Call(self.vcpu, registers, True, cpl)
        return cast(int, self.hv.answer_call(self.vcpu, call))

    def call_memory(self, control: int, block: bytes, output: int = 0) -> int:
        self.memory.write(INPUT, block)
        return self.call(control, INPUT, output)

    def pass_time(self, ns: int) -> None:
        """Let time pass, with every alarm on the way at its instant."""
        end = self.vm.time_ns + ns
        while self.vm.alarm is not None and self.vm.alarm <= end:
            self.vm.time_ns = max(self.vm.alarm, self.vm.time_ns)
            self.machine.timers.on_alarm(cast(Any, FakeExit()))
        self.vm.time_ns = end

    def enable_synic(self, vcpu: int = 0, vector: int = 0x50, sint: int = 2) -> None:
        self.wrmsr(SIMP, MESSAGES | 1, vcpu)
        self.wrmsr(SIEFP, EVENTS | 1, vcpu)
        self.wrmsr(SINT0 + sint, vector, vcpu)

    def slot(self, sint: int = 2) -> tuple[int, int, int, bytes]:
        """Type, payload size, flags, payload of a message."""
        header = self.memory.read(MESSAGES + 256 * sint, 16)
        kind, size, flags = struct.unpack_from("<IBB", header)
        return kind, size, flags, self.memory.read(MESSAGES + 256 * sint + 16, size)

    def empty_slot(self, sint: int = 2) -> None:
        self.memory.write_int(MESSAGES + 256 * sint, 4, 0)


def raises_fault(function: Callable[[], object], vector: int = 13) -> None:
    with pytest.raises(pv.GuestFault) as raised:
        function()
    assert raised.value.vector == vector


# -- discovery


def test_leaves() -> None:
    """At 0x40000000, whatever else comes first; the bits that QEMU's hv_passthrough shows, and ours."""
    setting = Setting()

    class First(pv.Interface):
        signature = b"FIRST"

    leaves = place_interfaces([First(), setting.hv])
    assert leaves[0x4000_0000] == (0x4000_0005, 0x7263_694D, 0x666F_736F, 0x7648_2074)
    assert leaves[0x4000_0001] == (0x3123_7648, 0, 0, 0)
    assert leaves[0x4000_0003] == (0x2EFF, 0x10_0030, 0, 0x000C_C530)
    assert leaves[0x4000_0004] == (0xC2C, 0xFFF, 0, 0)
    assert leaves[0x4000_0005][:2] == (255, 255)


def test_options() -> None:
    """Names as QEMU's; leaving one out leaves out what needs it."""
    hv = make_interface("hyperv", "without=time+spinlocks")
    assert isinstance(hv, HyperV)
    leaves = place_interfaces([hv])
    assert leaves[0x4000_0003] == (0x2EFF & ~0b10_0000_1010, 0x10_0030, 0, 0x0004_C530)  # No counter, page, timers.
    assert leaves[0x4000_0004] == (0xC2C, 0xFFFF_FFFF, 0, 0)
    with pytest.raises(
        pv.ConfigurationError, match=r"^unknown hyperv feature 'evmcs'; known: default, relaxed, vapic, "
    ):
        make_interface("hyperv", "features=evmcs")
    with pytest.raises(pv.ConfigurationError, match="has no option"):
        make_interface("hyperv", "wrong")


MSRS = {
    0x4000_0002: "vpindex",
    0x4000_0003: "reset",
    0x4000_0010: "runtime",
    0x4000_0020: "time",
    0x4000_0021: "time",
    0x4000_0022: "frequencies",
    0x4000_0023: "frequencies",
    0x4000_0070: "vapic",
    0x4000_0073: "vapic",
    0x4000_0080: "synic",
    0x4000_0084: "synic",
    0x4000_0090: "synic",
    0x4000_009F: "synic",
    0x4000_00B0: "stimer",
    0x4000_00B7: "stimer",
    0x4000_00F0: "idle",
    0x4000_0100: "crash",
    0x4000_0105: "crash",
    0x4000_0106: "reenlightenment",
    0x4000_0108: "reenlightenment",
}


@pytest.mark.parametrize("index", MSRS)
def test_msrs_exist_with_their_feature(index: int) -> None:
    """And fault without."""
    Setting().rdmsr(index)
    without = Setting(without=MSRS[index])
    raises_fault(lambda: without.rdmsr(index))
    raises_fault(lambda: without.wrmsr(index, 0))


@pytest.mark.parametrize("index", [VP_INDEX, 0x4000_0010, TIME_REF_COUNT, 0x4000_0022, 0x4000_0023, 0x4000_0081])
def test_read_only_msrs(index: int) -> None:
    """WRMSR gives #GP."""
    setting = Setting()
    setting.rdmsr(index)
    raises_fault(lambda: setting.wrmsr(index, 1))


BAD_VALUES = [
    (HYPERCALL, 1 << 40 | 1),
    (REFERENCE_TSC, 1 << 40 | 1),
    (0x4000_0073, 1 << 40 | 1),
    (SIEFP, 1 << 40 | 1),
    (SIMP, 1 << 40 | 1),
    (SINT0 + 3, 0x0F),
    (STIMER0_CONFIG, 1 << 13),
    (STIMER0_CONFIG, 1 << 63),
    (0x4000_0003, 2),
    (0x4000_0106, 1 << 8),
    (0x4000_0107, 2),
    (0x4000_0108, 2),
]


@pytest.mark.parametrize(("index", "value"), BAD_VALUES)
def test_bad_values(index: int, value: int) -> None:
    """#GP, and the old value stays: pages where there is no RAM, vectors that are none, reserved bits."""
    setting = Setting()
    setting.wrmsr(GUEST_OS_ID, 1)
    before = setting.rdmsr(index)
    raises_fault(lambda: setting.wrmsr(index, value))
    assert setting.rdmsr(index) == before


def test_processors() -> None:
    """Each has its index, its run time in units of 100 ns, its sleep and its local APIC."""
    setting = Setting()
    assert [setting.rdmsr(VP_INDEX, vcpu) for vcpu in (0, 1)] == [0, 1]
    assert setting.rdmsr(0x4000_0010) == 123
    assert setting.rdmsr(0x4000_00F0, 1) == 0
    assert setting.vm.dozing == [1]
    setting.wrmsr(0x4000_0072, 0x1_0035)
    setting.wrmsr(0x4000_0071, 0x0100_0000_0000_0050)
    setting.wrmsr(0x4000_0070, 7)
    assert setting.vm.apic == {(0, 0x80): 0x35, (0, 0x300): 0x0100_0000_0000_0050, (0, 0xB0): 0}
    assert [setting.rdmsr(index) for index in (0x4000_0070, 0x4000_0071, 0x4000_0072)] == [0, 1 << 56 | 0x50, 0x35]
    raises_fault(lambda: setting.rdmsr(0x4000_0072, 1))  # Its APIC is off.


def test_vp_assist_page() -> None:
    """The page begins as zeros, and its first word is the PV EOI word."""
    setting = Setting()
    setting.memory.write(PAGE, b"\xff" * 4096)
    setting.wrmsr(0x4000_0073, PAGE | 1)
    assert setting.memory.read(PAGE, 4096) == bytes(4096)
    assert setting.vm.pv_eoi == {0: PAGE}
    setting.memory.write(PAGE, b"\x01")
    setting.wrmsr(0x4000_0073, PAGE | 1)
    assert setting.memory.read(PAGE, 1) == b"\x01"
    setting.wrmsr(0x4000_0073, 0)
    assert setting.vm.pv_eoi == {0: None}


# -- the hypercall page


def test_hypercall_page() -> None:
    """It comes when the guest has said who it is, hides what was there, and gives it back."""
    setting = Setting()
    setting.memory.write(PAGE, b"mine")
    setting.wrmsr(HYPERCALL, PAGE | 1)
    assert setting.rdmsr(HYPERCALL) == PAGE
    assert setting.memory.read(PAGE, 4) == b"mine"
    setting.wrmsr(GUEST_OS_ID, 1)
    setting.wrmsr(HYPERCALL, PAGE | 1)
    assert setting.memory.read(PAGE, 5) == b"\x0f\x01\xc1\xc3\xcc"
    setting.machine.host = find_host("amd")
    setting.hv.host_changed()
    assert setting.memory.read(PAGE, 4) == b"\x0f\x01\xd9\xc3"
    setting.wrmsr(GUEST_OS_ID, 0)
    assert setting.rdmsr(HYPERCALL) == PAGE
    assert setting.memory.read(PAGE, 4) == b"mine"
    setting.hv.host_changed()
    assert setting.memory.read(PAGE, 4) == b"mine"


def test_hypercall_page_moves_and_locks() -> None:
    """Locked, it stays until reset."""
    setting = Setting()
    setting.wrmsr(GUEST_OS_ID, 1)
    setting.wrmsr(HYPERCALL, PAGE | 1)
    setting.wrmsr(HYPERCALL, INPUT | 3)
    assert setting.memory.read(PAGE, 4) == bytes(4)
    raises_fault(lambda: setting.wrmsr(HYPERCALL, PAGE | 1))
    assert setting.memory.read(INPUT, 1) == b"\x0f"
    setting.hv.reset()
    assert (setting.rdmsr(HYPERCALL), setting.memory.read(INPUT, 1)) == (0, b"\0")
    without = Setting(without="hypercall-lock")
    without.wrmsr(GUEST_OS_ID, 1)
    without.wrmsr(HYPERCALL, PAGE | 3)
    assert without.rdmsr(HYPERCALL) == PAGE | 1


def test_strict_page() -> None:
    """Under policy `strict` the page has the instruction of the guest's CPU."""
    setting = Setting()
    setting.machine.policy = pv.Policy.STRICT
    setting.machine.cpu_vendor = "AuthenticAMD"
    setting.wrmsr(GUEST_OS_ID, 1)
    setting.wrmsr(HYPERCALL, PAGE | 1)
    assert setting.memory.read(PAGE, 4) == b"\x0f\x01\xd9\xc3"


def test_whose_call() -> None:
    """From the page or marked: certainly. Others when the guest has said who it is, and has no page."""
    setting = Setting()

    def claims(rip: int, rax: int = 0) -> bool:
        setting.vm.registers[0]["rip"] = rip
        return setting.hv.claims_call(setting.vcpu, Call(setting.vcpu, (rax, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), True, 0))

    assert not claims(PAGE, 1 << 31)
    assert not setting.hv.answers_unclaimed(setting.vcpu)
    setting.wrmsr(GUEST_OS_ID, 1)
    setting.wrmsr(HYPERCALL, PAGE | 1)
    assert [claims(PAGE), claims(PAGE + 0x1000), claims(0, 1 << 31), claims(0)] == [True, False, True, False]
    assert not setting.hv.answers_unclaimed(setting.vcpu)
    setting.wrmsr(HYPERCALL, 0)
    assert setting.hv.answers_unclaimed(setting.vcpu)


# -- the convention

SPIN_WAIT, FLUSH, FLUSH_LIST, FLUSH_EX, FLUSH_LIST_EX = 0x08, 0x02, 0x03, 0x13, 0x14
IPI, IPI_EX, POST, SIGNAL, CAPABILITIES = 0x0B, 0x15, 0x5C, 0x5D, 0x8001


def reps(count: int, start: int = 0) -> int:
    return count << 32 | start << 48


def words(count: int) -> int:
    return count << 17


BAD_INPUT = [
    (0x0001, 2),
    (0xFFFF, 2),
    (SPIN_WAIT | FAST | 1 << 27, 3),
    (SPIN_WAIT | FAST | 1 << 44, 3),
    (SPIN_WAIT | FAST | 1 << 60, 3),
    (SPIN_WAIT | FAST | words(1), 3),
    (SPIN_WAIT | FAST | reps(1), 3),
    (SPIN_WAIT | FAST | reps(0, 1), 3),
    (FLUSH_LIST | reps(0), 3),
    (FLUSH_LIST | reps(2, 2), 3),
    (FLUSH_EX | FAST | words(13), 3),
    (POST | FAST, 2),
    (SPIN_WAIT | FAST | 1 << 31, 0),
    (SPIN_WAIT | FAST, 0),
]


@pytest.mark.parametrize(("control", "status"), BAD_INPUT)
def test_input_value(control: int, status: int) -> None:
    """Codes that do not exist, reserved bits, repetitions and headers that the call does not have."""
    assert Setting().call(control) == status


BAD_BLOCKS = [
    (IPI, INPUT + 4, 4),
    (IPI, INPUT + 0xFF8, 4),
    (IPI, 1 << 40, 4),
    (SIGNAL, INPUT + 1, 4),
    (POST, INPUT + 0xF08, 4),
    (FLUSH_LIST | reps(510), INPUT, 4),
    (FLUSH_LIST | reps(509), INPUT, reps(509)),
]


@pytest.mark.parametrize(("control", "gpa", "result"), BAD_BLOCKS)
def test_parameter_block(control: int, gpa: int, result: int) -> None:
    """It is aligned to 8 bytes, within a page, and RAM."""
    assert Setting().call(control, gpa) == result


@pytest.mark.parametrize(("output", "status"), [(OUTPUT, 0), (OUTPUT + 4, 4), (1 << 40, 4)])
def test_output_block(output: int, status: int) -> None:
    """So is that of the output."""
    setting = Setting()
    setting.memory.write(OUTPUT, b"\xff" * 16)
    assert setting.call(CAPABILITIES, 0, output) == status
    assert setting.memory.read(OUTPUT, 16) == (b"\xff" * 16 if status else bytes(8) + b"\xff" * 8)


def test_output_that_no_call_has_is_ignored() -> None:
    """A guest may leave anything in R8."""
    setting = Setting()
    assert setting.call_memory(IPI, struct.pack("<IIQ", 0x50, 0, 1), output=3) == 0


def test_fast_output() -> None:
    """It comes in the registers that the input left over; only where it is announced."""
    setting = Setting()
    setting.vm.registers[0].update(rdx=5, r8=6)
    assert setting.call(CAPABILITIES | FAST) == 0
    assert (setting.vcpu.rdx, setting.vcpu.r8) == (0, 6)
    assert Setting(without="xmm-output").call(CAPABILITIES | FAST) == 3


@pytest.mark.parametrize(
    ("feature", "control"),
    [("tlbflush", FLUSH), ("ipi", IPI), ("ipi", IPI_EX), ("synic", SIGNAL), ("ext-hypercalls", CAPABILITIES)],
)
def test_privileges(feature: str, control: int) -> None:
    """What is not announced is denied."""
    assert Setting(without=feature).call(control, INPUT, OUTPUT) == 6


def test_mode_and_level() -> None:
    """#UD from user code and in real mode."""
    setting = Setting()
    raises_fault(lambda: setting.call(SPIN_WAIT | FAST, cpl=3), vector=6)
    setting.vm.registers[0]["cr0"] = 0
    raises_fault(lambda: setting.call(SPIN_WAIT | FAST), vector=6)


def test_32bit_registers() -> None:
    """EDX:EAX, EBX:ECX and EDI:ESI; the result is EDX:EAX too."""
    setting = Setting()
    setting.vm.registers[0]["cs_attributes"] = CS_32BIT
    junk = 0xABCD << 32
    registers = (
        junk | FLUSH_LIST,
        junk | 0,
        junk | INPUT,
        junk | 3,
        *(junk,) * 7,
    )
    answer = setting.hv.answer_call(setting.vcpu, Call(setting.vcpu, registers, False, 0))
    assert (answer, setting.vcpu.rdx) == (0, 3)


# -- flushes and interrupts


def test_flush() -> None:
    """By mask, for all, for none, which means all; bits of processors that do not exist mean nothing."""
    setting = Setting(cpus=3)

    def flush(flags: int, mask: int, control: int = FLUSH, tail: bytes = b"") -> tuple[int, list[int]]:
        setting.vm.flushed.clear()
        return setting.call_memory(control, struct.pack("<QQQ", 0x1000, flags, mask) + tail), setting.vm.flushed[:]

    assert flush(0, 0b101) == (0, [0, 2])
    assert flush(1, 0b010) == (0, [0, 1, 2])
    assert flush(0, 0) == (0, [0, 1, 2])
    assert flush(0, 1 << 63 | 2) == (0, [1])
    assert flush(1 << 4, 1) == (5, [])
    assert flush(0, 2, FLUSH_LIST | reps(2, 1), bytes(16)) == (reps(2), [1])


def test_flush_ex() -> None:
    """By sparse set: as many words as banks, of a format that exists."""
    setting = Setting(cpus=130)

    def flush(set_format: int, banks: int, *masks: int, control: int = FLUSH_EX) -> tuple[int, list[int]]:
        setting.vm.flushed.clear()
        block = struct.pack(f"<QQQQ{len(masks)}Q", 0, 0, set_format, banks, *masks)
        return setting.call_memory(control | words(len(masks)), block), setting.vm.flushed[:]

    assert flush(0, 0b101, 1 << 5, 0b10) == (0, [5, 129])
    assert flush(0, 0) == (0, [])
    assert flush(1, 0) == (0, list(range(130)))
    assert flush(0, 0b101, 1) == (3, [])
    assert flush(2, 0) == (5, [])
    assert flush(0, 0b10, 1, 1) == (3, [])
    setting.memory.write(INPUT, struct.pack("<QQQQ", 0, 0, 1, 0) + bytes(8))
    assert setting.call(FLUSH_LIST_EX | reps(1), INPUT) == reps(1)


def test_fast_flush() -> None:
    """Parameters beyond two registers are in XMM0 to XMM5, if that is announced."""
    setting = Setting(cpus=2, without="xmm-input")
    raises_fault(lambda: setting.call(FLUSH | FAST), vector=6)


def test_cluster_ipi() -> None:
    """In memory and in registers, by mask and by set."""
    setting = Setting(cpus=70)

    def sent(result: int) -> tuple[int, list[int], set[int]]:
        interrupts, setting.vm.interrupts = setting.vm.interrupts, []
        return result, [apic for apic, _, _ in interrupts], {vector for _, vector, _ in interrupts}

    assert sent(setting.call_memory(IPI, struct.pack("<IIQ", 0x50, 0, 0b110))) == (0, [1, 2], {0x50})
    assert sent(setting.call(IPI | FAST, 0x51, 1 << 40)) == (0, [40], {0x51})
    block = struct.pack("<IIQQQ", 0x52, 0, 0, 0b10, 1 << 3)
    assert sent(setting.call_memory(IPI_EX | words(1), block)) == (0, [67], {0x52})
    for bad in (0x0F, 0x100, 1 << 32 | 0x50):
        assert sent(setting.call(IPI | FAST, bad, 1)) == (3, [], set())


# -- registers by name

GET, SET, VP_SELF = 0x50, 0x51, 0xFFFF_FFFE
OWN = (1 << 64) - 1


@pytest.fixture
def naming() -> Setting:
    return Setting(features="default+vp-registers")


def test_get_registers(naming: Setting) -> None:
    """One's own and another's, in a list that goes on at an index."""
    block = struct.pack("<QII3I", OWN, 1, 0, 0x9_0003, 0x100, 0xA_0005)
    assert naming.call_memory(GET | reps(3), block, OUTPUT) == reps(3)
    first, version, sint = (naming.memory.read(OUTPUT + 16 * number, 16) for number in range(3))
    assert int.from_bytes(first, "little") == 1
    assert version == struct.pack("<IIII", 14393, 10 << 16, 0, 0)
    assert int.from_bytes(sint, "little") == 0x1_0000
    naming.memory.clear(OUTPUT, 48)
    assert naming.call(GET | reps(3, start=2), INPUT, OUTPUT) == reps(3)
    assert naming.memory.read(OUTPUT, 48) == bytes(32) + sint


def test_get_registers_fast(naming: Setting) -> None:
    """The list in XMM0, the values behind it."""
    naming.vcpu.xmm[0] = 0x9_0003 | 0x9_0004 << 32
    naming.vm.time_ns = 10**6
    assert naming.call(GET | FAST | reps(2), OWN, VP_SELF) == reps(2)
    assert (naming.vcpu.xmm[1], naming.vcpu.xmm[2]) == (0, naming.rdmsr(TIME_REF_COUNT))
    assert naming.call(GET | FAST | reps(5), OWN, VP_SELF) == 3  # No room for five values.


def assignments(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<I12xQQ", name, value & OWN, value >> 64) for name, value in pairs)


def test_set_registers(naming: Setting) -> None:
    """As WRMSR on that processor; up to the first that cannot be."""
    header = struct.pack("<QII", OWN, 1, 0)
    block = header + assignments((0xA_0002, 0x50), (0xA_0003, 0x0F), (0xA_0004, 0x51))
    assert naming.call_memory(SET | reps(3), block) == 0x50 | reps(1)
    assert [naming.rdmsr(SINT0 + sint, 1) for sint in (2, 3, 4)] == [0x50, 0x1_0000, 0x1_0000]
    for name, value, status in ((0xA_0002, 1 << 64, 0x50), (0x9_0003, 1, 6), (0x100, 1, 5), (0x2_0000, 1, 5)):
        assert naming.call_memory(SET | reps(1), header + assignments((name, value))) == status


@pytest.mark.parametrize(
    ("header", "status"), [((1, VP_SELF, 0), 0x0D), ((OWN, 2, 0), 0x0E), ((OWN, VP_SELF, 1), 5), ((OWN, 0, 0), 0)]
)
def test_whose_registers(naming: Setting, header: tuple[int, ...], status: int) -> None:
    """Of this partition, of a processor that exists, at the only trust level."""
    block = struct.pack("<QIII", *header, 0x9_0003)
    assert naming.call_memory(GET | reps(1), block, OUTPUT) & 0xFFFF == status


def test_registers_that_are_not_offered() -> None:
    """Neither the calls nor registers of what is left out."""
    block = struct.pack("<QIII", OWN, VP_SELF, 0, 0xB_0000)
    assert Setting().call_memory(GET | reps(1), block, OUTPUT) == 6
    without = Setting(features="vpindex+vp-registers")
    assert without.call_memory(GET | reps(1), block, OUTPUT) == 6


# -- time


@pytest.mark.parametrize(
    ("tsc_hz", "scale"),
    [(10**9, 0x028F_5C28_F5C2_8F5C), (2_500_000_000, 0x0106_24DD_2F1A_9FBE), (10**7, None), (10**6, None)],
)
def test_tsc_scale(tsc_hz: int, scale: int | None) -> None:
    """A fraction of 64 bits."""
    assert tsc_scale(tsc_hz) == scale


def page_time(setting: Setting, vcpu: int = 0) -> int | None:
    """What a guest makes of the page."""
    sequence, _, scale, offset = struct.unpack("<IIQq", setting.memory.read(PAGE, 24))
    return None if sequence in (0, 0xFFFF_FFFF) else (setting.machine.vcpus[vcpu].tsc * scale >> 64) + offset


def test_reference_time() -> None:
    """The page and the counter agree at every instant, and timers are never early."""
    setting = Setting()
    setting.wrmsr(REFERENCE_TSC, PAGE | 1)
    for ns in (0, 99, 100, 12_345, 10**9 + 7, 10**15 + 1):
        setting.vm.time_ns = ns
        now = setting.rdmsr(TIME_REF_COUNT)
        assert page_time(setting) == now
        assert abs(now - ns // 100) <= 1
        due = setting.hv.time.ns_of(now + 1)
        setting.vm.time_ns = due
        assert setting.rdmsr(TIME_REF_COUNT) == now + 1
        setting.vm.time_ns = due - 1
        assert setting.rdmsr(TIME_REF_COUNT) == now


def test_reference_time_with_another_tsc() -> None:
    """When TSCs are set, time goes on; the page is invalid while they differ, and has a new sequence afterwards."""
    setting = Setting()
    setting.wrmsr(REFERENCE_TSC, PAGE | 1)
    setting.vm.time_ns = 10**6
    first = setting.memory.read_int(PAGE, 4)
    setting.vm.offsets[0] = 5 * 10**9
    setting.hv.time.tsc_written()
    assert page_time(setting) is None
    assert setting.rdmsr(TIME_REF_COUNT) in (9_999, 10_000)
    setting.vm.offsets[1] = 5 * 10**9
    setting.hv.time.tsc_written()
    assert page_time(setting) in (9_999, 10_000)
    assert setting.memory.read_int(PAGE, 4) == first + 1
    assert setting.rdmsr(TIME_REF_COUNT) == page_time(setting)


def test_slow_tsc() -> None:
    """A TSC that the page cannot scale leaves it invalid; the counter works."""
    setting = Setting()
    setting.machine.tsc_khz = 1_000
    setting.wrmsr(REFERENCE_TSC, PAGE | 1)
    setting.vm.time_ns = 10**9
    assert page_time(setting) is None
    assert setting.rdmsr(TIME_REF_COUNT) == 10**7
    assert setting.hv.time.ns_of(10**7) == 10**9


def test_frequencies() -> None:
    """In Hz."""
    setting = Setting()
    assert (setting.rdmsr(0x4000_0022), setting.rdmsr(0x4000_0023)) == (10**9, 10**9)


@pytest.mark.parametrize("is_shown_anyway", [False, True])
def test_invariant_tsc(is_shown_anyway: bool) -> None:
    """CPUID says that the TSC is invariant when the guest has asked for that, until reset."""
    raises_fault(lambda: Setting().rdmsr(0x4000_0118))
    setting = Setting(features="default+tsc-invariant")
    setting.rdmsr(VP_INDEX)
    if is_shown_anyway:
        setting.machine.shown.add("invtsc")
    raises_fault(lambda: setting.wrmsr(0x4000_0118, 2))
    setting.wrmsr(0x4000_0118, 1)
    setting.wrmsr(0x4000_0118, 1)
    raises_fault(lambda: setting.wrmsr(0x4000_0118, 0))
    assert (setting.rdmsr(0x4000_0118), setting.machine.shown) == (1, {"invtsc"})
    setting.hv.reset()
    assert (setting.rdmsr(0x4000_0118), "invtsc" in setting.machine.shown) == (0, is_shown_anyway)


# -- messages and events


def test_synic_at_reset() -> None:
    """On, without pages, every source masked."""
    setting = Setting()
    assert [setting.rdmsr(index) for index in (SCONTROL, 0x4000_0081, SIEFP, SIMP, EOM)] == [1, 1, 0, 0, 0]
    assert [setting.rdmsr(SINT0 + sint) for sint in range(16)] == [0x1_0000] * 16


def test_pages_begin_as_zeros() -> None:
    """When they come and when they move; not when the same value is written again."""
    setting = Setting()
    for index in (SIMP, SIEFP):
        for gpa in (PAGE, MESSAGES):
            setting.memory.write(gpa, b"\xff" * 4096)
            setting.wrmsr(index, gpa | 1)
            assert setting.memory.read(gpa, 4096) == bytes(4096)
        setting.memory.write(MESSAGES, b"\x01")
        setting.wrmsr(index, MESSAGES | 1)
        assert setting.memory.read(MESSAGES, 1) == b"\x01"


def test_automatic_ends() -> None:
    """By vector, while any source that is not masked asks for it."""
    setting = Setting()
    setting.wrmsr(SINT0 + 2, 0x2_0050)
    setting.wrmsr(SINT0 + 3, 0x2_0050)
    setting.wrmsr(SINT0 + 4, 0x3_0060)
    assert setting.vm.auto_eoi == {(0, 0x50)}
    setting.wrmsr(SINT0 + 2, 0x50)
    assert setting.vm.auto_eoi == {(0, 0x50)}
    setting.wrmsr(SINT0 + 3, 0x1_0050)
    assert setting.vm.auto_eoi == set()


def message(connection: int = 7, kind: int = 0x1234, size: int = 8, payload: int = 0x55, reserved: int = 0) -> bytes:
    return struct.pack("<IIIIQ", connection, reserved, kind, size, payload).ljust(256, b"\0")


@pytest.fixture
def posting() -> Setting:
    """Connection 7 goes to source 2 of processor 1, whose vector is 0x50."""
    setting = Setting()
    setting.enable_synic(vcpu=1)
    setting.hv.connections.connect_messages(7, setting.machine.vcpus[1], 2)
    setting.hv.connections.connect_events(9, setting.machine.vcpus[1], 2, flag=9)
    return setting


def test_post_message(posting: Setting) -> None:
    """The slot gets it, and one interrupt comes."""
    assert posting.call_memory(POST, message()) == 0
    assert posting.slot() == (0x1234, 8, 0, (0x55).to_bytes(8, "little"))
    assert posting.vm.interrupts == [(1, 0x50, 0)]


def test_busy_slot(posting: Setting) -> None:
    """The pending flag is set and nothing else; the message comes at EOM, when the slot is empty."""
    posting.call_memory(POST, message())
    assert posting.call_memory(POST, message(payload=0x66)) == 0
    assert posting.slot() == (0x1234, 8, 1, (0x55).to_bytes(8, "little"))
    posting.wrmsr(EOM, 0, vcpu=1)
    assert posting.slot()[3][0] == 0x55
    posting.empty_slot()
    posting.wrmsr(EOM, 0, vcpu=1)
    assert posting.slot() == (0x1234, 8, 0, (0x66).to_bytes(8, "little"))
    assert len(posting.vm.interrupts) == 2
    posting.empty_slot()
    posting.wrmsr(EOM, 0, vcpu=1)
    assert len(posting.vm.interrupts) == 2


def test_retry_at_the_end_of_the_interrupt(posting: Setting) -> None:
    """The end is watched while a message waits behind it, and not longer."""
    posting.call_memory(POST, message())
    assert not posting.machine.watched
    posting.call_memory(POST, message(payload=0x66))
    ((where, retry),) = posting.machine.watched.items()
    assert where == (1, 0x50)
    posting.empty_slot()
    retry()
    assert posting.slot()[3][0] == 0x66
    assert not posting.machine.watched


def test_sixteen_buffers(posting: Setting) -> None:
    """Then the sender is told; a delivered message frees one."""
    results = [posting.call_memory(POST, message()) for _ in range(18)]
    assert results == [0] * 17 + [0x13]
    posting.empty_slot()
    posting.wrmsr(EOM, 0, vcpu=1)
    assert posting.call_memory(POST, message()) == 0


def test_a_connection_takes_its_messages_along(posting: Setting) -> None:
    """A guest that makes connections again and again costs no memory."""
    posting.call_memory(POST, message(payload=1))
    for _ in range(100):
        posting.call_memory(POST, message(payload=2))
        posting.hv.connections.connect_messages(7, posting.machine.vcpus[1], 2)
    assert not posting.machine.watched
    posting.empty_slot()
    posting.wrmsr(EOM, 0, vcpu=1)
    assert posting.slot()[0] == 0


BAD_MESSAGES = [
    (message(connection=8), 0x12),
    (message(connection=1 << 24), 0x12),
    (message(reserved=1), 3),
    (message(kind=0), 5),
    (message(kind=1 << 31), 5),
    (message(size=241), 5),
    (message(size=240), 0),
]


@pytest.mark.parametrize(("block", "status"), BAD_MESSAGES)
def test_bad_messages(posting: Setting, block: bytes, status: int) -> None:
    """Each mistake has its status."""
    assert posting.call_memory(POST, block) == status


def test_post_without_synic(posting: Setting) -> None:
    """The receiver has no page, or its controller is off."""
    posting.wrmsr(SCONTROL, 0, vcpu=1)
    assert posting.call_memory(POST, message()) == 0x18
    posting.wrmsr(SCONTROL, 1, vcpu=1)
    posting.wrmsr(SIMP, MESSAGES, vcpu=1)
    assert posting.call_memory(POST, message()) == 0x18


def test_signal_event(posting: Setting) -> None:
    """The flag is set, and one interrupt comes; none while it is set already."""
    for _ in range(2):
        assert posting.call(SIGNAL | FAST, 9) == 0
        assert posting.memory.read_int(EVENTS + 2 * 256, 8) == 1 << 9
    assert posting.vm.interrupts == [(1, 0x50, 0)]
    posting.memory.clear(EVENTS, 4096)
    assert posting.call_memory(SIGNAL, struct.pack("<Q", 9)) == 0
    assert len(posting.vm.interrupts) == 2


@pytest.mark.parametrize(
    ("parameter", "status"), [(1 << 48 | 9, 3), (1 << 24 | 9, 3), (1 << 32 | 9, 0x11), (0x1234, 0x12), (7, 0x12)]
)
def test_bad_signals(posting: Setting, parameter: int, status: int) -> None:
    """Each mistake has its status."""
    assert posting.call(SIGNAL | FAST, parameter) == status


def test_signal_without_synic(posting: Setting) -> None:
    """The receiver has no page, or does not listen."""
    posting.wrmsr(SINT0 + 2, 0x1_0050, vcpu=1)
    assert posting.call(SIGNAL | FAST, 9) == 0x18
    posting.wrmsr(SINT0 + 2, 0x50, vcpu=1)
    posting.wrmsr(SIEFP, EVENTS, vcpu=1)
    assert posting.call(SIGNAL | FAST, 9) == 0x18


def test_polling(posting: Setting) -> None:
    """A source that is polled, or masked, takes its message without an interrupt."""
    for flag in (1 << 16, 1 << 18):
        posting.wrmsr(SINT0 + 2, flag | 0x50, vcpu=1)
        assert posting.call_memory(POST, message()) == 0
        assert posting.slot()[0] == 0x1234
        posting.empty_slot()
    assert posting.vm.interrupts == []


def test_bad_connections() -> None:
    """A connection that cannot be is the host's mistake."""
    setting = Setting()
    with pytest.raises(pv.ConfigurationError, match="connection 0x1000000 is not in 0 to 0xffffff"):
        setting.hv.connections.connect_messages(1 << 24, setting.vcpu, 2)
    with pytest.raises(pv.ConfigurationError, match="sint 16 is not in 0 to 15"):
        setting.hv.connections.connect_events(1, setting.vcpu, 16, 0)
    with pytest.raises(pv.ConfigurationError, match="event flag 2048 is not in 0 to 2047"):
        setting.hv.connections.connect_events(1, setting.vcpu, 2, 2048)


# -- timers

PERIODIC, AUTO_ENABLE, DIRECT = 1 << 1, 1 << 3, 1 << 12
TIMER_EXPIRED = 0x8000_0010


def sint(number: int) -> int:
    return number << 16


@pytest.fixture
def timing() -> Setting:
    """Source 2 of processor 0 has vector 0x50."""
    setting = Setting()
    setting.enable_synic()
    return setting


def test_one_shot(timing: Setting) -> None:
    """At its time, never early, once; its message says when it was due and when it came."""
    timing.wrmsr(STIMER0_CONFIG, 1 | sint(2))
    timing.wrmsr(STIMER0_COUNT, 10_000)
    timing.pass_time(MS - 200)
    assert timing.vm.interrupts == []
    timing.pass_time(400)
    assert timing.vm.interrupts == [(0, 0x50, 0)]
    kind, size, flags, payload = timing.slot()
    assert (kind, size, flags) == (TIMER_EXPIRED, 24, 0)
    index, reserved, expiration, delivery = struct.unpack("<IIQQ", payload)
    assert (index, reserved, expiration) == (0, 0, 10_000)
    assert 10_000 <= delivery <= 10_002
    assert timing.rdmsr(STIMER0_CONFIG) == sint(2)
    timing.pass_time(10 * MS)
    assert len(timing.vm.interrupts) == 1


def test_one_shot_in_the_past(timing: Setting) -> None:
    """It expires at once."""
    timing.vm.time_ns = 10 * MS
    timing.wrmsr(STIMER0_CONFIG, 1 | sint(2))
    timing.wrmsr(STIMER0_COUNT, 10)
    timing.pass_time(0)
    assert timing.slot()[0] == TIMER_EXPIRED


def test_periodic(timing: Setting) -> None:
    """On a grid; a tick whose slot is busy is dropped, with the pending flag set, and the next tries again."""
    timing.wrmsr(STIMER0_COUNT + 2, 10_000)
    timing.wrmsr(STIMER0_CONFIG + 2, 1 | PERIODIC | sint(2))
    timing.pass_time(MS + US)
    assert struct.unpack("<IIQQ", timing.slot()[3])[0] == 1
    timing.pass_time(2 * MS)
    assert timing.slot()[2] == 1
    assert len(timing.vm.interrupts) == 1
    timing.empty_slot()
    timing.wrmsr(EOM, 0)
    assert len(timing.vm.interrupts) == 1
    timing.pass_time(MS)
    assert len(timing.vm.interrupts) == 2
    assert struct.unpack("<IIQQ", timing.slot()[3])[2] in range(39_999, 40_003)
    timing.wrmsr(STIMER0_CONFIG + 2, 0)
    timing.empty_slot()
    timing.pass_time(10 * MS)
    assert len(timing.vm.interrupts) == 2


def test_busy_one_shot(timing: Setting) -> None:
    """It stays enabled until the guest has taken its message; switched off meanwhile, none comes."""
    for is_cancelled in (False, True):
        timing.vm.interrupts.clear()
        timing.memory.write_int(MESSAGES + 2 * 256, 4, 1)
        timing.wrmsr(STIMER0_CONFIG, 1 | sint(2))
        timing.wrmsr(STIMER0_COUNT, 1)
        timing.pass_time(MS)
        assert timing.memory.read_int(MESSAGES + 2 * 256 + 5, 1) & 1
        assert timing.rdmsr(STIMER0_CONFIG) == 1 | sint(2)
        if is_cancelled:
            timing.wrmsr(STIMER0_CONFIG, 0)
        timing.empty_slot()
        timing.wrmsr(EOM, 0)
        assert len(timing.vm.interrupts) == (0 if is_cancelled else 1)
        assert not timing.rdmsr(STIMER0_CONFIG) & 1


def test_enabling() -> None:
    """A count of 0 disables; a count enables where that is asked for; source 0 takes no timer's messages."""
    setting = Setting()
    setting.wrmsr(STIMER0_CONFIG, 1)
    assert setting.rdmsr(STIMER0_CONFIG) == 0
    setting.wrmsr(STIMER0_CONFIG, AUTO_ENABLE | sint(2))
    setting.wrmsr(STIMER0_COUNT, 1 << 62)
    assert setting.rdmsr(STIMER0_CONFIG) == 1 | AUTO_ENABLE | sint(2)
    setting.wrmsr(STIMER0_COUNT, 0)
    assert setting.rdmsr(STIMER0_CONFIG) == AUTO_ENABLE | sint(2)
    setting.wrmsr(STIMER0_CONFIG + 2, 1 | DIRECT)
    assert setting.rdmsr(STIMER0_CONFIG + 2) == 1 | DIRECT


def test_direct_timer() -> None:
    """An interrupt of its own, without the SynIC."""
    setting = Setting()
    setting.wrmsr(SCONTROL, 0)
    setting.wrmsr(STIMER0_CONFIG, 1 | PERIODIC | DIRECT | 0xEC << 4)
    setting.wrmsr(STIMER0_COUNT, 10_000)
    setting.pass_time(3 * MS + US)
    assert setting.vm.interrupts == [(0, 0xEC, 0)] * 3
    without = Setting(without="stimer-direct")
    raises_fault(lambda: without.wrmsr(STIMER0_CONFIG, 1 | DIRECT | 0xEC << 4))


@pytest.mark.parametrize("count", [1, 1 << 63, (1 << 64) - 1])
def test_extreme_counts(count: int) -> None:
    """A period is a microsecond at least; what is due after the end of time never comes."""
    setting = Setting()
    setting.wrmsr(STIMER0_CONFIG, 1 | PERIODIC | DIRECT | 0xEC << 4)
    setting.wrmsr(STIMER0_COUNT, count)
    setting.pass_time(100 * US)
    assert len(setting.vm.interrupts) <= 100
    setting.wrmsr(STIMER0_CONFIG, 1 | DIRECT | 0xEC << 4)
    assert setting.rdmsr(STIMER0_COUNT) == count


def test_reset_stops_timers(timing: Setting) -> None:
    """And forgets pages, sources and messages."""
    timing.wrmsr(STIMER0_CONFIG, 1 | sint(2))
    timing.wrmsr(STIMER0_COUNT, 10_000)
    timing.hv.reset()
    timing.pass_time(10 * MS)
    assert timing.vm.interrupts == []
    assert (timing.rdmsr(SIMP), timing.rdmsr(STIMER0_CONFIG)) == (0, 0)


# -- hostile guests

CODES = st.sampled_from(
    [SPIN_WAIT, FLUSH, FLUSH_LIST, FLUSH_EX, FLUSH_LIST_EX, IPI, IPI_EX, POST, SIGNAL, CAPABILITIES, GET, SET]
)
NUMBERS = st.one_of(
    st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, 7, 9, INPUT, MESSAGES, EVENTS, (1 << 20) - 8, 1 << 20])
)
CALLS = st.tuples(
    st.builds(lambda code, rest: code | rest, CODES, st.sampled_from([0, FAST, reps(1), words(1), words(2)]) | NUMBERS),
    NUMBERS,
    NUMBERS,
)
WRITES = st.tuples(st.integers(0x4000_0000, 0x4000_0120), NUMBERS)


@given(st.lists(st.one_of(CALLS, WRITES), max_size=30), st.binary(max_size=300))
def test_whatever_a_guest_does(steps: list[tuple[int, ...]], block: bytes) -> None:
    """It gets statuses and #GP or #UD: nothing else comes out, and nothing grows without bound."""
    setting = Setting()
    setting.enable_synic(vcpu=1)
    setting.hv.connections.connect_messages(7, setting.machine.vcpus[1], 2)
    setting.hv.connections.connect_events(9, setting.machine.vcpus[1], 2, flag=9)
    setting.memory.write(INPUT, block)
    for step in steps:
        with suppress(pv.GuestFault):
            if len(step) == 2:
                setting.wrmsr(*step)
            else:
                assert 0 <= setting.call(*step) < 1 << 64
        setting.pass_time(10 * US)
    setting.hv.reset()


# -- the partition


def test_crash() -> None:
    """It ends the run with its parameters, and with a text if there is one."""
    setting = Setting()
    assert setting.rdmsr(0x4000_0105) == 0b11 << 62
    setting.memory.write(INPUT, b"kernel panic\n\0")
    for number, value in enumerate((1, 2, 3, INPUT, 14)):
        setting.wrmsr(0x4000_0100 + number, value)
    assert setting.rdmsr(0x4000_0103) == INPUT
    setting.wrmsr(0x4000_0105, 1 << 62)
    assert setting.machine.ended == []
    setting.wrmsr(0x4000_0105, 0b11 << 62)
    text = "P0=0x1, P1=0x2, P2=0x3, P3=0x6000, P4=0xe"
    assert setting.machine.ended == [(pv.StopReason.CRASH, setting.vcpu, text + "\nkernel panic")]
    setting.wrmsr(0x4000_0104, 5000)
    setting.wrmsr(0x4000_0105, 0b11 << 62)
    setting.wrmsr(0x4000_0103, 1 << 50)
    setting.wrmsr(0x4000_0104, 5)
    setting.wrmsr(0x4000_0105, 0b11 << 62)
    assert "\n" not in setting.machine.ended[1][2] + setting.machine.ended[2][2]


def test_reset_msr() -> None:
    """Bit 0 resets the machine."""
    setting = Setting()
    setting.wrmsr(0x4000_0003, 0)
    assert setting.machine.ended == []
    setting.wrmsr(0x4000_0003, 1)
    assert setting.machine.ended == [(pv.StopReason.RESET, setting.vcpu)]
