"""The Xen interface, as HVM and PVH guests of Xen know it: leaves, hypercall page, and the table of hypercalls.

Sources: Xen's public headers (xen/include/public), docs/misc; arch/x86/cpuid.c and traps.c for what they leave open.

There is one guest, domain 1, and the domain of the tool stack, 0, is us. vCPUs and domains are never paused, memory is
one flat range, so what is about sharing the computer does little here; what a guest can see of it is as on a healthy
Xen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from paravirt.boot.layout import XEN_CONSOLE, XEN_STORE
from paravirt.cpuid import HYPERVISOR_BASE
from paravirt.errors import GuestFault, GuestMemoryError, GuestPointerError
from paravirt.host import HOSTS, UD_VECTOR
from paravirt.hypercalls.arguments import argument_annotations, u32
from paravirt.hypercalls.registers import XEN_CONVENTION
from paravirt.interfaces.base import CpuidLeaf, Interface, MsrEntry, hypercall, parse_options
from paravirt.interfaces.pvclock import time_scale
from paravirt.interfaces.xen.abi import DOMID_OWN, MASK32, PAGE_SIZE, VERSION, Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Caller
from paravirt.interfaces.xen.clock import Clock
from paravirt.interfaces.xen.console import XenConsole
from paravirt.interfaces.xen.domain import Domain
from paravirt.interfaces.xen.events import Events
from paravirt.interfaces.xen.grants import Grants
from paravirt.interfaces.xen.hvm_params import HvmOp, Param
from paravirt.interfaces.xen.memory import Memory
from paravirt.interfaces.xen.platform import serve_platform_ports
from paravirt.interfaces.xen.scheduling import Scheduling
from paravirt.interfaces.xen.timers import VcpuTimers
from paravirt.interfaces.xen.tree import fill_store
from paravirt.interfaces.xen.upcalls import Upcalls
from paravirt.interfaces.xen.vcpus import Vcpus
from paravirt.interfaces.xen.version import Version
from paravirt.interfaces.xen.xenstore import XenStore

if TYPE_CHECKING:
    from paravirt.hypercalls.dispatch import Call
    from paravirt.machine import Machine
    from paravirt.vcpu import Vcpu

__all__ = ["Xen"]

LEAF_VERSION, LEAF_HYPERCALLS, LEAF_TIME, LEAF_HVM, LEAF_PV = range(1, 6)
NUM_HYPERCALL_PAGES = 1
TSC_RELIABLE, RDTSCP_AVAILABLE = 1 << 1, 1 << 2
DOMID_PRESENT, UPCALL_VECTOR = 1 << 4, 1 << 6
"""Not VCPU_ID_PRESENT: a vCPU's number is that of its processor in the ACPI tables."""

MSR_HYPERCALL_PAGE = 0x4000_0000
MSR_HYPERCALL_PAGE_BESIDE_OTHERS = 0x4000_0200
"""Where it is if the interface is not the first: Hyper-V has the other range."""
PAGE_INDEX_MASK = PAGE_SIZE - 1

NUM_SLOTS, SLOT_BYTES = 128, 32
MOV_EAX, RET, UD2, INT3 = b"\xb8", b"\xc3", b"\x0f\x0b", b"\xcc"
SLOT_IRET = 23
"""A call that only paravirtualized guests have, and that does not return."""
INSTRUCTION_AT = 5
"""Where the hypercall instruction is in a slot."""
MAX_HYPERCALL_PAGES = 64
"""So many pages are remembered as ours, to fill them anew when the host changes; a guest has one for each kernel."""

FORCED_EMULATION_PREFIX = UD2 + b"xen"

MULTICALL = Struct(op="ulong", result="ulong", a0="ulong", a1="ulong", a2="ulong", a3="ulong", a4="ulong", a5="ulong")
NUM_MULTICALL_ARGUMENTS = 6
MAX_MULTICALLS = 4096
"""Calls in one multicall; Xen can be interrupted in between and has no limit."""
HYPERCALL_MULTICALL = 13
VMASST_TYPE_RUNSTATE_UPDATE = 5


