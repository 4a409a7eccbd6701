"""Calling conventions, typed arguments, and who answers which number."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Annotated, Any, cast

import pytest

import paravirt as pv
from paravirt import _native
from paravirt.hypercalls.arguments import layout_of
from paravirt.hypercalls.dispatch import Dispatcher
from paravirt.hypercalls.registers import KVM_CONVENTION, KVM_LEGACY_CONVENTION, XEN_CONVENTION

from .fakes import CS_32BIT, FakeExit, FakeMachine, FakeVm

MASK64 = (1 << 64) - 1
REGISTERS = (100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110)


class Point(ctypes.LittleEndianStructure):
    _fields_ = (("x", ctypes.c_uint32), ("y", ctypes.c_uint32))


class Setting:
    """A dispatcher over a machine that is not there."""

    def __init__(self, *interfaces: pv.Interface) -> None:
        self.vm = FakeVm()
        self.machine = FakeMachine(self.vm, interfaces)
        self.dispatcher = Dispatcher(interfaces, self.machine.vcpus)
        self._handler = self.dispatcher.handler()

    def call(self, number: int, *arguments: int, mode: int = 64, cpl: int = 0) -> int | None:
        """A hypercall with KVM's registers."""
        registers = [number, *arguments, *[0] * 10][:11]
        exit = FakeExit(registers=tuple(registers), mode=mode, cpl=cpl)
        return self._handler(cast("_native.Exit", exit))


class Typed(pv.Interface):
    """Returns what it gets."""

    signature = b"TYPED"

    def __init__(self) -> None:
        self._got: tuple[Any, ...] = ()

    @property
    def got(self) -> tuple[Any, ...]:
        """Arguments of the last call."""
        return self._got

    @pv.hypercall(0)
    def none(self, vcpu: pv.Vcpu) -> None:
        self._got = ()

    @pv.hypercall(1)
    def one(self, vcpu: pv.Vcpu, a: int) -> int:
        self._got = (a,)
        return a

    @pv.hypercall(2)
    def two(self, vcpu: pv.Vcpu, a: int, b: int) -> int:
        self._got = (a, b)
        return a + b

    @pv.hypercall(3)
    def three(self, vcpu: pv.Vcpu, a: int, b: int, c: int) -> int:
        self._got = (a, b, c)
        return 3

    @pv.hypercall(4)
    def four(self, vcpu: pv.Vcpu, a: int, b: int, c: int, d: int) -> int:
        self._got = (a, b, c, d)
        return 4

    @pv.hypercall(5)
    def widths(self, vcpu: pv.Vcpu, a: pv.u32, b: pv.i32, c: pv.u8, d: pv.i64) -> int:
        self._got = (a, b, c, d)
        return -5

    @pv.hypercall(6)
    def flag(self, vcpu: pv.Vcpu, a: bool) -> bool:
        self._got = (a,)
        return a

    @pv.hypercall(7)
    def pointers(self, vcpu: pv.Vcpu, a: pv.GpaPtr[Point], b: pv.GvaPtr[pv.u16]) -> int:
        point = a.read()
        b.write(point.x)
        a.write(Point(point.y, point.x))
        return b.read()

    @pv.hypercall(8)
    def pair(self, vcpu: pv.Vcpu, a: pv.GpaPtr[Annotated[tuple[int, int], "<HI"]]) -> int:
        first, second = a.read()
        return int(first + second)

    @pv.hypercall(9, max_cpl=3)
    def for_users(self, vcpu: pv.Vcpu) -> int:
        return 9


@pytest.mark.parametrize("mode", [64, 32])
@pytest.mark.parametrize("count", range(5))
def test_arguments(count: int, mode: int) -> None:
    """Each count of plain arguments, in order."""
    setting, typed = make_typed()
    values = (11, 12, 13, 14 + (1 << 40))
    setting.call(count, *values, mode=mode)
    assert typed.got == tuple(value % (1 << mode) for value in values)[:count]


