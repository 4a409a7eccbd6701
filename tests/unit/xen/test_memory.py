"""memory_op and grant tables: which pages there are."""

from __future__ import annotations

import pytest

from .guest import DATA, DOMID_SELF, PAGE, SHARED_INFO, Guest

MEMORY, GRANTS = 12, 20
INCREASE, DECREASE, RAM_PAGE, CURRENT, MAXIMUM, POPULATE, ADD, MAP, MAX_GPFN, REMOVE = 0, 1, 2, 3, 4, 6, 7, 9, 14, 15
EPERM, ENOENT, ESRCH, EACCES, EFAULT, EINVAL, ENOSYS = -1, -2, -3, -13, -14, -22, -38
PAGES = 1024
"""Of a machine with 4 MiB."""


@pytest.fixture(params=[True, False], ids=["wide", "narrow"])
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(wide=request.param)


def reserve(guest: Guest, command: int, frames: list[int], order: int = 0, domid: int = DOMID_SELF) -> int:
    size = 8 if guest.is_wide else 4
    for index, frame in enumerate(frames):
        guest.memory.write_int(DATA + size * index, size, frame)
    layout = "QQIIH6x" if guest.is_wide else "IIIIH2x"
    return guest.op(MEMORY, command, layout, DATA, len(frames), order, 0, domid)


def place(guest: Guest, space: int, index: int, frame: int, domid: int = DOMID_SELF) -> int:
    return guest.op(MEMORY, ADD, "HHIQQ" if guest.is_wide else "HHIII", domid, 0, space, index, frame)


def test_how_much_there_is(guest: Guest) -> None:
    assert guest.op(MEMORY, CURRENT, "H", DOMID_SELF) == PAGES
    assert guest.op(MEMORY, MAXIMUM, "H", 1) == PAGES
    assert guest.op(MEMORY, MAX_GPFN, "H", DOMID_SELF) == PAGES - 1
    assert guest.call(MEMORY, RAM_PAGE, 0) == PAGES - 1
    assert guest.op(MEMORY, CURRENT, "H", 0) == EPERM
    assert guest.op(MEMORY, CURRENT, "H", 5) == ESRCH


def test_a_page_given_back_is_gone_until_it_is_populated(guest: Guest) -> None:
    guest.memory.write_int(0x50_000, 4, 7)
    assert reserve(guest, DECREASE, [0x50, 0x51]) == 2
    assert guest.op(MEMORY, CURRENT, "H", DOMID_SELF) == PAGES - 2
    assert reserve(guest, DECREASE, [0x52, 0x50]) == 1, "the second is not there any more"
    assert reserve(guest, POPULATE, [0x50, 0x51, 0x60]) == 2, "the third is there already"
    assert guest.read(0x50_000, 4) == 0
    assert guest.op(MEMORY, CURRENT, "H", DOMID_SELF) == PAGES - 1


def test_extents_of_more_pages(guest: Guest) -> None:
    assert reserve(guest, DECREASE, [0x200], order=4) == 1
    assert guest.op(MEMORY, CURRENT, "H", DOMID_SELF) == PAGES - 16
    assert reserve(guest, POPULATE, [0x200], order=4) == 1
    assert reserve(guest, DECREASE, [0x200], order=10) == 0
    assert reserve(guest, DECREASE, [1 << 31]) == 0
    assert reserve(guest, INCREASE, [0]) == 0
    assert reserve(guest, DECREASE, [0x60], domid=0) == EPERM


def test_a_list_that_ends_in_nothing(guest: Guest) -> None:
    layout = "QQIIH6x" if guest.is_wide else "IIIIH2x"
    end = PAGES * PAGE
    guest.memory.write_int(end - 8, 8, 0)
    assert guest.op(MEMORY, DECREASE, layout, 0xFFFF_F000, 1 << 31, 0, 0, DOMID_SELF) == 0


