"""The interface as a whole: leaves, hypercall page, table of hypercalls, versions, parameters, console."""

from __future__ import annotations

import random
import struct

import pytest

import paravirt as pv
from paravirt.boot.layout import XEN_CONSOLE
from paravirt.hypercalls.dispatch import registers_of
from paravirt.interfaces.hyperv import HyperV
from paravirt.interfaces.xen import Xen
from paravirt.interfaces.xen.abi import Struct

from .guest import ARGUMENT, DATA, DOMID_SELF, PAGE, REGISTERS, SHARED_INFO, Guest

VERSION_OP, CONSOLE_IO, MULTICALL, VM_ASSIST, HVM, EVENTS = 17, 18, 13, 21, 34, 32
EPERM, ENOENT, ESRCH, EFAULT, EEXIST, EINVAL, ENOSYS = -1, -2, -3, -14, -17, -22, -38
MSR = 0x4000_0000
PAGE_AT = 0x5_0000


def write_msr(guest: Guest, value: int) -> None:
    (write,) = (entry.handler for entry in guest.xen.msrs() if entry.write)
    write(guest.machine.vcpus[0], value)


def test_structures_have_the_sizes_of_the_headers() -> None:
    reservation = Struct(extent_start="ptr", nr_extents="ulong", extent_order="u32", mem_flags="u32", domid="u16")
    assert (reservation.wide.size, reservation.narrow.size) == (32, 20)
    singleshot = Struct(timeout_abs_ns="u64", flags="u32")
    assert (singleshot.wide.size, singleshot.narrow.size) == (16, 12)
    poll = Struct(ports="ptr", nr_ports="u32", timeout="u64")
    assert (poll.wide.fields["timeout"].offset, poll.narrow.fields["timeout"].offset) == (16, 8)


# -- leaves and page


def test_leaves() -> None:
    xen = Guest().xen
    leaves = xen.cpuid()
    assert leaves[0x4000_0000] == (0x4000_0005, 0x566E6558, 0x65584D4D, 0x4D4D566E)
    assert leaves[0x4000_0001] == (4 << 16 | 19, 0, 0, 0)
    assert leaves[0x4000_0002] == (1, MSR, 0, 0)
    assert leaves[0x4000_0003] == (6, 0, 1_000_000, 0)
    assert xen.cpuid_subleaves()[3, 1] == (0, 0, 1 << 31, 1)
    assert leaves[0x4000_0004] == (1 << 4 | 1 << 6, 0, 1, 0)


def test_behind_another_interface_everything_moves() -> None:
    xen = Xen()
    machine = pv.Machine(interfaces=[pv.KVM(), xen], memory="4M")
    assert xen.base == 0x4000_0100
    assert xen.cpuid()[0x4000_0102] == (1, 0x4000_0200, 0, 0)
    assert [entry.first for entry in xen.msrs()] == [0x4000_0200] * 2
    machine.close()


def test_behind_hyper_v_calls_from_anywhere_are_xen_s() -> None:
    """Kernels of today make them inline, without a page."""
    machine = pv.Machine(interfaces=[HyperV(), Xen()], memory="4M")
    registers = registers_of(dict.fromkeys(REGISTERS, 0) | {"rax": 17})
    assert machine._dispatcher.call(machine.vcpus[0], registers, is_64bit=False, cpl=0) == 4 << 16 | 19
    machine.close()


@pytest.mark.parametrize(("host", "code"), [("intel", b"\x0f\x01\xc1"), ("amd", b"\x0f\x01\xd9")])
def test_the_hypercall_page_has_the_host_s_instruction(host: str, code: bytes) -> None:
    guest = Guest(host=host)
    write_msr(guest, PAGE_AT)
    page = guest.memory.read(PAGE_AT, PAGE)
    assert page[17 * 32 :][:9] == b"\xb8\x11\0\0\0" + code + b"\xc3"
    assert page[23 * 32 :][:2] == b"\x0f\x0b", "iret is not for such guests"
    assert page[127 * 32 :][:5] == b"\xb8\x7f\0\0\0"


