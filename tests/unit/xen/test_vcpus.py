"""vcpu_op, time, sched_op: what vCPUs do."""

from __future__ import annotations

import struct

import pytest

import paravirt as pv
from paravirt.interfaces.xen.vcpu_context import CONTEXT_BYTES

from .guest import ARGUMENT, DATA, DOMID_SELF, PAGE, SHARED_INFO, Guest

VCPU, SCHED, EVENTS, TIMER_OP, HVM = 24, 29, 32, 15, 34
INITIALISE, UP, DOWN, IS_UP, GET_RUNSTATE, RUNSTATE_AREA = 0, 1, 2, 3, 4, 5
SET_PERIODIC, STOP_PERIODIC, SET_SINGLE, STOP_SINGLE, REGISTER_INFO, NMI, TIME_AREA, RUNSTATE_PHYS = (
    6,
    7,
    8,
    9,
    10,
    11,
    13,
    14,
)
ENOENT, EEXIST, EBUSY, EINVAL, ENOSYS, EFAULT, EPERM = -2, -17, -16, -22, -38, -14, -1
SHARED = SHARED_INFO * PAGE
INFO = 0x20


@pytest.fixture(params=[True, False], ids=["wide", "narrow"])
def guest(request: pytest.FixtureRequest) -> Guest:
    guest = Guest(wide=request.param, cpus=2)
    guest.op(HVM, 0, "HHIQ", DOMID_SELF, 0, 0, 0)
    guest.map_shared_info()
    return guest


def vcpu_op(guest: Guest, command: int, target: int, layout: str = "", *values: int) -> int:
    guest.memory.write(ARGUMENT, struct.pack("<" + layout, *values))
    return guest.call(VCPU, command, target, ARGUMENT)


def context32(**changes: int) -> bytes:
    fields = {
        "mode": 0,
        "esp": 0x7000,
        "eip": 0x5000,
        "cr0": 0x11,
        "cs": 0xC9B,
        "ds": 0xC93,
        "ss": 0xC93,
        "es": 0xC93,
        "tr": 0x8B,
        **changes,
    }
    data = struct.pack(
        "<IIIIIIIIIIIIIII4xQ",
        fields["mode"],
        0,
        1,
        2,
        3,
        4,
        fields["esp"],
        6,
        7,
        8,
        fields["eip"],
        0,
        fields["cr0"],
        0,
        0,
        0,
    )
    data += struct.pack("<5I", 0, 0, 0, 0, 0) + struct.pack("<5I", *[0xFFFF_FFFF] * 4, 0x67)
    data += struct.pack("<5H", *(fields[name] for name in ("cs", "ds", "ss", "es", "tr")))
    return data.ljust(CONTEXT_BYTES, b"\0")


def test_starting_a_vcpu_in_32_bit_mode(guest: Guest) -> None:
    guest.memory.write(ARGUMENT, context32())
    assert guest.call(VCPU, UP, 1, 0) == EINVAL, "not initialised"
    assert guest.call(VCPU, INITIALISE, 1, ARGUMENT) == 0
    assert guest.call(VCPU, INITIALISE, 1, ARGUMENT) == EEXIST
    assert guest.call(VCPU, IS_UP, 1, 0) == 0
    assert guest.call(VCPU, UP, 1, 0) == 0
    assert guest.call(VCPU, IS_UP, 1, 0) == 1
    vcpu = guest.machine.vcpus[1]
    assert (vcpu.rip, vcpu.rsp, vcpu.rax, vcpu.rcx, vcpu.rdx, vcpu.rbx) == (0x5000, 0x7000, 1, 2, 3, 4)
    assert (vcpu.cr0, vcpu.cs_attributes, vcpu.tr_limit) == (0x11, 0xC09B, 0x67)


def test_starting_a_vcpu_in_64_bit_mode() -> None:
    guest = Guest(cpus=2)
    registers = [1, 2, 3, 4, 5, 6, 7, 8, 0x5000, 2, 0x8000_0011, 0x2000, 1 << 5, 0x500]
    guest.memory.write(ARGUMENT, struct.pack("<II14Q", 1, 0, *registers).ljust(CONTEXT_BYTES, b"\0"))
    assert guest.call(VCPU, INITIALISE, 1, ARGUMENT) == 0
    assert guest.call(VCPU, UP, 1, 0) == 0
    vcpu = guest.machine.vcpus[1]
    assert vcpu.is_64bit
    assert (vcpu.rip, vcpu.rdi, vcpu.cr3) == (0x5000, 8, 0x2000)