def make_typed() -> tuple[Setting, Typed]:
    typed = Typed()
    return Setting(typed), typed


def test_result_of_nothing() -> None:
    """A handler that returns None has nothing to complain about."""
    assert make_typed()[0].call(0) == 0


BIG = 0xFFFF_FFFF_8000_0001


def test_widths_in_64_bit_code() -> None:
    """An int is the whole register, unsigned; others are cut, and extended by their sign."""
    setting, typed = make_typed()
    setting.call(1, BIG)
    assert list(typed.got) == [BIG]
    assert setting.call(5, BIG, BIG, 0x1FF, BIG) == -5 & MASK64
    assert typed.got == (0x8000_0001, -0x7FFF_FFFF, 0xFF, BIG - (1 << 64))


def test_widths_in_32_bit_code() -> None:
    """Upper halves do not exist: in the number, in arguments, in what a sign is extended from."""
    setting, typed = make_typed()
    assert setting.call(0xDEAD_0000_0001, BIG) == -1000 & MASK64
    assert setting.call(0xDEAD_0000_0001, BIG, mode=32) == 0x8000_0001
    assert list(typed.got) == [0x8000_0001]
    setting.call(5, BIG, BIG, 0x1FF, BIG, mode=32)
    assert typed.got == (0x8000_0001, -0x7FFF_FFFF, 0xFF, -0x7FFF_FFFF)


def test_bool() -> None:
    """Any bit of the register's width counts."""
    setting, _ = make_typed()
    assert setting.call(6, 1 << 40) == 1
    assert setting.call(6, 1 << 40, mode=32) == 0