def test_the_page_is_made_anew_for_a_new_host_but_for_what_the_guest_has_put_there() -> None:
    guest = Guest(host="intel")
    write_msr(guest, PAGE_AT)
    guest.memory.write(PAGE_AT + 32, b"mine" * 8)
    guest.machine.host = "amd"
    assert guest.memory.read(PAGE_AT + 17 * 32 + 5, 3) == b"\x0f\x01\xd9"
    assert guest.memory.read(PAGE_AT + 32, 32) == b"mine" * 8


@pytest.mark.parametrize("value", [PAGE_AT | 1, 1 << 40])
def test_pages_that_cannot_be(value: int) -> None:
    with pytest.raises(pv.GuestFault):
        write_msr(Guest(), value)


def test_many_pages_cost_a_bounded_amount() -> None:
    guest = Guest()
    for page in range(256, 512):
        write_msr(guest, page * PAGE)
    assert len(guest.xen._pages) == 64


def test_emulated_devices_can_be_unplugged() -> None:
    guest = Guest()
    service = guest.machine._router._ports.find(0x10)
    assert service is not None
    assert service.read is not None
    vcpu = guest.machine.vcpus[0]
    assert [service.read(vcpu, *access) & 0xFFFF for access in ((0x10, 2), (0x12, 1), (0x13, 1))] == [0x49D2, 1, 0xFFFF]


def test_the_forced_emulation_prefix_is_stepped_over_if_asked_for() -> None:
    machine = pv.Machine(interfaces=[Xen(fep=True)], memory="4M")
    vcpu = machine.vcpus[0]
    vcpu.enter_protected_mode(0x1000)
    machine.memory.write(0x1000, b"\x0f\x0bxen\x90\x0f\x0bxeN")
    assert machine.interfaces[0].exception(vcpu, 6, None)
    assert vcpu.rip == 0x1005
    vcpu.rip = 0x1006
    assert not machine.interfaces[0].exception(vcpu, 6, None)
    assert vcpu.rip == 0x1006
    assert not Xen().exceptions


# -- the table


def test_calls_that_do_not_exist_or_are_not_for_guests() -> None:
    guest = Guest()
    for number in (0, 1, 6, 23, 33, 39, 48, 63, 64, 1 << 40):
        assert guest.call(number) == ENOSYS, number
    for number in (7, 35, 36, 41):
        assert guest.call(number) == EPERM, number
    assert guest.call(VERSION_OP, 0, cpl=3) == EPERM
    assert guest.call(99, cpl=3) == EPERM


@pytest.mark.parametrize("wide", [True, False])
def test_multicall(wide: bool) -> None:
    guest = Guest(wide=wide)
    layout = "<8Q" if wide else "<8I"
    calls = [(VERSION_OP, 99, 0, 0), (99, 99, 0, 0), (VERSION_OP, 99, 1, 0xFFFF_F000), (MULTICALL, 99, 0, 0)]
    for index, (op, result, *arguments) in enumerate(calls):
        data = struct.pack(layout, op, result, *arguments, 0, 0, 0, 0)
        guest.memory.write(DATA + index * struct.calcsize(layout), data)
    assert guest.call(MULTICALL, DATA, len(calls)) == 0
    results = [
        struct.unpack_from(layout, guest.memory.read(DATA + index * struct.calcsize(layout), struct.calcsize(layout)))[
            1
        ]
        for index in range(len(calls))
    ]
    mask = (1 << (64 if wide else 32)) - 1
    assert results == [4 << 16 | 19, ENOSYS & mask, EFAULT & mask, EINVAL & mask]
    assert guest.call(MULTICALL, DATA, 4097) == EINVAL
    assert guest.call(MULTICALL, 0xFFFF_F000, 1) == EFAULT


def test_pointers_are_checked_for_the_right_to_write() -> None:
    guest = Guest()
    vcpu = guest.machine.vcpus[0]
    vcpu.cr0 = vcpu.cr0 | 1 << 16
    guest.memory.write_int(0x4000 + 8, 8, 1 << 21 | 0x81)  # The second 2 MiB: read-only.
    assert guest.call(VERSION_OP, 1, 0x20_0000) == EFAULT
    assert guest.call(VERSION_OP, 1, 0x20_0000 - 8) == EFAULT
    assert not any(guest.memory.read(0x20_0000 - 8, 8)), "nothing is written if not all is"
    assert guest.call(VERSION_OP, 1, 0x20_0000 - 16) == 0


