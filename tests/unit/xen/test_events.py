"""Event channels: ports, both ways in which guests see them, upcalls."""

from __future__ import annotations

import pytest

from .guest import DATA, DOMID_SELF, PAGE, SHARED_INFO, Guest

EVENTS, SCHED, HVM, VCPU_OP = 32, 29, 34, 24
BIND_INTERDOMAIN, BIND_VIRQ, CLOSE, SEND, STATUS, ALLOC_UNBOUND, BIND_IPI, BIND_VCPU, UNMASK, RESET = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
)
INIT_CONTROL, EXPAND_ARRAY, SET_PRIORITY = 11, 12, 13
SHARED = SHARED_INFO * PAGE
PENDING, MASK_WIDE, MASK_NARROW = SHARED + 2048, SHARED + 2560, SHARED + 2176
UPCALL_PENDING, SEL_WIDE, SEL_NARROW = SHARED, SHARED + 8, SHARED + 4
EINVAL, ENOENT, EEXIST, EBUSY, ENOSPC, ESRCH, ENOSYS, EOPNOTSUPP = -22, -2, -17, -16, -28, -3, -38, -95
PENDING_BIT, MASKED_BIT, LINKED_BIT = 1 << 31, 1 << 30, 1 << 29
CONTROL, ARRAY = 0x20, 0x30
"""Frames of the control block and of the event words."""


@pytest.fixture(params=[True, False], ids=["wide", "narrow"])
def guest(request: pytest.FixtureRequest) -> Guest:
    guest = Guest(wide=request.param, cpus=2)
    guest.op(HVM, 0, "HHIQ", DOMID_SELF, 0, 0, 0)  # Latches the width.
    guest.map_shared_info()
    return guest


def open_ipi(guest: Guest, vcpu: int = 0) -> int:
    assert guest.op(EVENTS, BIND_IPI, "II", vcpu, 0) == 0
    return guest.argument("I", 4)[0]


def open_pair(guest: Guest) -> tuple[int, int]:
    assert guest.op(EVENTS, ALLOC_UNBOUND, "HHI", DOMID_SELF, DOMID_SELF, 0) == 0
    remote = guest.argument("I", 4)[0]
    assert guest.op(EVENTS, BIND_INTERDOMAIN, "HHII", DOMID_SELF, 0, remote, 0) == 0
    return guest.argument("I", 8)[0], remote


def status(guest: Guest, port: int) -> tuple[int, ...]:
    assert guest.op(EVENTS, STATUS, "HHIIIII", DOMID_SELF, 0, port, 9, 9, 0, 0) == 0
    return guest.argument("IIHHI", 8)


def test_the_console_and_the_store_are_connected(guest: Guest) -> None:
    assert status(guest, 1)[:3] == (2, 0, 0)
    assert status(guest, 2)[:3] == (2, 0, 0)


def test_an_ipi_sets_pending_selector_and_upcall(guest: Guest) -> None:
    port = open_ipi(guest, vcpu=1)
    assert port == 3, "the lowest that is free"
    assert guest.op(EVENTS, SEND, "I", port) == 0
    info, selector = SHARED + 64, 8 if guest.is_wide else 4
    assert guest.read(PENDING, 4) == 1 << port
    assert guest.read(info, 1) == 1
    assert guest.read(info + selector, 4) == 1
    assert guest.read(UPCALL_PENDING, 1) == 0, "vCPU 0 is not told"


def test_a_masked_port_is_pending_only_until_it_is_unmasked(guest: Guest) -> None:
    port = open_ipi(guest)
    mask = MASK_WIDE if guest.is_wide else MASK_NARROW
    guest.memory.write_int(mask, 4, 1 << port)
    guest.op(EVENTS, SEND, "I", port)
    assert (guest.read(PENDING, 4), guest.read(UPCALL_PENDING, 1)) == (1 << port, 0)
    assert guest.op(EVENTS, UNMASK, "I", port) == 0
    assert (guest.read(mask, 4), guest.read(UPCALL_PENDING, 1)) == (0, 1)