@pytest.mark.parametrize(
    "changes",
    [{"mode": 2}, {"cr0": 0}, {"cs": 0xC1B}, {"cs": 0xC93}, {"tr": 0x89}, {"ds": 0x08B}],
)
def test_states_that_cannot_be(changes: dict[str, int]) -> None:
    guest = Guest(cpus=2)
    guest.memory.write(ARGUMENT, context32(**changes))
    assert guest.call(VCPU, INITIALISE, 1, ARGUMENT) == EINVAL
    assert guest.call(VCPU, UP, 1, 0) == EINVAL


def test_vcpus_that_are_not_there(guest: Guest) -> None:
    for command in (IS_UP, UP, 99):
        assert guest.call(VCPU, command, 2, 0) == ENOENT
    assert guest.call(VCPU, 99, 0, 0) == ENOSYS


def test_vcpu_info_moves_once_and_looks_as_if_all_was_pending(guest: Guest) -> None:
    time = guest.memory.read(SHARED + 64 + 32, 32)
    assert any(time)
    assert vcpu_op(guest, REGISTER_INFO, 1, "QII", INFO, 0x80, 0) == 0
    area = INFO * PAGE + 0x80
    assert guest.read(area, 1) == 1
    size, offset = (8, 8) if guest.is_wide else (4, 4)
    assert guest.read(area + offset, size) == (1 << 8 * size) - 1
    assert guest.memory.read(area + 32 + 8, 24) == time[8:]
    assert vcpu_op(guest, REGISTER_INFO, 1, "QII", INFO, 0, 0) == EBUSY
    assert vcpu_op(guest, REGISTER_INFO, 0, "QII", INFO, PAGE - 56, 0) == EINVAL
    assert vcpu_op(guest, REGISTER_INFO, 0, "QII", 1 << 40, 0, 0) == EINVAL


def test_the_clock_and_the_date_are_in_the_shared_page(guest: Guest) -> None:
    version, tsc, system, mul, shift, flags = struct.unpack("<I4xQQIbB2x", guest.memory.read(SHARED + 32, 32))
    assert (version % 2, tsc, system, flags) == (0, 0, 0, 1)
    assert (1000 << shift) * mul >> 32 == 1000, "the TSC counts nanoseconds"
    offset = 3072 if guest.is_wide else 2304
    version, seconds, ns = struct.unpack("<III", guest.memory.read(SHARED + offset, 12))
    assert (version % 2, seconds, ns) == (0, 1_767_225_600, 0)


def test_runstate(guest: Guest) -> None:
    layout = "<i4xQ4Q" if guest.is_wide else "<iQ4Q"
    size = struct.calcsize(layout)
    assert vcpu_op(guest, GET_RUNSTATE, 1) == 0
    assert struct.unpack(layout, guest.memory.read(ARGUMENT, size))[0] == 3, "offline"
    pointer = "Q" if guest.is_wide else "I"
    assert vcpu_op(guest, RUNSTATE_AREA, 0, pointer, DATA) == 0
    assert struct.unpack(layout, guest.memory.read(DATA, size))[0] == 0
    assert vcpu_op(guest, RUNSTATE_PHYS, 1, "Q", DATA) == 0
    assert struct.unpack(layout, guest.memory.read(DATA, size))[0] == 3
    assert vcpu_op(guest, RUNSTATE_PHYS, 1, "Q", (1 << 64) - 1) == 0
    assert vcpu_op(guest, RUNSTATE_AREA, 0, pointer, 0xFFFF_F000) == 0, "nothing is there, nothing is written"


def bind_timer(guest: Guest, vcpu: int = 0) -> int:
    assert guest.op(EVENTS, 1, "III", 0, vcpu, 0) == 0
    return guest.argument("I", 8)[0]


def is_pending(guest: Guest, port: int) -> bool:
    return bool(guest.read(SHARED + 2048, 4) >> port & 1)


def let_pass(guest: Guest, ns: int) -> None:
    """Let the guest spin for so long."""
    guest.memory.write(0x1000, b"\xeb\xfe")
    guest.machine.vcpus[0].rip = 0x1000
    guest.machine._kernel = object()  # type: ignore[assignment]
    guest.machine.run(max_instructions=ns)


