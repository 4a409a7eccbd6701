"""Exits: who handles which, and who watches.

A run is a loop over exits, and the engine's answer comes from a list of handlers by kind. Whoever traces or hooks a
kind wraps its handler when that is asked for, so an unwatched exit costs one list access and one call.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paravirt import _native
from paravirt._native import ExitKind
from paravirt.errors import ConfigurationError, GuestFault, PlacementError
from paravirt.host import GP_VECTOR
from paravirt.hypercalls.registers import MASK64
from paravirt.trace import TRACE_KINDS, Tracer, describe_access, describe_hypercall

if TYPE_CHECKING:
    from paravirt._native import Exit
    from paravirt.interfaces.base import Interface, MsrEntry
    from paravirt.vcpu import Vcpu

__all__ = ["ExitHandler", "ExitRouter", "Hook"]

ExitHandler = Callable[["Exit"], int | None]
"""Completes an exit. Returns the answer; None if there is none to give, or it has been given."""

HookFunction = Callable[["Vcpu", "Exit"], object]

_KINDS: dict[str, tuple[int, ...]] = {
    "hypercall": (ExitKind.HYPERCALL,),
    "exception": (ExitKind.EXCEPTION,),
    "port": (ExitKind.PORT_READ, ExitKind.PORT_WRITE),
    "mmio": (ExitKind.MMIO_READ, ExitKind.MMIO_WRITE),
    "msr": (ExitKind.MSR_READ, ExitKind.MSR_WRITE),
    "cpuid": (ExitKind.CPUID,),
    "halt": (ExitKind.HALT,),
}
"""What can be watched, and the exits that it consists of."""

NUM_KINDS = ExitKind.CONSOLE_TEXT + 1
WRITES = frozenset((ExitKind.PORT_WRITE, ExitKind.MMIO_WRITE, ExitKind.MSR_WRITE))

MAX_PORT = 0xFFFF
MAX_MSR = 0xFFFF_FFFF
MMIO_BASE, MMIO_LENGTH = 0xC000_0000, 0x4000_0000
"""The hole for devices below 4 GiB."""
NUM_EXCEPTIONS = 32


@dataclass(frozen=True, slots=True)
class _Service:
    """Handlers of a range, bounds inclusive, of ports, MSRs or device memory."""

    owner: str
    first: int
    last: int
    read: Callable[..., Any] | None
    write: Callable[..., Any] | None


class _ServiceTable:
    """Finds the service of an address. Ranges do not overlap."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._services: list[_Service] = []
        self._firsts: list[int] = []

    def add(self, service: _Service) -> None:
        """Raises PlacementError if somebody else serves a part of it."""
        position = bisect_right(self._firsts, service.last)
        if position and self._services[position - 1].last >= service.first:
            other = self._services[position - 1]
            raise PlacementError(
                f"{other.owner!r} and {service.owner!r} both claim {self._what} {max(service.first, other.first):#x}",
                resource=f"{self._what} {max(service.first, other.first):#x}",
                interfaces=(other.owner, service.owner),
            )
        position = bisect_right(self._firsts, service.first)
        self._services.insert(position, service)
        self._firsts.insert(position, service.first)

    def find(self, address: int) -> _Service | None:
        position = bisect_right(self._firsts, address) - 1
        if position >= 0 and address <= self._services[position].last:
            return self._services[position]
        return None

    def __iter__(self) -> Iterator[_Service]:
        return iter(self._services)


class Hook:
    """A function that watches exits of one kind, until it is removed."""

    def __init__(self, router: ExitRouter, kind: str, function: HookFunction) -> None:
        self._router = router
        self.kind = kind
        self.function = function

    def remove(self) -> None:
        """Watch no longer. Does nothing the second time."""
        self._router.remove_hook(self)

    def __repr__(self) -> str:
        return f"<Hook {self.kind} {self.function!r}>"


