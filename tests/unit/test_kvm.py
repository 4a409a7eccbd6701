"""The KVM interface: leaves, structures in guest memory, hypercalls."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import cast

import pytest

import paravirt as pv
from paravirt.cpuid import place_interfaces
from paravirt.hypercalls.dispatch import Dispatcher
from paravirt.interfaces import make_interface, make_interfaces
from paravirt.interfaces.kvm import (
    Feature,
    KvmClockPairing,
    KvmStealTime,
    PvclockWallClock,
)
from paravirt.interfaces.pvclock import VcpuTimeInfo, time_scale

from .fakes import CS_32BIT, FakeMachine, FakeVm

AREA = 0x3000
KVM_SIGNATURE = (0x4B4D564B, 0x564B4D56, 0x0000004D)


class Setting:
    """A KVM interface with vCPUs that are not there."""

    def __init__(self, cpus: int = 1, **options: object) -> None:
        self.vm = FakeVm(cpus)
        self.kvm = pv.KVM(**options)  # type: ignore[arg-type]
        self.machine = FakeMachine(self.vm, [self.kvm])
        self.vcpu = self.machine.vcpus[0]

    def wrmsr(self, index: int, value: int) -> None:
        self._msr(index, write=True)(self.vcpu, value)

    def rdmsr(self, index: int) -> int:
        return cast(int, self._msr(index, write=False)(self.vcpu))

    def _msr(self, index: int, *, write: bool) -> Callable[..., object]:
        for entry in self.kvm.msrs():
            if entry.first == index and entry.write == write:
                return entry.handler
        raise pv.GuestFault

    def read(self, format: str, gpa: int = AREA) -> tuple[int, ...]:
        return struct.unpack(format, self.vm.memory.read(gpa, struct.calcsize(format)))


@pytest.mark.parametrize(
    ("tsc_hz", "shift", "mul", "ns"),
    [
        (1_000_000, 10, 0xFA00_0000, 1_000_000_000),
        (1_000_000_000, 1, 0x8000_0000, 1_000_000_000),
        (1_500_000_000, 0, 0xAAAA_AAAA, 999_999_999),
        (2_000_000_000, 0, 0x8000_0000, 1_000_000_000),
        (2_400_000_000, -1, 0xD555_5555, 999_999_999),
        (3_000_000_000, -1, 0xAAAA_AAAA, 999_999_999),
        (5_000_000_000, -2, 0xCCCC_CCCC, 999_999_999),
    ],
)
def test_time_scale(tsc_hz: int, shift: int, mul: int, ns: int) -> None:
    """KVM's own numbers, and what a guest makes of one second of TSC with them."""
    assert time_scale(tsc_hz // 1000) == (mul, shift)
    ticks = tsc_hz << shift if shift >= 0 else tsc_hz >> -shift
    assert ticks * mul >> 32 == ns


@pytest.mark.parametrize(
    ("structure", "size"),
    [(PvclockWallClock, 12), (VcpuTimeInfo, 32), (KvmStealTime, 64), (KvmClockPairing, 64)],
)
def test_sizes(structure: type[ctypes.Structure], size: int) -> None:
    """As in the header that guests are compiled with."""
    assert ctypes.sizeof(structure) == size


def test_leaves() -> None:
    """Signature, features, frequencies in kHz; nothing between."""
    setting = Setting()
    leaves = place_interfaces([setting.kvm])
    assert leaves == {
        0x4000_0000: (0x4000_0010, *KVM_SIGNATURE),
        0x4000_0001: (0x0100_38EB, 0, 0, 0),
        0x4000_0010: (1_000_000, 1_000_000, 0, 0),
    }


def test_leaves_elsewhere() -> None:
    """Guests look for frequencies at 0x40000000 only."""

    class First(pv.Interface):
        signature = b"FIRST"

    setting = Setting(realtime=True)
    leaves = place_interfaces([First(), setting.kvm])
    assert leaves[0x4000_0100] == (0x4000_0101, *KVM_SIGNATURE)
    assert leaves[0x4000_0101][3] == 1
    assert 0x4000_0110 not in leaves


@pytest.mark.parametrize(
    ("index", "feature"),
    [
        (0x11, Feature.CLOCKSOURCE),
        (0x12, Feature.CLOCKSOURCE),
        (0x4B564D00, Feature.CLOCKSOURCE2),
        (0x4B564D01, Feature.CLOCKSOURCE2),
        (0x4B564D03, Feature.STEAL_TIME),
        (0x4B564D04, Feature.PV_EOI),
        (0x4B564D05, Feature.POLL_CONTROL),
    ],
)
def test_msrs_exist_with_their_feature(index: int, feature: Feature) -> None:
    """And fault without."""
    setting = Setting()
    setting.wrmsr(index, 0)
    assert setting.rdmsr(index) == 0
    without = Setting(without=feature)
    for access in (lambda: without.wrmsr(index, 0), lambda: without.rdmsr(index)):
        with pytest.raises(pv.GuestFault):
            access()


@pytest.mark.parametrize("index", [0x4B564D02, 0x4B564D06, 0x4B564D07, 0x4B564D08, 0x4B564D09])
def test_msrs_that_do_not_exist(index: int) -> None:
    """Asynchronous page faults and migration control are not offered."""
    with pytest.raises(pv.GuestFault):
        Setting().rdmsr(index)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0x4B564D03, AREA | 1 | 0x20),
        (0x4B564D03, 2),
        (0x4B564D04, AREA | 2 | 1),
        (0x4B564D04, 1 << 40 | 1),
        (0x4B564D05, 2),
        (0x4B564D05, 1 << 63),
    ],
)
def test_reserved_bits(index: int, value: int) -> None:
    """#GP, and the old value stays."""
    setting = Setting()
    before = setting.rdmsr(index)
    with pytest.raises(pv.GuestFault):
        setting.wrmsr(index, value)
    assert setting.rdmsr(index) == before