def test_a_timer_fires_once() -> None:
    guest = Guest(cpus=1)
    guest.map_shared_info()
    port = bind_timer(guest)
    assert vcpu_op(guest, SET_SINGLE, 0, "QII", guest.machine.now_ns + 1000, 0, 0) == 0
    assert not is_pending(guest, port)
    let_pass(guest, 5000)
    assert is_pending(guest, port)
    guest.memory.write_int(SHARED + 2048, 4, 0)
    assert vcpu_op(guest, SET_SINGLE, 0, "QII", guest.machine.now_ns + 1000, 0, 0) == 0
    assert vcpu_op(guest, STOP_SINGLE, 0) == 0
    let_pass(guest, 5000)
    assert not is_pending(guest, port)


def test_set_timer_op_shares_the_timer_and_0_stops_it() -> None:
    guest = Guest(wide=False, cpus=1)
    guest.op(HVM, 0, "HHIQ", DOMID_SELF, 0, 0, 0)
    guest.map_shared_info()
    port = bind_timer(guest)
    assert guest.call(TIMER_OP, guest.machine.now_ns + 1000, 0) == 0
    assert guest.call(TIMER_OP, 0, 0) == 0
    let_pass(guest, 5000)
    assert not is_pending(guest, port)
    assert guest.call(TIMER_OP, guest.machine.now_ns + 1000, 0) == 0
    let_pass(guest, 5000)
    assert is_pending(guest, port)
    assert guest.call(TIMER_OP, 0, 0xFFFF_FFFF) == 0, "an absurd time is answered in 100 ms"
    assert guest.xen._timers._single[0].deadline_ns == guest.machine.now_ns + 100_000_000


def test_a_periodic_timer_fires_again_and_again() -> None:
    guest = Guest(cpus=1)
    guest.map_shared_info()
    port = bind_timer(guest)
    assert vcpu_op(guest, SET_PERIODIC, 0, "Q", 999_999) == EINVAL
    assert vcpu_op(guest, SET_PERIODIC, 0, "Q", 1_000_000) == 0
    for _ in range(2):
        let_pass(guest, 1_100_000)
        assert is_pending(guest, port)
        guest.memory.write_int(SHARED + 2048, 4, 0)
    assert vcpu_op(guest, STOP_PERIODIC, 0) == 0
    let_pass(guest, 1_100_000)
    assert not is_pending(guest, port)


def test_timers_of_others_are_not_one_s_business(guest: Guest) -> None:
    assert vcpu_op(guest, SET_SINGLE, 1, "QII", 0, 0, 0) == EINVAL
    assert vcpu_op(guest, STOP_SINGLE, 1) == EINVAL


# -- sched_op


@pytest.mark.parametrize(
    ("reason", "stop", "status"),
    [
        (0, pv.StopReason.POWER_OFF, 0),
        (1, pv.StopReason.RESET, 0),
        (3, pv.StopReason.CRASH, 120),
        (4, pv.StopReason.CRASH, 120),
        (0x103, pv.StopReason.CRASH, 120),
        (77, pv.StopReason.CRASH, 120),
    ],
)
def test_shutting_down(reason: int, stop: pv.StopReason, status: int) -> None:
    guest = Guest()
    assert guest.op(SCHED, 2, "I", reason) == 0
    assert [end.reason for end in guest.machine._stops] == [stop]


def test_a_latched_code_wins(guest: Guest) -> None:
    assert guest.op(SCHED, 5, "I", 3) == 0
    assert guest.op(SCHED, 2, "I", 0) == 0
    assert guest.machine._stops[0].reason == pv.StopReason.CRASH


def test_suspending_is_cancelled(guest: Guest) -> None:
    assert guest.op(SCHED, 2, "I", 2) == 1
    assert not guest.machine._stops


def test_watchdogs(guest: Guest) -> None:
    assert guest.op(SCHED, 6, "II", 0, 0) == EINVAL
    assert [guest.op(SCHED, 6, "II", 0, 10) for _ in range(3)] == [1, 2, -28]
    assert guest.op(SCHED, 6, "II", 1, 0) == 0
    assert guest.op(SCHED, 6, "II", 1, 5) == ENOENT
    assert guest.op(SCHED, 6, "II", 3, 5) == EINVAL


def test_what_only_others_may(guest: Guest) -> None:
    assert (guest.call(SCHED, 4, 0), guest.call(SCHED, 7, 0), guest.call(SCHED, 99, 0)) == (EPERM, EPERM, ENOSYS)
    assert guest.call(SCHED, 0, 0) == 0