# -- xen_version


def test_versions() -> None:
    guest = Guest()
    assert guest.call(VERSION_OP, 0, 0) == 4 << 16 | 19
    for command, size in ((1, 16), (2, 144), (3, 1024), (4, 64), (5, 8), (8, 16), (9, 9)):
        guest.memory.write(DATA, b"\xee" * 2048)
        assert guest.call(VERSION_OP, command, DATA) == 0
        data = guest.memory.read(DATA, 2048)
        assert data[size:] == b"\xee" * (2048 - size), command
        assert data[size - 1 : size] == b"\0", command
    assert b"hvm-3.0-x86_64" in _read_capabilities(guest)
    assert guest.op(VERSION_OP, 6, "II", 0, 0) == 0
    (features,) = guest.argument("I", 4)
    assert features & 0x305 == 0x305
    assert guest.op(VERSION_OP, 6, "II", 1, 0) == EINVAL
    assert (guest.call(VERSION_OP, 7, 0), guest.call(VERSION_OP, 7, 1)) == (4096, EINVAL)
    assert (guest.call(VERSION_OP, 10, 0), guest.call(VERSION_OP, 11, 0)) == (EPERM, ENOSYS)


def _read_capabilities(guest: Guest) -> bytes:
    guest.call(VERSION_OP, 3, DATA)
    return guest.memory.read(DATA, 64)


# -- hvm_op


def set_param(guest: Guest, index: int, value: int, domid: int = DOMID_SELF) -> int:
    return guest.op(HVM, 0, "HHIQ", domid, 0, index, value)


def get_param(guest: Guest, index: int) -> int:
    result = guest.op(HVM, 1, "HHIQ", DOMID_SELF, 0, index, 99)
    return guest.argument("Q", 8)[0] if result == 0 else result


def test_parameters() -> None:
    guest = Guest()
    assert [get_param(guest, index) for index in (1, 2, 17, 18)] == [0xDE, 1, 0xDF, 2]
    assert get_param(guest, 34) == 0
    assert (set_param(guest, 34, 5), get_param(guest, 34)) == (0, 5)
    assert [set_param(guest, index, 5) for index in (1, 17, 35, 39, 4, 5, 38)] == [
        EPERM,
        EPERM,
        EEXIST,
        EINVAL,
        EINVAL,
        EPERM,
        EPERM,
    ]
    assert [get_param(guest, index) for index in (5, 13, 100)] == [EPERM, EINVAL, EINVAL]
    assert (set_param(guest, 34, 5, domid=0), set_param(guest, 34, 5, domid=9)) == (EPERM, ESRCH)


def test_other_operations() -> None:
    guest = Guest()
    assert (guest.call(HVM, 5, 0), guest.call(HVM, 5, 1)) == (0, EINVAL)
    assert guest.op(HVM, 10, "Q", 99) == 0
    assert guest.argument("Q") == (guest.machine.now_ns,)
    assert guest.op(HVM, 15, "HHHHQ", DOMID_SELF, 9, 0, 0, 5) == 0
    assert guest.argument("H", 2) == (0,)
    assert guest.op(HVM, 15, "HHHHQ", DOMID_SELF, 9, 0, 0, 1 << 40) == 0
    assert guest.argument("H", 2) == (2,)
    assert (guest.call(HVM, 25, 0), guest.call(HVM, 2, 0)) == (ENOSYS, ENOSYS)
    assert guest.op(HVM, 23, "IB", 0, 0x0F) == EINVAL
    assert guest.op(HVM, 23, "IB", 1, 0x30) == ENOENT
    assert (guest.call(VM_ASSIST, 0, 5), guest.call(VM_ASSIST, 0, 4)) == (0, EINVAL)