class ExitRouter:
    """The handlers of a machine's exits, and everything served above the engine."""

    def __init__(self, vm: _native.Vm, vcpus: Sequence[Vcpu], tracer: Tracer | None) -> None:
        self._vm = vm
        self._vcpus = vcpus
        self._tracer = tracer
        self._traced = tracer.kinds if tracer is not None else frozenset[str]()
        self._hooks: list[Hook] = []
        self._ports = _ServiceTable("port")
        self._mmio = _ServiceTable("device memory at")
        self._msrs = _ServiceTable("MSR")
        self._msr_watchers: dict[int, list[Callable[[Vcpu], object]]] = {}
        self._plain: list[ExitHandler] = [self._pass_on] * NUM_KINDS
        self._plain[ExitKind.PORT_READ] = self._port_read
        self._plain[ExitKind.PORT_WRITE] = self._port_write
        self._plain[ExitKind.MMIO_READ] = self._mmio_read
        self._plain[ExitKind.MMIO_WRITE] = self._mmio_write
        self._plain[ExitKind.MSR_READ] = self._msr_read
        self._plain[ExitKind.MSR_WRITE] = self._msr_write
        self.handlers: list[ExitHandler] = list(self._plain)
        """By kind of exit. The list stays the same one; its items change when somebody starts to watch."""
        self._exceptions: frozenset[int] = frozenset()
        self._passed_on: int | None = None
        self.refresh()

    # -- configuration

    def set_handler(self, kind: int, handler: ExitHandler) -> None:
        """Say who handles a kind of exit."""
        self._plain[kind] = handler
        self._wrap_handlers()

    def set_exceptions(self, vectors: frozenset[int]) -> None:
        """Say which exceptions exit for the machine's own sake."""
        self._exceptions = vectors
        self.refresh()

    def serve_msrs(self, interface: Interface) -> None:
        """Serve an interface's MSRs. Raises PlacementError if another has one of them."""
        by_range: dict[tuple[int, int], dict[bool, MsrEntry]] = {}
        for entry in interface.msrs():
            by_range.setdefault((entry.first, entry.last), {})[entry.write] = entry
        for (first, last), entries in sorted(by_range.items()):
            read, write = (_bind_msr(entries[way]) if way in entries else None for way in (False, True))
            self._msrs.add(_Service(interface.name, first, last, read, write))
        self.refresh()

    def watch_msr(self, index: int, function: Callable[[Vcpu], object]) -> None:
        """Call `function(vcpu)` after each WRMSR to an MSR: of whoever serves it, else of the CPU or the board."""
        self._msr_watchers.setdefault(index, []).append(function)
        if self._msrs.find(index) is None:
            self._msrs.add(_Service("the machine", index, index, _read_own_msr, _write_own_msr))
            self.refresh()

    def serve_ports(
        self, owner: str, first: int, last: int, read: Callable[..., int] | None, write: Callable[..., None] | None
    ) -> None:
        """Serve I/O ports first..=last: `read(vcpu, port, size)`, `write(vcpu, port, size, value)`."""
        if not 0 <= first <= last <= MAX_PORT:
            raise ConfigurationError(f"ports {first:#x} to {last:#x} are no range within 0 to 0xffff", option="ports")
        self._ports.add(_Service(owner, first, last, read, write))
        self.refresh()

    def serve_mmio(
        self, owner: str, gpa: int, length: int, read: Callable[..., int] | None, write: Callable[..., None] | None
    ) -> None:
        """Serve device memory: `read(vcpu, gpa, size)`, `write(vcpu, gpa, size, value)`."""
        if gpa < 0 or length <= 0 or gpa + length > 1 << 52:
            raise ConfigurationError(
                f"device memory of {length} bytes at {gpa:#x} is no range of addresses", option="gpa"
            )
        self._mmio.add(_Service(owner, gpa, gpa + length - 1, read, write))
        self.refresh()

    def add_hook(self, kind: str, function: HookFunction) -> Hook:
        """Call `function(vcpu, exit)` before each exit of a kind is handled."""
        if kind not in _KINDS:
            raise ConfigurationError(
                f"unknown exit kind {kind!r}; known: {', '.join(_KINDS)}", option="kind", value=kind
            )
        hook = Hook(self, kind, function)
        self._hooks.append(hook)
        self.refresh()
        return hook

    def remove_hook(self, hook: Hook) -> None:
        """Take a hook away, if it is there."""
        if hook in self._hooks:
            self._hooks.remove(hook)
            self.refresh()

    def refresh(self) -> None:
        """Bring claims, interceptions and wrapped handlers in line with what is served and watched now."""
        watched = self._traced | {hook.kind for hook in self._hooks}
        vm = self._vm
        vm.intercept_cpuid("cpuid" in watched)
        vm.intercept_halt("halt" in watched)
        for vector in range(NUM_EXCEPTIONS):
            vm.intercept_exception(vector, "exception" in watched or vector in self._exceptions)
        self._claim("port" in watched, self._ports, vm.claim_ports, vm.release_ports, MAX_PORT)
        self._claim("msr" in watched, self._msrs, vm.claim_msrs, vm.release_msrs, MAX_MSR)
        vm.release_mmio(MMIO_BASE, MMIO_LENGTH)
        if "mmio" in watched:
            vm.claim_mmio(MMIO_BASE, MMIO_LENGTH)
        for service in self._mmio:
            vm.claim_mmio(service.first, service.last - service.first + 1)
        self._wrap_handlers()

    def _wrap_handlers(self) -> None:
        """Put whoever watches around the handlers."""
        self.handlers[:] = self._plain
        for kind in TRACE_KINDS:
            for number in _KINDS.get(kind, ()):
                self.handlers[number] = self._watch(kind, number, self.handlers[number])

    @staticmethod
    def _claim(
        everything: bool,
        table: _ServiceTable,
        claim: Callable[[int, int], None],
        release: Callable[[int, int], None],
        last: int,
    ) -> None:
        release(0, last)
        if everything:
            claim(0, last)
        for service in table:
            claim(service.first, service.last)

    # -- watching

    def _watch(self, kind: str, number: int, handler: ExitHandler) -> ExitHandler:
        hooks = tuple(hook.function for hook in self._hooks if hook.kind == kind)
        if hooks:
            handler = self._with_hooks(hooks, handler)
        if self._tracer is not None and kind in self._traced:
            handler = self._with_trace(self._tracer, kind, number, handler)
        return handler

    def _with_hooks(self, hooks: tuple[HookFunction, ...], handler: ExitHandler) -> ExitHandler:
        vcpus = self._vcpus

        def hooked(exit: Exit) -> int | None:
            vcpu = vcpus[exit.vcpu]
            for function in hooks:
                function(vcpu, exit)
            return handler(exit)

        return hooked

    def _with_trace(self, tracer: Tracer, kind: str, number: int, handler: ExitHandler) -> ExitHandler:
        describe = _DESCRIPTIONS.get(kind)
        now_ns = self._vm.now_ns

        def traced(exit: Exit) -> int | None:
            self._passed_on = None
            answer = handler(exit)
            outcome = self._passed_on if answer is None else answer
            text = (
                describe_access(exit, outcome, write=number in WRITES) if describe is None else describe(exit, outcome)
            )
            tracer.emit(now_ns(), exit.vcpu, kind, text)
            return answer

        return traced

    # -- handling

    def _pass_on(self, _exit: Exit) -> None:
        """Let the engine or the board do what it would have done unasked."""
        self._passed_on = self._vm.answer_default()

    def _port_read(self, exit: Exit) -> int | None:
        return self._read(self._ports.find(exit.address), exit)

    def _port_write(self, exit: Exit) -> int | None:
        return self._write(self._ports.find(exit.address), exit)

    def _mmio_read(self, exit: Exit) -> int | None:
        return self._read(self._mmio.find(exit.address), exit)

    def _mmio_write(self, exit: Exit) -> int | None:
        return self._write(self._mmio.find(exit.address), exit)

    def _read(self, service: _Service | None, exit: Exit) -> int | None:
        if service is None:
            self._pass_on(exit)
            return None
        mask = (1 << 8 * exit.size) - 1
        if service.read is None:
            return mask  # Nothing drives the bus.
        try:
            value: int = service.read(self._vcpus[exit.vcpu], exit.address, exit.size)
        except GuestFault as fault:
            self._fault(exit, fault)
            return None
        return value & mask

    def _write(self, service: _Service | None, exit: Exit) -> int | None:
        if service is None:
            self._pass_on(exit)
            return None
        if service.write is not None:
            try:
                service.write(self._vcpus[exit.vcpu], exit.address, exit.size, exit.value)
            except GuestFault as fault:
                self._fault(exit, fault)
                return None
        return 0

    def _msr_read(self, exit: Exit) -> int | None:
        service = self._msrs.find(exit.address)
        if service is None:
            self._pass_on(exit)
            return None
        if service.read is None:
            self._vm.answer_fault()
            return None
        try:
            value: int = service.read(self._vcpus[exit.vcpu], exit.address)
        except GuestFault as fault:
            self._fault(exit, fault)
            return None
        return value & MASK64

    def _msr_write(self, exit: Exit) -> int | None:
        service = self._msrs.find(exit.address)
        if service is None:
            self._pass_on(exit)
            return None
        if service.write is None:
            self._vm.answer_fault()
            return None
        try:
            service.write(self._vcpus[exit.vcpu], exit.address, exit.value)
        except GuestFault as fault:
            self._fault(exit, fault)
            return None
        for watcher in self._msr_watchers.get(exit.address, ()):
            watcher(self._vcpus[exit.vcpu])
        return 0

    def _fault(self, exit: Exit, fault: GuestFault) -> None:
        if (fault.vector, fault.error_code) == (GP_VECTOR, 0):
            self._vm.answer_fault()
        else:
            self._vm.inject_exception(exit.vcpu, fault.vector, fault.error_code)