@pytest.mark.parametrize("index", [0x11, 0x4B564D00])
def test_wall_clock(index: int) -> None:
    """The date of boot, written once, with an even version above the old one."""
    setting = Setting()
    setting.vm.memory.write_int(AREA, 4, 7)
    setting.wrmsr(index, AREA)
    assert setting.read("<III") == (10, 1_700_000_000, 250_000_000)
    assert setting.rdmsr(index) == AREA


def test_wall_clock_nowhere() -> None:
    """0 and memory that is not there are ignored."""
    setting = Setting()
    setting.wrmsr(0x11, 0)
    setting.wrmsr(0x11, 1 << 40)
    assert setting.read("<III", 0) == (0, 0, 0)


@pytest.mark.parametrize("index", [0x12, 0x4B564D01])
def test_system_time(index: int) -> None:
    """One formula for ever: from virtual time 0, by the TSC as this vCPU has it."""
    setting = Setting()
    setting.vm.time_ns = 5_000
    setting.vm.offsets[0] = -3_000
    setting.wrmsr(index, AREA | 1)
    version, pad, tsc_timestamp, system_time, mul, shift, flags = setting.read("<IIQQIbB")
    assert (version, pad, shift, flags) == (2, 0, 1, 1)
    ticks = (setting.vcpu.tsc - tsc_timestamp) % (1 << 64) << shift
    assert system_time + (ticks * mul >> 32) == 5_000


def test_system_time_disabled() -> None:
    """Nothing is written without bit 0, so the guest may reuse its memory."""
    setting = Setting()
    setting.wrmsr(0x12, AREA)
    assert setting.read("<I") == (0,)


def test_system_time_not_stable() -> None:
    """The flag is valid only with its feature."""
    setting = Setting(without="clocksource-stable")
    setting.wrmsr(0x12, AREA | 1)
    assert setting.read("<29xB") == (0,)


def test_steal_time() -> None:
    """Nobody steals; the version is made even."""
    setting = Setting()
    setting.vm.memory.write(AREA, bytes(KvmStealTime(steal=5, version=3, preempted=1)))
    setting.wrmsr(0x4B564D03, AREA | 1)
    assert setting.read("<QIIB") == (5, 4, 0, 0)


def test_pv_eoi() -> None:
    """The board does it; the interface tells where, and where not any more."""
    setting = Setting()
    setting.wrmsr(0x4B564D04, AREA | 1)
    assert setting.vm.pv_eoi == {0: AREA}
    setting.wrmsr(0x4B564D04, 0)
    assert setting.vm.pv_eoi == {0: None}