def test_an_interdomain_pair_tells_the_other_end(guest: Guest) -> None:
    local, remote = open_pair(guest)
    assert guest.read(PENDING, 4) == 1 << local, "pending at once: the other end may have sent before"
    guest.memory.write_int(PENDING, 4, 0)
    assert guest.op(EVENTS, SEND, "I", local) == 0
    assert guest.read(PENDING, 4) == 1 << remote
    assert status(guest, local) == (2, 0, 1, 0, remote)
    assert guest.op(EVENTS, CLOSE, "I", local) == 0
    assert status(guest, remote)[:3] == (1, 0, 1)
    assert status(guest, local)[0] == 0
    assert guest.op(EVENTS, SEND, "I", remote) == 0, "an unbound port takes events, and nobody gets them"


def test_binding_a_virq_twice_or_wrongly(guest: Guest) -> None:
    assert guest.op(EVENTS, BIND_VIRQ, "III", 0, 1, 0) == 0
    port = guest.argument("I", 8)[0]
    assert status(guest, port)[:3] == (4, 1, 0)
    assert guest.op(EVENTS, BIND_VIRQ, "III", 0, 1, 0) == EEXIST
    assert guest.op(EVENTS, BIND_VIRQ, "III", 24, 0, 0) == EINVAL
    assert guest.op(EVENTS, BIND_VIRQ, "III", 2, 1, 0) == EINVAL, "a global one belongs to vCPU 0"
    assert guest.op(EVENTS, BIND_VIRQ, "III", 2, 0, 0) == EBUSY, "the console's is the tool stack's"
    assert guest.op(EVENTS, BIND_VIRQ, "III", 1, 2, 0) == ENOENT
    assert guest.op(EVENTS, BIND_VCPU, "II", port, 0) == EINVAL
    assert guest.op(EVENTS, SEND, "I", port) == EINVAL
    guest.op(EVENTS, CLOSE, "I", port)
    assert guest.op(EVENTS, BIND_VIRQ, "III", 0, 1, 0) == 0, "free again"


@pytest.mark.parametrize("command", [CLOSE, SEND, UNMASK])
@pytest.mark.parametrize("port", [0, 9, 0xFFFF_FFFF])
def test_ports_that_are_not_open(command: int, port: int) -> None:
    assert Guest().op(EVENTS, command, "I", port) == EINVAL


def test_the_number_of_ports_is_bounded(guest: Guest) -> None:
    for _ in range(1021):
        open_ipi(guest)
    assert guest.op(EVENTS, BIND_IPI, "II", 0, 0) == ENOSPC
    assert guest.op(EVENTS, RESET, "H", DOMID_SELF) == 0
    assert status(guest, 1)[0] == 0, "reset closes the console's, too"


def test_other_domains_do_not_exist(guest: Guest) -> None:
    assert guest.op(EVENTS, ALLOC_UNBOUND, "HHI", 7, 0, 0) == ESRCH
    assert guest.op(EVENTS, BIND_INTERDOMAIN, "HHII", 7, 0, 3, 0) == ESRCH
    assert guest.op(EVENTS, 2, "III", 3, 0, 0) == EINVAL, "no physical interrupts"
    assert guest.op(EVENTS, 99, "I", 0) == ENOSYS


# -- polling


def test_poll_returns_at_once_for_a_pending_port_even_masked(guest: Guest) -> None:
    port = open_ipi(guest)
    guest.memory.write_int(DATA, 4, port)
    guest.op(EVENTS, SEND, "I", port)
    layout = "QIIQ" if guest.is_wide else "IIQ"
    values = (DATA, 1, 0, 0) if guest.is_wide else (DATA, 1, 0)
    assert guest.op(SCHED, 3, layout, *values) == 0
    assert guest.xen.domain.vcpus[0].polled is None
    guest.memory.write_int(DATA, 4, 999)
    assert guest.op(SCHED, 3, layout, *values) == EINVAL


# -- queues


@pytest.fixture
def fifo() -> Guest:
    guest = Guest(cpus=2)
    guest.map_shared_info()
    assert guest.op(EVENTS, EXPAND_ARRAY, "Q", ARRAY) == EOPNOTSUPP
    assert guest.op(EVENTS, INIT_CONTROL, "QIIQ", CONTROL, 8, 0, 0) == 0
    assert guest.argument("B", 16) == (17,)
    return guest


def word(guest: Guest, port: int) -> int:
    return guest.read(ARRAY * PAGE + 4 * port, 4)


def head(guest: Guest, priority: int = 7) -> int:
    return guest.read(CONTROL * PAGE + 8 + 8 + 4 * priority, 4)