def _read_own_msr(vcpu: Vcpu, index: int) -> int:
    try:
        return vcpu.rdmsr(index)
    except KeyError:
        raise GuestFault from None


def _write_own_msr(vcpu: Vcpu, index: int, value: int) -> None:
    try:
        vcpu.wrmsr(index, value)
    except KeyError:
        raise GuestFault from None


def _bind_msr(entry: MsrEntry) -> Callable[..., Any]:
    """Return `handler(vcpu, index[, value])` for a method that may not want the index."""
    handler = entry.handler
    if entry.with_index:
        return handler
    if entry.write:
        return lambda vcpu, _index, value: handler(vcpu, value)
    return lambda vcpu, _index: handler(vcpu)


def _describe_cpuid(exit: Exit, _answer: int | None) -> str:
    return f"leaf {exit.address:#x} subleaf {exit.value:#x}"


def _describe_exception(exit: Exit, _answer: int | None) -> str:
    return f"vector {exit.address}" + (f" error code {exit.value:#x}" if exit.has_error_code else "")


_DESCRIPTIONS: dict[str, Callable[[Exit, int | None], str]] = {
    "hypercall": describe_hypercall,
    "cpuid": _describe_cpuid,
    "exception": _describe_exception,
    "halt": lambda _exit, _answer: "hlt",
}