def test_reset() -> None:
    """All MSRs to 0 but POLL_CONTROL, which is 1."""
    setting = Setting()
    setting.wrmsr(0x4B564D04, AREA | 1)
    setting.wrmsr(0x4B564D05, 0)
    setting.wrmsr(0x12, AREA | 1)
    setting.kvm.reset()
    assert [setting.rdmsr(index) for index in (0x11, 0x12, 0x4B564D03, 0x4B564D04, 0x4B564D05)] == [0, 0, 0, 0, 1]
    assert setting.vm.pv_eoi == {0: None}


def test_kick() -> None:
    """The second argument is the APIC id; an unknown one is no error."""
    setting = Setting(cpus=3)
    assert setting.kvm.kick_cpu(setting.vcpu, 1, 2) == 0
    assert setting.kvm.kick_cpu(setting.vcpu, 1, 99) == 0
    assert setting.vm.woken == [2]


@pytest.mark.parametrize(
    ("low", "high", "first_id", "is_64bit", "targets"),
    [
        (0b101, 0, 0, True, [0, 2]),
        (0b11, 0, 2, True, [2, 3]),
        (0, 0b1, 0, True, [64]),
        (0, 0b1, 0, False, [32]),
        (1 << 63, 1 << 1, 1, True, [64, 66]),
        (0xFFFF_FFFF, 0, 0xFFFF_FFFF, True, []),
        (1, 0, 70, True, []),
    ],
)
def test_send_ipi(low: int, high: int, first_id: int, is_64bit: bool, targets: list[int]) -> None:
    """Two bitmaps upwards from an APIC id, with a gap of a register's width; ids that do not exist are skipped,
    and none is reached by an overflow."""
    setting = Setting(cpus=70)
    if not is_64bit:
        setting.vcpu.cs_attributes = CS_32BIT
    assert setting.kvm.send_ipi(setting.vcpu, low, high, first_id, 0xF3) == len(targets)
    assert setting.vm.interrupts == [(apic_id, 0xF3, 0) for apic_id in targets]


def test_send_nmi() -> None:
    """Delivery mode 4."""
    setting = Setting(cpus=2)
    assert setting.kvm.send_ipi(setting.vcpu, 0b10, 0, 0, 0x400) == 1
    assert setting.vm.interrupts == [(1, 0, 4)]


@pytest.mark.parametrize("icr", [1 << 11, 1 << 18, 1 << 19, 0x500, 0x600])
def test_send_ipi_refused(icr: int) -> None:
    """Logical destinations and shorthands, INIT and SIPI."""
    setting = Setting()
    assert setting.kvm.send_ipi(setting.vcpu, 1, 0, 0, icr) == -22
    assert setting.vm.interrupts == []


def test_clock_pairing() -> None:
    """The date now and the TSC now."""
    setting = Setting()
    setting.vm.time_ns = 1_750_000_000
    pointer = pv.GpaPtr[KvmClockPairing](setting.vcpu, AREA, None)
    assert setting.kvm.clock_pairing(setting.vcpu, pointer, 1) == -95
    setting.vm.memory.write(AREA, b"\xff" * 64)
    entry = next(entry for entry in setting.kvm.hypercalls() if entry.number == 9)
    dispatcher = Dispatcher([setting.kvm], setting.machine.vcpus)
    registers = (entry.number, AREA, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert dispatcher.call(setting.vcpu, registers, is_64bit=True, cpl=0) == 0
    assert setting.read("<qqQI36x") == (1_700_000_002, 0, 1_750_000_000, 0)
    bad = (entry.number, 1 << 40, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert dispatcher.call(setting.vcpu, bad, is_64bit=True, cpl=0) == -14 % (1 << 64)


@pytest.mark.parametrize(
    ("number", "feature"),
    [(1, None), (5, Feature.PV_UNHALT), (9, None), (10, None), (11, Feature.PV_SCHED_YIELD)],
)
def test_calls_exist_with_their_feature(number: int, feature: Feature | None) -> None:
    """SEND_IPI answers without its feature too, as in KVM."""
    assert number in {entry.number for entry in Setting().kvm.hypercalls()}
    everything_off = {entry.number for entry in Setting(features=0).kvm.hypercalls()}
    assert (number in everything_off) == (feature is None)


@pytest.mark.parametrize(
    ("options", "features"),
    [
        ("", 0x0100_38EB),
        ("features=0x9", 0x9),
        ("features=clocksource2+pv-eoi", 0x48),
        ("without=PV_EOI+steal-time", 0x0100_388B),
    ],
)
def test_options(options: str, features: int) -> None:
    """What the command line says."""
    interface = make_interface("kvm", options)
    assert isinstance(interface, pv.KVM)
    assert interface.features == features


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("features=0x10", r"^kvm features 0x10 are not implemented; leave them out$"),
        ("features=0xZ", r"^kvm features '0xZ' are not a number$"),
        ("features=async-pf", r"^unknown kvm feature 'async-pf'; known: clocksource, nop-io-delay, "),
        ("speed=9", r"^interface 'kvm' has no option 'speed'; it has features, without, realtime, pv-leaf$"),
    ],
)
def test_bad_options(options: str, message: str) -> None:
    """One line each."""
    with pytest.raises(pv.ConfigurationError, match=message):
        make_interface("kvm", options)


