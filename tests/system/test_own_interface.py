"""An interface of one's own: typed arguments, pointers into guest memory, errors."""

from __future__ import annotations

import ctypes

import pytest

import paravirt as pv

from .support import RunGuest, SumInterface


class Point(ctypes.LittleEndianStructure):
    """What tests/guests/pointers.c passes."""

    _fields_ = (("x", ctypes.c_uint32), ("y", ctypes.c_uint32))


class Pointers(pv.Interface):
    """What tests/guests/pointers.c calls."""

    signature = b"POINTERSTEST"

    @pv.hypercall(0x110)
    def read(self, vcpu: pv.Vcpu, point: pv.GpaPtr[Point]) -> int:
        value = point.read()
        return int(value.x + value.y)

    @pv.hypercall(0x111)
    def write(self, vcpu: pv.Vcpu, point: pv.GvaPtr[Point]) -> int:
        point.write(Point(7, 8))
        return 0

    @pv.hypercall(0x112)
    def narrow(self, vcpu: pv.Vcpu, value: pv.i32) -> int:
        return value


def test_pointers(run_guest: RunGuest, host: str, bits: int) -> None:
    """A good pointer is read and written, also across pages; a bad one is the guest's error."""
    run_guest("pointers", bits=bits, host=host, interfaces=[Pointers()]).expect_success()


class Failing(SumInterface):
    """Has a bug."""

    signature = b"FAILINGFAILS"

    @pv.hypercall(0x101)
    def fail(self, vcpu: pv.Vcpu) -> int:
        raise ZeroDivisionError("a bug of the handler")


def test_exception_in_a_handler_comes_out_of_run(run_guest: RunGuest) -> None:
    """What a handler raises stops the machine, unchanged."""
    with pytest.raises(ZeroDivisionError, match=r"^a bug of the handler$"):
        run_guest("migrate", interfaces=[Failing()])