def test_the_width_of_the_shared_page_follows_the_caller() -> None:
    guest = Guest(wide=False)
    guest.map_shared_info()
    assert guest.read(SHARED_INFO * PAGE + 3076, 4) == 1_767_225_600
    set_param(guest, 0, 0)
    assert guest.read(SHARED_INFO * PAGE + 2308, 4) == 1_767_225_600


# -- console


def print_on_ring(guest: Guest, data: bytes) -> None:
    prod = guest.read(XEN_CONSOLE + 3084, 4)
    for offset, byte in enumerate(data):
        guest.memory.write_int(XEN_CONSOLE + 1024 + (prod + offset) % 2048, 1, byte)
    guest.memory.write_int(XEN_CONSOLE + 3084, 4, prod + len(data))
    assert guest.op(EVENTS, 4, "I", 2) == 0
    assert guest.read(XEN_CONSOLE + 3080, 4) == prod + len(data)


def test_both_consoles_print_and_nothing_twice() -> None:
    guest = Guest()
    guest.memory.write(DATA, b"hello\n")
    assert guest.call(CONSOLE_IO, 0, 6, DATA) == 0
    print_on_ring(guest, b"hello\n")
    print_on_ring(guest, b"hello\n")
    for number in range(400):
        print_on_ring(guest, b"line %d\n" % number)
    assert guest.machine.console.text.startswith("hello\nhello\nline 0\nline 1\n")
    assert guest.machine.console.text.endswith("line 399\n")


def test_console_io() -> None:
    guest = Guest()
    assert guest.call(CONSOLE_IO, 1, 6, DATA) == 0
    assert guest.call(CONSOLE_IO, 2, 6, DATA) == ENOSYS
    assert guest.call(CONSOLE_IO, 0, 0x8000_0000, DATA) == 0, "nobody would read so much: the first part is enough"
    assert guest.call(CONSOLE_IO, 0, 6, 1 << 50) == EFAULT


def test_what_is_typed_arrives() -> None:
    guest = Guest()
    guest.map_shared_info()
    guest.xen.console.send(b"x" * 1500)
    assert guest.read(XEN_CONSOLE + 3076, 4) == 1024
    assert guest.read(SHARED_INFO * PAGE + 2048, 4) == 1 << 2
    guest.memory.write_int(XEN_CONSOLE + 3072, 4, 1000)
    assert guest.op(EVENTS, 4, "I", 2) == 0
    assert guest.read(XEN_CONSOLE + 3076, 4) == 1500


def test_a_reset_makes_a_new_domain() -> None:
    guest = Guest()
    guest.map_shared_info()
    set_param(guest, 34, 5)
    guest.machine._reset_hardware()
    assert guest.xen.domain.shared_info.gpa is None
    assert [get_param(guest, index) for index in (34, 2, 18)] == [0, 1, 2]


# -- hostile guests


@pytest.mark.parametrize("wide", [True, False])
def test_arbitrary_calls_end_with_a_number(wide: bool) -> None:
    """Whatever a guest passes, it gets a result, and we no exception."""
    random_numbers = random.Random(1)
    guest = Guest(wide=wide, cpus=2)
    guest.map_shared_info()
    interesting = [0, 1, 2, 3, 7, DATA, ARGUMENT, PAGE - 1, 1 << 21, 0x7FF0, (1 << 32) - 1, 1 << 40, (1 << 64) - 1]

    def value() -> int:
        return random_numbers.choice(interesting) if random_numbers.random() < 0.7 else random_numbers.getrandbits(64)

    for _ in range(4000):
        guest.memory.write(ARGUMENT, b"".join(value().to_bytes(8, "little") for _ in range(8)))
        number = random_numbers.choice((12, 13, 15, 17, 18, 20, 21, 24, 29, 32, 34))
        arguments = [
            random_numbers.randrange(26),
            random_numbers.choice((ARGUMENT, value())),
            value(),
            value(),
            value(),
        ]
        if number == 24:
            arguments[1:3] = random_numbers.randrange(3), ARGUMENT
        guest.call(number, *arguments, cpu=random_numbers.randrange(2))
    assert len(guest.xen.events._ports) < 1024