def test_the_shared_page_moves(guest: Guest) -> None:
    before = guest.xen.domain.shared_info.read(0, PAGE)
    assert any(before), "it has a date"
    assert place(guest, 0, 0, SHARED_INFO) == 0
    assert guest.memory.read(SHARED_INFO * PAGE, PAGE) == before
    assert place(guest, 0, 0, SHARED_INFO + 1) == 0
    assert guest.memory.read((SHARED_INFO + 1) * PAGE, PAGE) == before
    assert not any(guest.memory.read(SHARED_INFO * PAGE, PAGE))
    assert reserve(guest, POPULATE, [SHARED_INFO + 1, SHARED_INFO]) == 0, "the shared page is there"
    assert reserve(guest, POPULATE, [SHARED_INFO]) == 1


def test_places_that_cannot_be(guest: Guest) -> None:
    assert place(guest, 0, 1, SHARED_INFO) == EINVAL
    assert place(guest, 5, 0, SHARED_INFO) == EINVAL
    assert place(guest, 1, 64, SHARED_INFO) == EINVAL
    assert place(guest, 2, PAGES + 1, SHARED_INFO) == EACCES
    assert place(guest, 0, 0, SHARED_INFO, domid=0) == EPERM


def test_a_page_of_the_guest_s_own_moves(guest: Guest) -> None:
    guest.memory.write_int(0x70_000, 4, 9)
    assert place(guest, 2, 0x70, 0x71) == 0
    assert (guest.read(0x70_000, 4), guest.read(0x71_000, 4)) == (0, 9)
    assert reserve(guest, DECREASE, [0x70]) == 0


def test_removing_what_is_somewhere(guest: Guest) -> None:
    layout = "H6xQ" if guest.is_wide else "H2xI"
    place(guest, 0, 0, SHARED_INFO)
    assert guest.op(MEMORY, REMOVE, layout, DOMID_SELF, SHARED_INFO) == 0
    assert guest.xen.domain.shared_info.gpa is None
    assert guest.op(MEMORY, REMOVE, layout, DOMID_SELF, SHARED_INFO) == ENOENT
    assert guest.op(MEMORY, REMOVE, layout, DOMID_SELF, 0x80) == 0


def test_a_page_outside_ram_is_reached_by_accesses_to_it() -> None:
    guest = Guest()
    frame = 0x8_0000
    assert place(guest, 1, 0, frame) == 0
    vcpu = guest.machine.vcpus[0]
    pages = guest.xen.domain.pages
    pages._write(vcpu, frame * PAGE + 8, 4, 0x1234)
    assert pages._read(vcpu, frame * PAGE + 8, 4) == 0x1234
    assert place(guest, 1, 0, 0x90) == 0
    assert guest.read(0x90_008, 4) == 0x1234
    assert pages._read(vcpu, frame * PAGE + 8, 4) == (1 << 64) - 1
    for number in range(300):
        result = place(guest, 1, 0, frame + number)
    assert result == -12, "only so many places"


def test_the_memory_map(guest: Guest) -> None:
    layout = "IxxxxQ" if guest.is_wide else "II"
    assert guest.op(MEMORY, MAP, layout, 100, DATA) == 0
    (count,) = guest.argument("I")
    entries = [guest.memory.read(DATA + 20 * index, 20) for index in range(count)]
    assert int.from_bytes(entries[0][:8], "little") == 0
    assert sum(int.from_bytes(entry[8:16], "little") for entry in entries if entry[16] == 1) > 3 << 20
    assert guest.op(MEMORY, MAP, layout, 2, DATA) == 0
    assert guest.argument("I") == (2,)
    assert guest.call(MEMORY, 10, 0) == EPERM
    assert guest.call(MEMORY, 11, 0) == ENOSYS


# -- grant tables


