"""event_channel_op: channels between the guest, its hypervisor and the domain of the tool stack.

Source: Xen's public/event_channel.h, common/event_channel.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from paravirt.interfaces.xen.abi import DOMID_OWN, DOMID_SELF, DOMID_TOOLS, Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Caller
from paravirt.interfaces.xen.domain import Domain, VcpuState
from paravirt.interfaces.xen.fifo import LINK_BITS, NUM_PRIORITIES, Fifo
from paravirt.interfaces.xen.ports import DEFAULT_PRIORITY, Kind, Port, PortAbi, TwoLevel
from paravirt.interfaces.xen.section import Section, command
from paravirt.interfaces.xen.upcalls import Upcalls

__all__ = ["VIRQ_TIMER", "Events"]

MAX_OPEN_PORT = 1023
"""The highest port that a guest may have, as xl configures it ("event_channels")."""
NUM_VIRQS = 24
VIRQ_TIMER, VIRQ_DEBUG, VIRQ_XENOPROF, VIRQ_XENPMU = 0, 1, 7, 13
VIRQ_ARCH_0 = 16
PER_VCPU_VIRQS = frozenset((VIRQ_TIMER, VIRQ_DEBUG, VIRQ_XENOPROF, VIRQ_XENPMU))
VIRQS_OF_OTHERS = frozenset(range(2, VIRQ_ARCH_0)) - PER_VCPU_VIRQS
"""Interrupts of the whole system; they go to the domain of the tool stack."""

BIND_INTERDOMAIN = Struct(remote_dom="u16", remote_port="u32", local_port="u32")
BIND_VIRQ = Struct(virq="u32", vcpu="u32", port="u32")
PORT = Struct(port="u32")
STATUS = Struct(dom="u16", port="u32", status="u32", vcpu="u32", value="u32", value2="u32")
ALLOC_UNBOUND = Struct(dom="u16", remote_dom="u16", port="u32")
BIND_IPI = Struct(vcpu="u32", port="u32")
BIND_VCPU = Struct(port="u32", vcpu="u32")
RESET = Struct(dom="u16")
INIT_CONTROL = Struct(control_gfn="u64", offset="u32", vcpu="u32", link_bits="u8")
EXPAND_ARRAY = Struct(array_gfn="u64")
SET_PRIORITY = Struct(port="u32", priority="u32")


class Events(Section):
    """Hypercall 32."""

    def __init__(self, domain: Domain, upcalls: Upcalls) -> None:
        super().__init__(domain)
        self._upcalls = upcalls
        self._ports: dict[int, Port] = {}
        self._abi: PortAbi = TwoLevel(domain, upcalls)

    def reset(self) -> None:
        """Close everything."""
        self._ports.clear()
        self._abi = TwoLevel(self.domain, self._upcalls)

    # -- for other sections

    def open_service(self, service: Callable[[], None]) -> int:
        """Open a channel to the domain of the tool stack; `service()` is called when the guest sends an event. Returns
        the guest's port."""
        number = self._free_number()
        self._ports[number] = Port(
            number, Kind.INTERDOMAIN, remote_domain=DOMID_TOOLS, remote_port=number, service=service
        )
        return number

    def raise_port(self, number: int) -> None:
        """Send the guest an event, if the port is open."""
        port = self._ports.get(number)
        if port is not None:
            self._set_pending(port)

    def raise_virq(self, state: VcpuState, virq: int) -> None:
        """Send a vCPU a virtual interrupt, if it has bound it."""
        number = state.virqs.get(virq)
        if number is not None:
            self._set_pending(self._ports[number])

    def is_any_pending(self, numbers: Iterable[int]) -> bool:
        """Whether one of these ports is pending, masked or not. Raises XenError if one is not open."""
        return any(self._abi.is_pending(port) for port in [self._find(number) for number in numbers])

    def call_services(self) -> None:
        """Let the other ends look at their rings without an event."""
        for port in list(self._ports.values()):
            if port.service is not None:
                port.service()

    # -- ports

    def _free_number(self) -> int:
        for number in range(1, min(MAX_OPEN_PORT + 1, self._abi.max_ports)):
            if number not in self._ports:
                return number
        raise XenError(Errno.ENOSPC)

    def _find(self, number: int) -> Port:
        port = self._ports.get(number)
        if port is None:
            raise XenError(Errno.EINVAL)
        return port

    def _open(self, kind: Kind, *, vcpu: int = 0, remote_domain: int = 0, remote_port: int = 0, virq: int = 0) -> Port:
        number = self._free_number()
        port = self._ports[number] = Port(number, kind, vcpu, remote_domain, remote_port, virq)
        return port

    def _set_pending(self, port: Port) -> None:
        if not self._abi.set_pending(port):
            return
        for state in self.domain.vcpus:
            if state.polled is not None and port.number in state.polled:
                state.polled = None
                state.vcpu.wake()

    def _close(self, port: Port) -> None:
        if port.kind == Kind.INTERDOMAIN and port.remote_domain == DOMID_OWN:
            other = self._ports[port.remote_port]
            other.kind, other.remote_port = Kind.UNBOUND, 0
        for state in self.domain.vcpus:
            if state.virqs.get(port.virq) == port.number:
                del state.virqs[port.virq]
        self._abi.clear_pending(port)
        del self._ports[port.number]

    # -- opening and closing

    @command(6)
    def alloc_unbound(self, caller: Caller, pointer: int) -> int:
        """Open a port to which a domain may bind."""
        argument = caller.load(ALLOC_UNBOUND, pointer)
        self.domain.check_domid(argument["dom"])
        remote = argument["remote_dom"]
        port = self._open(Kind.UNBOUND, remote_domain=DOMID_OWN if remote == DOMID_SELF else remote)
        argument["port"] = port.number
        return 0

    @command(0)
    def bind_interdomain(self, caller: Caller, pointer: int) -> int:
        """Bind to an open port of another domain: here, of the guest's own, since no other lets it."""
        argument = caller.load(BIND_INTERDOMAIN, pointer)
        remote_domain = argument["remote_dom"]
        if remote_domain == DOMID_TOOLS:
            raise XenError(Errno.EINVAL)
        self.domain.check_domid(remote_domain)
        remote = self._find(argument["remote_port"])
        if remote.kind != Kind.UNBOUND or remote.remote_domain != DOMID_OWN:
            raise XenError(Errno.EINVAL)
        local = self._open(Kind.INTERDOMAIN, remote_domain=DOMID_OWN, remote_port=remote.number, vcpu=caller.vcpu.index)
        remote.kind, remote.remote_port = Kind.INTERDOMAIN, local.number
        argument["local_port"] = local.number
        # The other end may have sent an event before, when nobody was there.
        self._set_pending(local)
        return 0

    @command(1)
    def bind_virq(self, caller: Caller, pointer: int) -> int:
        """Open a port for a virtual interrupt."""
        argument = caller.load(BIND_VIRQ, pointer)
        virq, vcpu = argument["virq"], argument["vcpu"]
        if virq >= NUM_VIRQS or (virq not in PER_VCPU_VIRQS and vcpu != 0):
            raise XenError(Errno.EINVAL)
        if virq in VIRQS_OF_OTHERS:
            raise XenError(Errno.EBUSY)
        state = self.domain.find_vcpu(vcpu)
        if virq in state.virqs:
            raise XenError(Errno.EEXIST)
        port = self._open(Kind.VIRQ, vcpu=vcpu, virq=virq)
        state.virqs[virq] = port.number
        argument["port"] = port.number
        return 0

    @command(2)
    def bind_pirq(self, caller: Caller, pointer: int) -> int:
        """Physical interrupts come by the interrupt controllers."""
        raise XenError(Errno.EINVAL)

    @command(7)
    def bind_ipi(self, caller: Caller, pointer: int) -> int:
        """Open a port that is told to one vCPU, whoever sends."""
        argument = caller.load(BIND_IPI, pointer)
        self.domain.find_vcpu(argument["vcpu"])
        argument["port"] = self._open(Kind.IPI, vcpu=argument["vcpu"]).number
        return 0

    @command(8)
    def bind_vcpu(self, caller: Caller, pointer: int) -> int:
        """Choose the vCPU that is told."""
        argument = caller.load(BIND_VCPU, pointer)
        self.domain.find_vcpu(argument["vcpu"])
        port = self._find(argument["port"])
        if port.kind == Kind.IPI or (port.kind == Kind.VIRQ and port.virq in PER_VCPU_VIRQS):
            raise XenError(Errno.EINVAL)
        port.vcpu = argument["vcpu"]
        return 0

    @command(3)
    def close(self, caller: Caller, pointer: int) -> int:
        """Close a port; one that was bound to it waits for another."""
        self._close(self._find(caller.load(PORT, pointer)["port"]))
        return 0

    @command(10)
    def reset_ports(self, caller: Caller, pointer: int) -> int:
        """Close all, and go back to the two-level view."""
        self.domain.check_domid(caller.load(RESET, pointer)["dom"])
        for port in list(self._ports.values()):
            self._close(port)
        self._abi = TwoLevel(self.domain, self._upcalls)
        return 0

    # -- using them

    @command(4)
    def send(self, caller: Caller, pointer: int) -> int:
        """Send an event to the other end."""
        port = self._find(caller.load(PORT, pointer)["port"])
        if port.service is not None:
            port.service()
        elif port.kind == Kind.INTERDOMAIN and port.remote_domain == DOMID_OWN:
            self._set_pending(self._ports[port.remote_port])
        elif port.kind == Kind.IPI:
            self._set_pending(port)
        elif port.kind == Kind.VIRQ:
            raise XenError(Errno.EINVAL)
        return 0

    @command(5)
    def status(self, caller: Caller, pointer: int) -> int:
        """Tell what a port is bound to."""
        argument = caller.load(STATUS, pointer)
        self.domain.check_domid(argument["dom"])
        number = argument["port"]
        if not number < self._abi.max_ports:
            raise XenError(Errno.EINVAL)
        port = self._ports.get(number, Port(number, Kind.CLOSED))
        argument["status"], argument["vcpu"] = port.kind, port.vcpu
        if port.kind in (Kind.UNBOUND, Kind.INTERDOMAIN):
            argument["value"] = port.remote_domain
            argument["value2"] = port.remote_port
        elif port.kind == Kind.VIRQ:
            argument["value"] = port.virq
        return 0

    @command(9)
    def unmask(self, caller: Caller, pointer: int) -> int:
        """Unmask a port, and tell the guest if it is pending."""
        self._abi.unmask(self._find(caller.load(PORT, pointer)["port"]))
        return 0

    # -- queues

    @command(11)
    def init_control(self, caller: Caller, pointer: int) -> int:
        """Give a vCPU its queues. The first such call changes the guest over to them."""
        argument = caller.load(INIT_CONTROL, pointer)
        vcpu = argument["vcpu"]
        self.domain.find_vcpu(vcpu)
        argument["link_bits"] = LINK_BITS
        fifo = self._abi if isinstance(self._abi, Fifo) else Fifo(self.domain, self._upcalls)
        fifo.set_control_block(vcpu, argument["control_gfn"], argument["offset"])
        if fifo is not self._abi:
            for port in self._ports.values():
                port.is_waiting = self._abi.is_pending(port)
                port.priority = DEFAULT_PRIORITY
            self._abi = fifo
        return 0

    @command(12)
    def expand_array(self, caller: Caller, pointer: int) -> int:
        """Take one more page of event words."""
        argument = caller.load(EXPAND_ARRAY, pointer)
        self._fifo(Errno.EOPNOTSUPP).add_page(argument["array_gfn"], self._ports)
        return 0

    @command(13)
    def set_priority(self, caller: Caller, pointer: int) -> int:
        """Choose a port's queue: 0 is the most urgent."""
        argument = caller.load(SET_PRIORITY, pointer)
        self._fifo(Errno.ENOSYS)
        port = self._find(argument["port"])
        if argument["priority"] >= NUM_PRIORITIES:
            raise XenError(Errno.EINVAL)
        port.priority = argument["priority"]
        return 0

    def _fifo(self, otherwise: Errno) -> Fifo:
        if not isinstance(self._abi, Fifo):
            raise XenError(otherwise)
        return self._abi