def test_unknown_interface() -> None:
    """Names those that exist."""
    with pytest.raises(pv.UnknownInterfaceError, match=r"^unknown interface 'acme'; known: acrn, .*, kvm, "):
        make_interfaces(["acme"])


def test_one_machine_each() -> None:
    """An interface has state, so it cannot belong to two."""
    setting = Setting()
    with pytest.raises(
        pv.ConfigurationError, match=r"^interface 'kvm' already belongs to a machine; make one for each$"
    ):
        FakeMachine(FakeVm(), [setting.kvm])


def test_migration_control() -> None:
    """A guest may be migrated until one vCPU says otherwise."""
    setting = Setting(2, features="migration-control")
    assert setting.rdmsr(0x4B56_4D08) == 1
    assert setting.kvm.may_migrate
    setting.wrmsr(0x4B56_4D08, 0)
    assert not setting.kvm.may_migrate
    with pytest.raises(pv.GuestFault):
        setting.wrmsr(0x4B56_4D08, 2)


@pytest.mark.parametrize(
    ("gpa", "pages", "attributes", "expected"),
    [
        (0x1000, 1, 0x10, 0),
        (0x1000, 1 << 40, 2, 0),
        (0x1001, 1, 0, -22),
        (0x1000, 0, 0, -22),
        (1 << 63, 1 << 51, 0, -22),
        (0x1000, 1, 0x20, -22),
    ],
)
def test_map_gpa_range(gpa: int, pages: int, attributes: int, expected: int) -> None:
    """A range of pages, or -EINVAL."""
    setting = Setting()
    assert setting.kvm.map_gpa_range(setting.vcpu, gpa, pages, attributes) == expected


def test_linux_pv_leaf() -> None:
    """Features in leaf base+6, where the neighbours stay empty; the highest leaf reaches it."""
    kvm = pv.KVM(linux_pv_leaf=True)
    leaves = place_interfaces([kvm])
    assert leaves[0x4000_0006] == (0, int(kvm.features), 0, 0)
    assert leaves[0x4000_0000][0] == 0x4000_0006
    machine = pv.Machine(memory="4M", interfaces=[pv.KVM(linux_pv_leaf=True)])
    assert machine.interfaces[0].cpuid()[0x4000_0006][3] == 1


def test_abi_of_2007() -> None:
    """Leaves 2 and 3 as that text says, no hypercall, the old clock."""
    kvm = make_interface("kvm-2007", "leaf3=7+8+9+0xa")
    leaves = place_interfaces([kvm])
    assert leaves == {
        0x4000_0000: (0x4000_0003, *KVM_SIGNATURE),
        0x4000_0001: (3, 0, 0, 0),
        0x4000_0002: (0, *KVM_SIGNATURE),
        0x4000_0003: (7, 8, 9, 10),
    }
    assert place_interfaces([make_interface("kvm-2007", "features=clocksource")])[0x4000_0003] == (1, 0, 0, 0)
    machine = pv.Machine(memory="4M", interfaces=[kvm])
    for cpl in (0, 3):
        assert machine._dispatcher.call(machine.vcpus[0], (1,) * 11, is_64bit=True, cpl=cpl) == -1000 % (1 << 64)
    assert {entry.first for entry in kvm.msrs()} == {0x10, 0x3B, 0x11, 0x12}
    for options in ("features=pv-eoi", "leaf3=1+2", "leaf3=1+2+3+0x100000000"):
        with pytest.raises(pv.ConfigurationError):
            make_interface("kvm-2007", options)
