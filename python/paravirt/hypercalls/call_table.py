"""Call tables: which handler answers which hypercall number, for interfaces that share a calling convention.

This is the hot path; a call into a handler and back has about a microsecond. So everything that can be known when the
machine is built is bound then: a dict from number to a function that takes the vCPU and the registers, one for 64-bit
code and one for all other, and nothing is allocated here per call.

Each number has one owner, and two interfaces that claim the same are an error before start. Calls that nobody owns go
to the first interface of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from paravirt.errors import ConfigurationError, GuestFault, GuestPointerError, PlacementError
from paravirt.hypercalls.arguments import Converter, argument_annotations, converter_for
from paravirt.hypercalls.registers import MASK32, MASK64, Registers

if TYPE_CHECKING:
    from paravirt.interfaces.base import HypercallEntry, Interface
    from paravirt.vcpu import Vcpu

__all__ = ["CallTable"]

BoundCall = Callable[["Vcpu", Registers], int | None]


class CallTable:
    """The hypercalls of interfaces with one convention.

    Raises PlacementError if two of them claim the same number, ConfigurationError if a handler's arguments cannot be
    passed.
    """

    def __init__(self, interfaces: Sequence[Interface]) -> None:
        self.interfaces = tuple(interfaces)
        self.first = interfaces[0]
        self._number64 = self.first.convention.number64
        self._number32 = self.first.convention.number32
        self._entries = _claim_numbers(interfaces)
        self._wide = {number: _bind(entry, is_64bit=True) for number, entry in self._entries.items()}
        self._narrow = {
            number: _bind(entry, is_64bit=False) for number, entry in self._entries.items() if number <= MASK32
        }

    @property
    def owners(self) -> dict[int, Interface]:
        """Which interface answers which number."""
        return {number: entry.interface for number, entry in sorted(self._entries.items())}

    def answer(self, vcpu: Vcpu, registers: Registers, is_64bit: bool, cpl: int) -> int | None:
        """Carry out a call. Returns the result, 64 bits wide; None if the guest got an exception instead."""
        if is_64bit:
            number = registers[self._number64]
            call = self._wide.get(number)
        else:
            number = registers[self._number32] & MASK32
            call = self._narrow.get(number)
        if cpl and (denied := self._denied(number, cpl)) is not None:
            return denied
        try:
            if call is None:
                arguments = self.first.convention.arguments(registers, is_64bit)
                result: int | None = self.first.unknown_hypercall(vcpu, number, arguments)
            else:
                result = call(vcpu, registers)
        except GuestPointerError:
            return MASK64 & (self.first if call is None else self._entries[number].interface).bad_pointer
        except GuestFault as fault:
            vcpu.inject(fault.vector, fault.error_code)
            return None
        return 0 if result is None else result & MASK64

    def _denied(self, number: int, cpl: int) -> int | None:
        """The result for a caller that is not privileged enough; None if it is."""
        entry = self._entries.get(number)
        if entry is None:
            return self.first.denied_call & MASK64
        return entry.interface.denied_call & MASK64 if cpl > entry.max_cpl else None


def _claim_numbers(interfaces: Sequence[Interface]) -> dict[int, HypercallEntry]:
    entries: dict[int, HypercallEntry] = {}
    for interface in interfaces:
        for entry in interface.hypercalls():
            other = entries.get(entry.number)
            if other is None or (other.overridable and other.interface is not interface):
                entries[entry.number] = entry
            elif not entry.overridable:
                raise _number_conflict(other, entry)
    return entries


def _number_conflict(one: HypercallEntry, other: HypercallEntry) -> PlacementError:
    return PlacementError(
        f"interfaces {one.interface.name!r} and {other.interface.name!r} both claim hypercall {other.number:#x};"
        " give one of them another number",
        resource=f"hypercall {other.number:#x}",
        interfaces=(one.interface.name, other.interface.name),
    )


def _bind(entry: HypercallEntry, *, is_64bit: bool) -> BoundCall:
    """Return a function from registers to the handler's result, as direct as the handler's arguments allow."""
    convention = entry.interface.convention
    positions = convention.arguments64 if is_64bit else convention.arguments32
    annotations = argument_annotations(entry.handler)
    if len(annotations) > len(positions):
        raise ConfigurationError(
            f"hypercall {entry.number:#x} of {entry.interface.name!r} takes {len(annotations)} arguments;"
            f" convention {convention.name!r} passes {len(positions)}"
        )
    converters = [converter_for(annotation, is_64bit=is_64bit) for annotation in annotations]
    positions = positions[: len(converters)]
    if not any(converters):
        return _bind_plain(entry.handler, positions)
    if not is_64bit and all(annotation is int for annotation in annotations):
        return _bind_narrow(entry.handler, positions)
    return _bind_converted(entry.handler, positions, converters)


def _bind_converted(
    handler: Callable[..., Any], positions: tuple[int, ...], converters: Sequence[Converter | None]
) -> BoundCall:
    pairs = tuple(zip(positions, converters, strict=True))

    def call(vcpu: Vcpu, registers: Registers) -> int | None:
        arguments = [
            registers[position] if convert is None else convert(vcpu, registers[position])
            for position, convert in pairs
        ]
        result: int | None = handler(vcpu, *arguments)
        return result

    return call


def _bind_plain(handler: Callable[..., Any], positions: tuple[int, ...]) -> BoundCall:
    # Written out, because building an argument list costs as much as the rest of the call.
    match positions:
        case ():
            return lambda vcpu, _registers: handler(vcpu)
        case (a,):
            return lambda vcpu, registers: handler(vcpu, registers[a])
        case (a, b):
            return lambda vcpu, registers: handler(vcpu, registers[a], registers[b])
        case (a, b, c):
            return lambda vcpu, registers: handler(vcpu, registers[a], registers[b], registers[c])
        case (a, b, c, d):
            return lambda vcpu, registers: handler(vcpu, registers[a], registers[b], registers[c], registers[d])
    return lambda vcpu, registers: handler(vcpu, *(registers[position] for position in positions))


def _bind_narrow(handler: Callable[..., Any], positions: tuple[int, ...]) -> BoundCall:
    """As `_bind_plain`, with registers 32 bits wide."""
    mask = MASK32
    match positions:
        case (a,):
            return lambda vcpu, registers: handler(vcpu, registers[a] & mask)
        case (a, b):
            return lambda vcpu, registers: handler(vcpu, registers[a] & mask, registers[b] & mask)
        case (a, b, c):
            return lambda vcpu, registers: handler(vcpu, registers[a] & mask, registers[b] & mask, registers[c] & mask)
    return lambda vcpu, registers: handler(vcpu, *[registers[position] & mask for position in positions])