def grant(guest: Guest, ref: int, frame: int, flags: int = 1, domid: int = 1) -> None:
    guest.xen._grants.find_frame(0).write(8 * ref, flags.to_bytes(2, "little") + domid.to_bytes(2, "little"))
    guest.xen._grants.find_frame(0).write(8 * ref + 4, frame.to_bytes(4, "little"))


def grant_op(guest: Guest, command: int, layout: str, *values: int, count: int = 1) -> int:
    from .guest import ARGUMENT

    guest.op(17, 0, layout, *values)  # Only writes the structure.
    return guest.call(GRANTS, command, ARGUMENT, count)


def test_the_table_s_size_and_version(guest: Guest) -> None:
    assert grant_op(guest, 6, "HHIIhh", DOMID_SELF, 0, 0, 0, 9, 0) == 0
    assert guest.argument("IIh", 4) == (1, 64, 0)
    assert place(guest, 1, 3, 0x90) == 0
    grant_op(guest, 6, "HHIIhh", DOMID_SELF, 0, 0, 0, 9, 0)
    assert guest.argument("IIh", 4) == (4, 64, 0)
    assert grant_op(guest, 6, "HHIIhh", 7, 0, 0, 0, 9, 0) == 0
    assert guest.argument("h", 12) == (-2,)
    assert grant_op(guest, 8, "I", 1) == 0
    assert grant_op(guest, 8, "I", 2) == ENOSYS
    assert grant_op(guest, 8, "I", 3) == EINVAL
    assert grant_op(guest, 10, "HHI", DOMID_SELF, 0, 0) == 0
    assert guest.argument("I", 4) == (1,)
    assert grant_op(guest, 12, "I", 0) == ENOSYS
    assert grant_op(guest, 6, "I", 0, count=513) == EINVAL


def test_copying_by_grant_and_by_page() -> None:
    guest = Guest()
    layout = "QHHxxxxQHHxxxxHHhxx"
    guest.memory.write(0x50_010, b"granted")
    grant(guest, 8, 0x50)
    assert grant_op(guest, 5, layout, 8, DOMID_SELF, 0x10, 0x60, DOMID_SELF, 0x20, 7, 1, 9) == 0
    assert guest.argument("h", 36) == (0,)
    assert guest.memory.read(0x60_020, 7) == b"granted"
    for values, status in (
        ((9, DOMID_SELF, 0, 0x60, DOMID_SELF, 0, 7, 1, 9), -8),
        ((1 << 20, DOMID_SELF, 0, 0x60, DOMID_SELF, 0, 7, 1, 9), -3),
        ((8, DOMID_SELF, 0, 0x60, DOMID_SELF, 4095, 7, 1, 9), -10),
        ((8, 5, 0, 0x60, DOMID_SELF, 0, 7, 1, 9), -2),
        ((1 << 30, DOMID_SELF, 0, 0x60, DOMID_SELF, 0, 7, 0, 9), -9),
    ):
        assert grant_op(guest, 5, layout, *values) == 0
        assert guest.argument("h", 36) == (status,)


def test_mapping_fails_for_what_is_not_there_and_for_what_cannot_be() -> None:
    guest = Guest()
    grant(guest, 8, 0x50)
    for ref, domid, status in ((8, 1, -1), (9, 1, -8), (8, 0, -2)):
        assert grant_op(guest, 0, "QIIHhIQ", 0x60_000, 2, ref, domid, 9, 0, 0) == 0
        assert guest.argument("h", 18) == (status,)
    assert grant_op(guest, 1, "QQIhh", 0, 0, 3, 9, 0) == 0
    assert guest.argument("h", 20) == (-4,)


def test_exchanging_entries() -> None:
    guest = Guest()
    grant(guest, 8, 0x50)
    grant(guest, 9, 0x51)
    assert grant_op(guest, 11, "IIhh", 8, 9, 9, 0) == 0
    frame = guest.xen._grants.find_frame(0)
    assert (frame.read_int(68, 4), frame.read_int(76, 4)) == (0x51, 0x50)
