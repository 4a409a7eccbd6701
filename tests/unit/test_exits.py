"""Who handles which exit: services, hooks, traces, and what is claimed for them."""

from __future__ import annotations

import io
from typing import cast

import pytest

import paravirt as pv
from paravirt import _native
from paravirt._native import ExitKind
from paravirt.exits import ExitRouter

from .fakes import FakeExit, FakeMachine, FakeVm


class Setting:
    """A router over a machine that is not there."""

    def __init__(self, trace: str | None = None, interface: pv.Interface | None = None) -> None:
        self.vm = FakeVm()
        machine = FakeMachine(self.vm, [] if interface is None else [interface])
        self.stream = io.StringIO()
        tracer = None if trace is None else pv.Tracer(self.stream, trace)
        self.router = ExitRouter(cast("_native.Vm", self.vm), machine.vcpus, tracer)
        if interface is not None:
            self.router.serve_msrs(interface)

    def exit(self, kind: int, address: int = 0, size: int = 0, value: int = 0) -> int | None:
        exit = FakeExit(kind=kind, address=address, size=size, value=value)
        return self.router.handlers[kind](cast("_native.Exit", exit))


class Msrs(pv.Interface):
    """One MSR of each sort."""

    signature = b"MSRS"

    def __init__(self) -> None:
        self.values = dict.fromkeys(range(0x200), 0)

    @pv.msr_read(0x100)
    def read_one(self, vcpu: pv.Vcpu) -> int:
        return -1

    @pv.msr_write(0x101)
    def write_one(self, vcpu: pv.Vcpu, value: int) -> None:
        if value > 9:
            raise pv.GuestFault
        self.values[0x101] = value

    @pv.msr_read(0x110, 0x11F)
    def read_many(self, vcpu: pv.Vcpu, index: int) -> int:
        return self.values[index]

    @pv.msr_write(0x110, 0x11F)
    def write_many(self, vcpu: pv.Vcpu, index: int, value: int) -> None:
        self.values[index] = value


def test_msrs() -> None:
    """Each goes to its method, as wide as an MSR is."""
    interface = Msrs()
    setting = Setting(interface=interface)
    assert setting.vm.claims["msrs"] == {(0x100, 0x100), (0x101, 0x101), (0x110, 0x11F)}
    assert setting.exit(ExitKind.MSR_READ, 0x100) == (1 << 64) - 1
    assert setting.exit(ExitKind.MSR_WRITE, 0x101, value=7) == 0
    assert setting.exit(ExitKind.MSR_WRITE, 0x11F, value=8) == 0
    assert setting.exit(ExitKind.MSR_READ, 0x11F) == 8
    assert setting.exit(ExitKind.MSR_READ, 0x11E) == 0
    assert interface.values[0x101] == 7
    assert setting.vm.done == []


@pytest.mark.parametrize(
    ("kind", "index", "value"),
    [(ExitKind.MSR_WRITE, 0x100, 0), (ExitKind.MSR_READ, 0x101, 0), (ExitKind.MSR_WRITE, 0x101, 10)],
)
def test_msrs_that_fault(kind: int, index: int, value: int) -> None:
    """Read-only, write-only, and a value that the interface refuses."""
    setting = Setting(interface=Msrs())
    assert setting.exit(kind, index, value=value) is None
    assert setting.vm.done == ["fault"]


def test_two_owners_of_an_msr() -> None:
    """An error before start that names both."""

    class Other(pv.Interface):
        @pv.msr_read(0x11F, 0x120)
        def read(self, vcpu: pv.Vcpu, index: int) -> int:
            return 0

    setting = Setting(interface=Msrs())
    with pytest.raises(pv.PlacementError, match=r"^'msrs' and 'other' both claim MSR 0x11f$"):
        setting.router.serve_msrs(Other())


def test_ports() -> None:
    """Served ranges answer in the size of the access; nothing drives the bus of a write-only one."""
    setting = Setting()
    written: list[tuple[int, int, int]] = []
    setting.router.serve_ports("a", 0x10, 0x13, lambda vcpu, port, size: 0x1_2345, None)
    setting.router.serve_ports(
        "b", 0x14, 0x14, None, lambda vcpu, port, size, value: written.append((port, size, value))
    )
    assert setting.vm.claims["ports"] == {(0x10, 0x13), (0x14, 0x14)}
    assert setting.exit(ExitKind.PORT_READ, 0x13, 2) == 0x2345
    assert setting.exit(ExitKind.PORT_WRITE, 0x13, 1, 5) == 0
    assert setting.exit(ExitKind.PORT_READ, 0x14, 1) == 0xFF
    assert setting.exit(ExitKind.PORT_WRITE, 0x14, 4, 6) == 0
    assert written == [(0x14, 4, 6)]


@pytest.mark.parametrize(("first", "last"), [(0x0F, 0x10), (0x11, 0x12), (0x13, 0x20), (0x0, 0xFFFF)])
def test_overlapping_ports(first: int, last: int) -> None:
    """However they overlap."""
    setting = Setting()
    setting.router.serve_ports("a", 0x10, 0x13, None, None)
    with pytest.raises(pv.PlacementError, match=r"^'a' and 'b' both claim port 0x1\d$"):
        setting.router.serve_ports("b", first, last, None, None)