def test_pointers() -> None:
    """Physical and virtual, structures and numbers, read and written."""
    setting, _ = make_typed()
    setting.vm.pages[0x7000_0000 // 4096] = 0x5000
    setting.vm.memory.write(0x4000, bytes(Point(0x1_2345, 2)))
    assert setting.call(7, 0x4000, 0x7000_0010) == 0x2345
    assert setting.vm.memory.read_int(0x5010, 2) == 0x2345
    assert setting.vm.memory.read(0x4000, 8) == bytes(Point(2, 0x1_2345))


def test_format() -> None:
    """A struct format stands for a tuple."""
    setting, _ = make_typed()
    setting.vm.memory.write(0x4000, b"\x01\x00\x02\x00\x00\x00")
    assert setting.call(8, 0x4000) == 3


@pytest.mark.parametrize("gpa", [1 << 40, MASK64, (1 << 20) - 4])
def test_bad_pointer(gpa: int) -> None:
    """It is the guest's error: the call ends with the interface's fault code."""
    setting, _ = make_typed()
    assert setting.call(7, gpa, 0x4000) == -14 & MASK64


def test_bad_virtual_pointer() -> None:
    """Not mapped is as bad as not there."""
    setting, _ = make_typed()
    setting.vm.pages[0x7000_0000 // 4096] = None
    assert setting.call(7, 0x4000, 0x7000_0000) == -14 & MASK64


def test_exception_of_a_handler_comes_out() -> None:
    """Also one that looks like a guest's error: only pointers that the guest passed are the guest's."""

    class Broken(pv.Interface):
        @pv.hypercall(1)
        def fail(self, vcpu: pv.Vcpu) -> int:
            return vcpu.machine.memory.read_int(1 << 50, 4)

    with pytest.raises(pv.GuestMemoryError):
        Setting(Broken()).call(1)


def test_guest_fault() -> None:
    """A handler may give the guest an exception; there is no answer then."""

    class Faulting(pv.Interface):
        @pv.hypercall(1)
        def fault(self, vcpu: pv.Vcpu) -> int:
            raise pv.GuestFault(6)

    setting = Setting(Faulting())
    assert setting.call(1) is None
    assert setting.vm.injected == [(0, 6, None)]


@pytest.mark.parametrize("mode", [64, 32, 16, 0])
def test_user_mode(mode: int) -> None:
    """Refused unless the call is for users too; an unknown one is refused, not unknown."""
    setting, typed = make_typed()
    assert setting.call(1, 5, mode=mode, cpl=3) == -1 & MASK64
    assert setting.call(12345, mode=mode, cpl=1) == -1 & MASK64
    assert setting.call(9, mode=mode, cpl=3) == 9
    assert typed.got == ()


def test_unknown_call_goes_to_the_first_interface() -> None:
    """With what it was, to the one named first."""

    class First(pv.Interface):
        signature = b"FIRST"

        def unknown_hypercall(self, vcpu: pv.Vcpu, number: int, arguments: tuple[int, ...]) -> int:
            return number + sum(arguments)

    setting = Setting(First(), Typed())
    assert setting.call(1000, 1, 2, 3, 4) == 1010
    assert Setting(Typed(), First()).call(1000, 1, 2, 3, 4) == -1000 & MASK64


def test_two_owners_of_one_number() -> None:
    """An error before start that names both."""

    class Other(pv.Interface):
        @pv.hypercall(2)
        def two(self, vcpu: pv.Vcpu) -> int:
            return 0

    message = "interfaces 'typed' and 'other' both claim hypercall 0x2; give one of them another number"
    with pytest.raises(pv.PlacementError, match=f"^{message}$"):
        Setting(Typed(), Other())


@pytest.mark.parametrize("order", [1, -1])
def test_overridable_number(order: int) -> None:
    """KVM's call that does nothing gives way to one's own, wherever it stands."""

    class Own(pv.Interface):
        @pv.hypercall(1)
        def one(self, vcpu: pv.Vcpu) -> int:
            return 77

    assert Setting(*[pv.KVM(), Own()][::order]).call(1) == 77


class Xenish(pv.Interface):
    """One with other registers: call 2 returns 1000 and its second argument."""

    convention = XEN_CONVENTION
    unknown_call = -38

    @pv.hypercall(2)
    def second(self, vcpu: pv.Vcpu, a: int, b: int) -> int:
        return 1000 + b


def test_two_conventions() -> None:
    """One instruction cannot follow two conventions at once, unless something tells the calls apart."""
    with pytest.raises(
        pv.PlacementError, match=r"^interfaces 'typed' and 'xenish' pass hypercalls in different registers, and nothing"
    ):
        Setting(Typed(), Xenish())


def test_claimed_by_the_page() -> None:
    """Calls made from the interface's page are its own, others go to the first."""

    class Paged(Xenish):
        def claims_call(self, vcpu: pv.Vcpu, call: pv.Call) -> bool:
            return call.gpa is not None and call.gpa >> 12 == 5

    setting = Setting(Typed(), Paged())
    vcpu = setting.machine.vcpus[0]
    # RAX, RBX, RCX, RDX, RSI, RDI: the conventions differ in where the second argument is.
    arguments = (2, 10, 20, 30, 40, 50)
    vcpu.rip = 0x4FF0
    assert setting.call(*arguments) == 10 + 20
    vcpu.rip = 0x5010
    assert setting.call(*arguments) == 1000 + 40
    assert setting.call(77) == -38 & MASK64
    assert setting.call(2, cpl=3) == -1 & MASK64
    assert setting.dispatcher.owners[2].name == "typed"


def test_routed_by_a_selected_style() -> None:
    """One interface may say which other a call is for; a claim comes before."""

    class Router(pv.Interface):
        target: pv.Interface | None = None

        def route_call(self, vcpu: pv.Vcpu, call: pv.Call) -> pv.Interface | None:
            return self.target

    router, xenish = Router(), Xenish()
    setting = Setting(Typed(), router, xenish)
    assert setting.call(2, 10, 20, 30, 40) == 30
    router.target = xenish
    assert setting.call(2, 10, 20, 30, 40) == 1040


def test_own_way_of_answering() -> None:
    """An interface that takes whole calls: results, exceptions, and readiness that decides who is asked."""

    class Whole(pv.Interface):
        ready = False

        def answers_unclaimed(self, vcpu: pv.Vcpu) -> bool:
            return self.ready

        def answer_call(self, vcpu: pv.Vcpu, call: pv.Call) -> int | None:
            if call.cpl:
                raise pv.GuestFault(6)
            vcpu.rdx = call.registers[2]
            return -2

    whole = Whole()
    setting = Setting(whole, Typed())
    assert setting.call(1, 5) == 5
    whole.ready = True
    assert setting.call(1, 5, 6) == -2 & MASK64
    assert setting.machine.vcpus[0].rdx == 6
    assert setting.call(1, cpl=3) is None
    assert setting.vm.injected == [(0, 6, None)]


@pytest.mark.parametrize(
    ("convention", "is_64bit", "number", "arguments"),
    [
        (KVM_CONVENTION, True, 100, (101, 102, 103, 104)),
        (KVM_CONVENTION, False, 100, (101, 102, 103, 104)),
        (XEN_CONVENTION, True, 100, (105, 104, 103, 109, 107)),
        (XEN_CONVENTION, False, 100, (101, 102, 103, 104, 105)),
        (KVM_LEGACY_CONVENTION, True, 100, (105, 104, 103, 102, 107, 108)),
        (KVM_LEGACY_CONVENTION, False, 101, (100, 102, 103, 104, 105, 106)),
    ],
)
def test_conventions(convention: pv.Convention, is_64bit: bool, number: int, arguments: Sequence[int]) -> None:
    """Registers in the order rax rbx rcx rdx rsi rdi rbp r8 r9 r10 rip hold 100 to 110."""
    assert convention.number(REGISTERS, is_64bit) == number
    assert convention.arguments(REGISTERS, is_64bit) == tuple(arguments)


def test_arguments_that_cannot_be_passed() -> None:
    """Found when the machine is built, not when the guest calls."""

    class Greedy(pv.Interface):
        @pv.hypercall(1)
        def five(self, vcpu: pv.Vcpu, a: int, b: int, c: int, d: int, e: int) -> int:
            return 0

    class Odd(pv.Interface):
        @pv.hypercall(1)
        def text(self, vcpu: pv.Vcpu, a: str) -> int:
            return 0

    with pytest.raises(
        pv.ConfigurationError, match=r"^hypercall 0x1 of 'greedy' takes 5 arguments; convention 'kvm' passes 4$"
    ):
        Setting(Greedy())
    with pytest.raises(pv.ConfigurationError, match=r"^cannot pass a register as <class 'str'>; use int, bool,"):
        Setting(Odd())


def test_types_of_the_function_around() -> None:
    """A structure that is local to where the interface is defined."""

    class Local(ctypes.LittleEndianStructure):
        _fields_ = (("a", ctypes.c_uint64),)

    class Own(pv.Interface):
        @pv.hypercall(1)
        def read(self, vcpu: pv.Vcpu, a: pv.GpaPtr[Local]) -> int:
            return int(Local.a.size + a.read().a)

    setting = Setting(Own())
    setting.vm.memory.write_int(0x2000, 8, 5)
    assert setting.call(1, 0x2000) == 13


def test_no_layout() -> None:
    """Formats must say their byte order, which is the guest's."""
    with pytest.raises(pv.ConfigurationError, match=r"^format 'IQ' must begin with '<'"):
        layout_of(Annotated[tuple[int, int], "IQ"])
    with pytest.raises(pv.ConfigurationError, match=r"^no layout for <class 'int'>"):
        layout_of(int)


def test_mode_without_exit() -> None:
    """A call that was emulated takes the same way."""
    setting, typed = make_typed()
    vcpu = setting.machine.vcpus[0]
    vcpu.cs_attributes = CS_32BIT
    registers = (1, BIG, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert setting.dispatcher.call(vcpu, registers, is_64bit=False, cpl=0) == 0x8000_0001
    assert typed.got == (0x8000_0001,)