class Xen(Interface):
    """Xen, for HVM and PVH guests.

    fep: whether the forced emulation prefix (`ud2; .ascii "xen"`) is accepted, as by a Xen booted with `hvm_fep`; the
    instruction behind it is then executed like any other. `console.send` types on the guest's console; `store.store` is
    its xenstore tree.
    """

    name = "xen"
    signature = b"XenVMMXenVMM"
    convention = XEN_CONVENTION
    unknown_call = -Errno.ENOSYS
    denied_call = -Errno.EPERM
    bad_pointer = -Errno.EFAULT

    domain: Domain
    events: Events
    clock: Clock
    console: XenConsole
    store: XenStore

    def __init__(self, *, fep: bool = False) -> None:
        self.exceptions = frozenset((UD_VECTOR,)) if fep else frozenset()

    @classmethod
    def from_options(cls, options: str) -> Xen:
        """Make one from the command line's options: `fep`."""
        return cls(fep="fep" in parse_options(cls.name, options, known=("fep",)))

    def attach(self, machine: Machine) -> None:
        """Become part of a machine."""
        super().attach(machine)
        self._pages: dict[int, None] = {}
        self._is_in_multicall = False
        self.domain = domain = Domain(machine)
        self._upcalls = Upcalls(domain)
        self.events = Events(domain, self._upcalls)
        self.clock = Clock(domain)
        self._timers = VcpuTimers(domain, self.events)
        self._grants = Grants(domain)
        self._version = Version(domain)
        self._memory = Memory(domain, self._grants, self._pages_moved)
        self._vcpus = Vcpus(domain, self.clock, self._timers, self._upcalls)
        self._scheduling = Scheduling(domain, self.events, self.clock)
        self._hvm = HvmOp(domain, self._upcalls, self._latch_width)
        self.console = XenConsole(domain, XEN_CONSOLE, lambda: self.events.raise_port(self._console_port))
        self.store = XenStore(
            machine.memory,
            XEN_STORE,
            lambda: self.events.raise_port(self._store_port),
            lambda store: fill_store(store, domain),
        )
        self._handlers = {entry.number: entry.handler for entry in self.hypercalls()}

    def attached(self) -> None:
        """The machine takes devices now."""
        serve_platform_ports(self.machine)

    def reset(self) -> None:
        """A new domain, with a console and a store."""
        machine = self.machine
        self._pages.clear()
        self.domain.reset()
        self._upcalls.reset()
        self.events.reset()
        for section in (self._timers, self._grants, self._vcpus, self._scheduling, self._hvm, self.console, self.store):
            section.reset()
        self.clock.reset()
        for vcpu in machine.vcpus:
            vcpu.set_upcall(None)
        for page in (XEN_CONSOLE, XEN_STORE):
            machine.memory.clear(page, PAGE_SIZE)
        self._store_port = self.events.open_service(self.store.serve)
        self._console_port = self.events.open_service(self.console.serve)
        self._hvm.values.update(
            {
                Param.STORE_PFN: XEN_STORE // PAGE_SIZE,
                Param.STORE_EVTCHN: self._store_port,
                Param.CONSOLE_PFN: XEN_CONSOLE // PAGE_SIZE,
                Param.CONSOLE_EVTCHN: self._console_port,
            }
        )

    # -- leaves

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """Version, hypercall page, time, and what such a guest has."""
        return {
            LEAF_VERSION: (VERSION, 0, 0, 0),
            LEAF_HYPERCALLS: (NUM_HYPERCALL_PAGES, self.msr, 0, 0),
            LEAF_TIME: (TSC_RELIABLE | RDTSCP_AVAILABLE, 0, self.machine.tsc_khz, 0),
            LEAF_HVM: (DOMID_PRESENT | UPCALL_VECTOR, 0, DOMID_OWN, 0),
            LEAF_PV: (0, 0, 0, 0),
        }

    def cpuid_subleaves(self) -> Mapping[tuple[int, int], CpuidLeaf]:
        """How to make time of the TSC, and the host's."""
        mul, shift = time_scale(self.machine.tsc_khz)
        return {
            (LEAF_TIME, 0): self.cpuid_leaves()[LEAF_TIME],
            (LEAF_TIME, 1): (0, 0, mul, shift & MASK32),
            (LEAF_TIME, 2): (self.machine.tsc_khz, 0, 0, 0),
        }

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None) -> bool:
        """Step over a forced emulation prefix."""
        try:
            is_prefix = vcpu.read(vcpu.linear_rip, len(FORCED_EMULATION_PREFIX)) == FORCED_EMULATION_PREFIX
        except GuestMemoryError:
            return False
        if is_prefix:
            vcpu.rip += len(FORCED_EMULATION_PREFIX)
        return is_prefix

    # -- the hypercall page

    @property
    def msr(self) -> int:
        """The MSR that is told where the hypercall page is to be."""
        return MSR_HYPERCALL_PAGE if self.base == HYPERVISOR_BASE else MSR_HYPERCALL_PAGE_BESIDE_OTHERS

    def msrs(self) -> Iterator[MsrEntry]:
        """One, whose number depends on the place of the leaves."""
        yield MsrEntry(self, self.msr, self.msr, lambda _vcpu: 0, False, False)
        yield MsrEntry(self, self.msr, self.msr, self._write_hypercall_page, True, False)

    def _write_hypercall_page(self, vcpu: Vcpu, value: int) -> None:
        """Fill a page of the guest's with calls. It is ordinary memory afterwards."""
        gpa = value & ~PAGE_INDEX_MASK
        if value & PAGE_INDEX_MASK:
            raise GuestFault
        try:
            self.machine.memory.write(gpa, self._hypercall_page())
        except GuestMemoryError:
            raise GuestFault from None
        self._latch_width(Caller(vcpu))
        self._pages.pop(gpa, None)
        self._pages[gpa] = None
        if len(self._pages) > MAX_HYPERCALL_PAGES:
            del self._pages[next(iter(self._pages))]

    def _hypercall_page(self) -> bytes:
        instruction = self.machine.host.hypercall
        return b"".join(
            (UD2 if number == SLOT_IRET else MOV_EAX + number.to_bytes(4, "little") + instruction + RET).ljust(
                SLOT_BYTES, INT3
            )
            for number in range(NUM_SLOTS)
        )

    def host_changed(self) -> None:
        """Put the new host's instruction into the pages, where the old one still is."""
        memory = self.machine.memory
        native = self.machine.host.hypercall
        foreign = {host.hypercall for host in HOSTS.values()}
        for page in self._pages:
            for number in range(NUM_SLOTS):
                gpa = page + number * SLOT_BYTES + INSTRUCTION_AT
                if number != SLOT_IRET and memory.read(gpa, len(native)) in foreign:
                    memory.write(gpa, native)

    def claims_call(self, vcpu: Vcpu, call: Call) -> bool:
        """Whatever is called from a hypercall page is for Xen."""
        return call.gpa is not None and call.gpa & ~PAGE_INDEX_MASK in self._pages

    # -- what sections tell each other

    def _latch_width(self, caller: Caller) -> None:
        if self.domain.is_wide != caller.is_wide:
            self.domain.is_wide = caller.is_wide
            self.clock.write_wall_clock()

    def _pages_moved(self) -> None:
        for state in self.domain.vcpus:
            self._upcalls.attach(state)

    # -- hypercalls

    def _run(self, vcpu: Vcpu, call: Callable[..., int], *arguments: int) -> int:
        """Carry out a call, with what is done before and after each."""
        state = self.domain.vcpus[vcpu.index]
        self._scheduling.note_call(state)
        self._vcpus.note_call(state)
        try:
            return call(Caller(vcpu), *arguments)
        except XenError as error:
            return -error.errno
        finally:
            self._upcalls.after_call(state)

    @hypercall(7)
    def platform_op(self, vcpu: Vcpu) -> int:
        """For the computer's owner."""
        return -Errno.EPERM

    @hypercall(12)
    def memory_op(self, vcpu: Vcpu, cmd: int, pointer: int) -> int:
        """The guest's pages."""
        return self._run(vcpu, self._memory.call, cmd, pointer)

    @hypercall(HYPERCALL_MULTICALL)
    def multicall(self, vcpu: Vcpu, pointer: int, count: int) -> int:
        """Several calls, one after the other; each has its result in its entry."""
        return self._run(vcpu, self._multicall, pointer, count)

    @hypercall(15)
    def set_timer_op(self, vcpu: Vcpu, low: int, high: int) -> int:
        """The vCPU's timer that fires once."""
        return self._run(vcpu, self._set_timer, low, high)

    @hypercall(17)
    def xen_version(self, vcpu: Vcpu, cmd: int, pointer: int) -> int:
        """What hypervisor this is."""
        return self._run(vcpu, self._version.call, cmd, pointer)

    @hypercall(18)
    def console_io(self, vcpu: Vcpu, cmd: u32, count: u32, pointer: int) -> int:
        """The hypervisor's console."""
        return self._run(vcpu, self.console.console_io, cmd, count, pointer)

    @hypercall(20)
    def grant_table_op(self, vcpu: Vcpu, cmd: int, pointer: int, count: int) -> int:
        """Pages for others."""
        return self._run(vcpu, self._grants.call, cmd, pointer, count)

    @hypercall(21)
    def vm_assist(self, vcpu: Vcpu, cmd: u32, kind: u32) -> int:
        """Optional behaviour: for such guests, marks in runstate areas while they are written."""
        if kind != VMASST_TYPE_RUNSTATE_UPDATE or cmd > 1:
            return -Errno.EINVAL
        return 0  # An area is never seen half written here, so there is nothing to mark.

    @hypercall(24)
    def vcpu_op(self, vcpu: Vcpu, cmd: int, target: u32, pointer: int) -> int:
        """vCPUs."""
        return self._run(vcpu, self._vcpus.call, cmd, target, pointer)

    @hypercall(29)
    def sched_op(self, vcpu: Vcpu, cmd: int, pointer: int) -> int:
        """Waiting and ending."""
        return self._run(vcpu, self._scheduling.call, cmd, pointer)

    @hypercall(32)
    def event_channel_op(self, vcpu: Vcpu, cmd: int, pointer: int) -> int:
        """Event channels."""
        return self._run(vcpu, self.events.call, cmd, pointer)

    @hypercall(34)
    def hvm_op(self, vcpu: Vcpu, cmd: int, pointer: int) -> int:
        """Parameters."""
        return self._run(vcpu, self._hvm.call, cmd, pointer)

    @hypercall(35)
    def sysctl(self, vcpu: Vcpu) -> int:
        """For the tool stack."""
        return -Errno.EPERM

    @hypercall(36)
    def domctl(self, vcpu: Vcpu) -> int:
        """For the tool stack."""
        return -Errno.EPERM

    @hypercall(41)
    def dm_op(self, vcpu: Vcpu) -> int:
        """For device models."""
        return -Errno.EPERM

    def _set_timer(self, caller: Caller, low: int, high: int) -> int:
        state = self.domain.vcpus[caller.vcpu.index]
        self.clock.refresh(state)
        self._timers.set_by_timer_op(state, caller.join(low, high))
        return 0

    def _multicall(self, caller: Caller, pointer: int, count: int) -> int:
        if self._is_in_multicall:
            raise XenError(Errno.EINVAL)
        if count & MASK32 > MAX_MULTICALLS:
            raise XenError(Errno.EINVAL)
        self._is_in_multicall = True
        try:
            for index in range(count & MASK32):
                entry = caller.load(MULTICALL, pointer + index * caller.size_of(MULTICALL))
                arguments = [entry[f"a{number}"] for number in range(NUM_MULTICALL_ARGUMENTS)]
                entry["result"] = self._call_by_number(caller.vcpu, entry["op"], arguments)
        finally:
            self._is_in_multicall = False
        return 0

    def _call_by_number(self, vcpu: Vcpu, number: int, arguments: list[int]) -> int:
        handler = self._handlers.get(number)
        if handler is None:
            return -Errno.ENOSYS
        try:
            result: int = handler(vcpu, *arguments[: _num_arguments(handler)])
        except GuestPointerError:
            return -Errno.EFAULT
        return result


def _num_arguments(handler: Callable[..., int]) -> int:
    return len(argument_annotations(handler))