def test_bad_ranges() -> None:
    """Ports have 16 bits, addresses 52."""
    setting = Setting()
    with pytest.raises(pv.ConfigurationError, match=r"^ports 0x10 to 0xf are no range within 0 to 0xffff$"):
        setting.router.serve_ports("a", 0x10, 0xF, None, None)
    with pytest.raises(pv.ConfigurationError, match=r"^device memory of 0 bytes at 0x1000 is no range of addresses$"):
        setting.router.serve_mmio("a", 0x1000, 0, None, None)


def test_device_memory() -> None:
    """As ports, by GPA."""
    setting = Setting()
    setting.router.serve_mmio("a", 0xD000_0000, 0x1000, lambda vcpu, gpa, size: gpa, None)
    assert setting.vm.claims["mmio"] == {(0xD000_0000, 0x1000)}
    assert setting.exit(ExitKind.MMIO_READ, 0xD000_0008, 4) == 0xD000_0008
    assert setting.exit(ExitKind.MMIO_READ, 0xD000_1000, 4) is None
    assert setting.vm.done == ["default"]


def test_hooks_watch_and_change_nothing() -> None:
    """Any number on one kind; what nobody serves is passed on; removed hooks leave nothing behind."""
    setting = Setting()
    seen: list[tuple[str, int]] = []
    one = setting.router.add_hook("cpuid", lambda vcpu, exit: seen.append(("one", exit.address)))
    two = setting.router.add_hook("cpuid", lambda vcpu, exit: seen.append(("two", exit.address)))
    assert setting.vm.intercepted == {"cpuid"}
    assert setting.exit(ExitKind.CPUID, 7) is None
    assert seen == [("one", 7), ("two", 7)]
    assert setting.vm.done == ["default"]
    one.remove()
    one.remove()
    two.remove()
    assert setting.vm.intercepted == set()
    setting.exit(ExitKind.CPUID, 7)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("kind", "claims"),
    [
        ("port", {"ports": {(0, 0xFFFF)}}),
        ("msr", {"msrs": {(0, 0xFFFF_FFFF)}}),
        ("mmio", {"mmio": {(3 << 30, 1 << 30)}}),
    ],
)
def test_watching_claims_everything(kind: str, claims: dict[str, set[tuple[int, int]]]) -> None:
    """Also what the board serves by itself, until nobody watches any more."""
    setting = Setting()
    hook = setting.router.add_hook(kind, lambda vcpu, exit: None)
    nothing: dict[str, set[tuple[int, int]]] = {"ports": set(), "msrs": set(), "mmio": set()}
    assert setting.vm.claims == nothing | claims
    hook.remove()
    assert setting.vm.claims == nothing


def test_exceptions_are_kept_for_the_machine() -> None:
    """A hook on all of them takes none away from the machine when it ends."""
    setting = Setting()
    setting.router.set_exceptions(frozenset((6,)))
    hook = setting.router.add_hook("exception", lambda vcpu, exit: None)
    assert setting.vm.intercepted == set(range(32))
    hook.remove()
    assert setting.vm.intercepted == {6}


def test_unknown_hook() -> None:
    """Names those that exist."""
    message = r"^unknown exit kind 'dream'; known: hypercall, exception, port, mmio, msr, cpuid, halt$"
    with pytest.raises(pv.ConfigurationError, match=message):
        Setting().router.add_hook("dream", lambda vcpu, exit: None)


def test_trace() -> None:
    """A line for each event of the kinds that were asked for, none for others."""
    setting = Setting("msr,cpuid", Msrs())
    setting.vm.time_ns = 1_500_000_000
    setting.exit(ExitKind.MSR_WRITE, 0x110, value=3)
    setting.exit(ExitKind.MSR_READ, 0x110)
    setting.exit(ExitKind.MSR_READ, 0x1B)
    setting.exit(ExitKind.MSR_READ, 0x101)
    setting.exit(ExitKind.MSR_WRITE, 0x101, value=10)
    setting.exit(ExitKind.CPUID, 7)
    setting.exit(ExitKind.HALT)
    assert setting.stream.getvalue().splitlines() == [
        "   1.500000000 cpu0 msr       write 0x110 <- 0x3",
        "   1.500000000 cpu0 msr       read 0x110 -> 0x3",
        "   1.500000000 cpu0 msr       read 0x1b -> 0x77",
        "   1.500000000 cpu0 msr       read 0x101 faults",
        "   1.500000000 cpu0 msr       write 0x101 <- 0xa faults",
        "   1.500000000 cpu0 cpuid     leaf 0x7 subleaf 0x0",
    ]


def test_trace_kinds() -> None:
    """Groups stand for several; an unknown kind is named with the known ones."""
    assert pv.Tracer(io.StringIO(), "exit").kinds == {"cpuid", "port", "mmio", "halt", "exception"}
    assert pv.Tracer(io.StringIO(), ["fixup", "msr"]).kinds == {"fixup", "msr"}
    message = (
        r"^unknown trace kind 'all-of-it'; known: hypercall, fixup, msr, cpuid, port, mmio, halt, exception, exit, all$"
    )
    with pytest.raises(pv.ConfigurationError, match=message):
        pv.Tracer(io.StringIO(), "all-of-it")


def test_unwatched_handlers_are_bare() -> None:
    """What nobody watches costs nothing: the handler in the list is the one that was set."""

    def handler(exit: object) -> None:
        return None

    setting = Setting("msr")
    setting.router.set_handler(ExitKind.HYPERCALL, handler)
    assert setting.router.handlers[ExitKind.HYPERCALL] is handler