def take(guest: Guest, priority: int = 7) -> list[int]:
    """What a guest does: take all ports of a queue."""
    taken = []
    ready = CONTROL * PAGE + 8
    guest.memory.write_int(ready, 4, guest.read(ready, 4) & ~(1 << priority))
    port = head(guest, priority)
    while port:
        value = word(guest, port)
        taken.append(port)
        guest.memory.write_int(ARRAY * PAGE + 4 * port, 4, value & ~(LINKED_BIT | PENDING_BIT | 0x1FFFF))
        port = value & 0x1FFFF
    guest.memory.write_int(UPCALL_PENDING, 1, 0)
    return taken


def test_events_are_queued_in_order_and_may_come_again(fifo: Guest) -> None:
    assert fifo.op(EVENTS, EXPAND_ARRAY, "Q", ARRAY) == 0
    ports = [open_ipi(fifo) for _ in range(3)]
    for _ in range(2):
        for port in ports:
            fifo.op(EVENTS, SEND, "I", port)
        assert fifo.read(UPCALL_PENDING, 1) == 1
        assert head(fifo) == ports[0]
        assert take(fifo) == ports
    fifo.op(EVENTS, SEND, "I", ports[2])
    fifo.op(EVENTS, SEND, "I", ports[2])
    assert take(fifo) == [ports[2]], "linked once"


def test_priorities_have_queues_of_their_own(fifo: Guest) -> None:
    fifo.op(EVENTS, EXPAND_ARRAY, "Q", ARRAY)
    urgent, port = open_ipi(fifo), open_ipi(fifo)
    assert fifo.op(EVENTS, SET_PRIORITY, "II", urgent, 0) == 0
    assert fifo.op(EVENTS, SET_PRIORITY, "II", urgent, 16) == EINVAL
    fifo.op(EVENTS, SEND, "I", urgent)
    fifo.op(EVENTS, SEND, "I", port)
    assert fifo.read(CONTROL * PAGE + 8, 4) == 1 << 0 | 1 << 7
    assert (take(fifo, 0), take(fifo, 7)) == ([urgent], [port])


def test_a_masked_port_is_queued_when_it_is_unmasked(fifo: Guest) -> None:
    fifo.op(EVENTS, EXPAND_ARRAY, "Q", ARRAY)
    port = open_ipi(fifo)
    fifo.memory.write_int(ARRAY * PAGE + 4 * port, 4, MASKED_BIT)
    fifo.op(EVENTS, SEND, "I", port)
    assert (word(fifo, port), fifo.read(UPCALL_PENDING, 1)) == (PENDING_BIT | MASKED_BIT, 0)
    fifo.op(EVENTS, UNMASK, "I", port)
    assert take(fifo) == [port]


def test_events_from_before_the_words_are_kept(fifo: Guest) -> None:
    port = open_ipi(fifo)
    fifo.op(EVENTS, SEND, "I", port)
    assert fifo.read(UPCALL_PENDING, 1) == 0
    fifo.op(EVENTS, EXPAND_ARRAY, "Q", ARRAY)
    assert take(fifo) == [port]


@pytest.mark.parametrize(("offset", "frame"), [(4096 - 64, CONTROL), (4, CONTROL), (0, 1 << 40)])
def test_control_blocks_that_cannot_be(offset: int, frame: int) -> None:
    assert Guest().op(EVENTS, INIT_CONTROL, "QIIQ", frame, offset, 0, 0) == EINVAL


def test_a_control_block_is_given_once(fifo: Guest) -> None:
    assert fifo.op(EVENTS, INIT_CONTROL, "QIIQ", CONTROL, 128, 0, 0) == EINVAL
    assert fifo.op(EVENTS, INIT_CONTROL, "QIIQ", CONTROL, 128, 1, 0) == 0
    assert fifo.op(EVENTS, INIT_CONTROL, "QIIQ", CONTROL, 256, 2, 0) == ENOENT


def test_garbage_in_event_words_hurts_nobody(fifo: Guest) -> None:
    fifo.op(EVENTS, EXPAND_ARRAY, "Q", ARRAY)
    ports = [open_ipi(fifo) for _ in range(3)]
    for garbage in (0xFFFF_FFFF, LINKED_BIT | 0x1FFFF, PENDING_BIT, 0):
        fifo.memory.write(ARRAY * PAGE, garbage.to_bytes(4, "little") * 1024)
        for port in ports:
            assert fifo.op(EVENTS, SEND, "I", port) == 0
            assert fifo.op(EVENTS, UNMASK, "I", port) == 0
