"""Dispatch: from a native hypercall to the handler that answers it.

This is the hot path; a call into a handler and back has about a microsecond. So everything that can be known when the
machine is built is bound then: a dict from number to a function that takes the vCPU and the registers, one for 64-bit
code and one for all other, and nothing is allocated here per call.

Interfaces with the same calling convention share the numbers: each number has one owner, and two that claim the same
are an error before start. The first interface's convention is the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from paravirt.errors import ConfigurationError, GuestFault, GuestPointerError, PlacementError
from paravirt.hypercalls.arguments import Converter, argument_annotations, converter_for
from paravirt.hypercalls.registers import MASK32, MASK64, RIP

if TYPE_CHECKING:
    from paravirt._native import Exit
    from paravirt.interfaces.base import HypercallEntry, Interface
    from paravirt.vcpu import Vcpu

__all__ = ["Dispatcher"]

Registers = tuple[int, int, int, int, int, int, int, int, int, int, int]
Call = Callable[["Vcpu", Registers], int | None]


class Dispatcher:
    """Finds the handler of a hypercall and calls it.

    Raises PlacementError if two interfaces claim the same number, ConfigurationError if a handler's arguments cannot be
    passed.
    """

    def __init__(self, interfaces: Sequence[Interface], vcpus: Sequence[Vcpu]) -> None:
        self._interfaces = tuple(interfaces)
        self._vcpus = vcpus
        self._entries = _claim_numbers(interfaces)
        self._wide = {number: _bind(entry, is_64bit=True) for number, entry in self._entries.items()}
        self._narrow = {
            number: _bind(entry, is_64bit=False) for number, entry in self._entries.items() if number <= MASK32
        }

    @property
    def is_empty(self) -> bool:
        """Whether no interface is there to answer: the instruction is then undefined, as without a hypervisor."""
        return not self._interfaces

    @property
    def owners(self) -> dict[int, Interface]:
        """Which interface answers which number."""
        return {number: entry.interface for number, entry in sorted(self._entries.items())}

    def handler(self) -> Callable[[Exit], int | None]:
        """Return the function that completes a HYPERCALL exit: it gets the exit and returns the answer.

        None means that the guest got an exception instead.
        """
        if not self._interfaces:
            raise ConfigurationError("no interface to dispatch hypercalls to", option="interfaces")
        wide, narrow, vcpus = self._wide, self._narrow, self._vcpus
        # Both number registers are RAX unless the convention says otherwise.
        convention = self._interfaces[0].convention
        number64, number32 = convention.number64, convention.number32

        def dispatch(exit: Exit) -> int | None:
            registers = exit.registers
            vcpu = vcpus[exit.vcpu]
            is_64bit = exit.mode == 64
            if exit.cpl:
                return self._call_from_user(vcpu, registers, is_64bit, exit.cpl)
            call = wide.get(registers[number64]) if is_64bit else narrow.get(registers[number32] & MASK32)
            if call is None:
                return self._unknown(vcpu, registers, is_64bit)
            try:
                result = call(vcpu, registers)
            except GuestPointerError:
                return self._bad_pointer(registers, is_64bit)
            except GuestFault as fault:
                vcpu.inject(fault.vector, fault.error_code)
                return None
            return 0 if result is None else result & MASK64

        return dispatch

    def call(self, vcpu: Vcpu, registers: Registers, *, is_64bit: bool, cpl: int) -> int | None:
        """Carry out a hypercall that did not come as a native exit. Returns the result, 64 bits wide.

        None means that the guest got an exception instead.
        """
        if cpl:
            return self._call_from_user(vcpu, registers, is_64bit, cpl)
        return self._call(vcpu, registers, is_64bit)

    def _call(self, vcpu: Vcpu, registers: Registers, is_64bit: bool) -> int | None:
        number = self._interfaces[0].convention.number(registers, is_64bit)
        call = (self._wide if is_64bit else self._narrow).get(number)
        if call is None:
            return self._unknown(vcpu, registers, is_64bit)
        try:
            result = call(vcpu, registers)
        except GuestPointerError:
            return self._bad_pointer(registers, is_64bit)
        except GuestFault as fault:
            vcpu.inject(fault.vector, fault.error_code)
            return None
        return 0 if result is None else result & MASK64

    def _call_from_user(self, vcpu: Vcpu, registers: Registers, is_64bit: bool, cpl: int) -> int | None:
        first = self._interfaces[0]
        entry = self._entries.get(first.convention.number(registers, is_64bit))
        if entry is None:
            return first.denied_call & MASK64
        if cpl > entry.max_cpl:
            return entry.interface.denied_call & MASK64
        return self._call(vcpu, registers, is_64bit)

    def _unknown(self, vcpu: Vcpu, registers: Registers, is_64bit: bool) -> int | None:
        first = self._interfaces[0]
        convention = first.convention
        try:
            return MASK64 & first.unknown_hypercall(
                vcpu, convention.number(registers, is_64bit), convention.arguments(registers, is_64bit)
            )
        except GuestPointerError:
            return first.bad_pointer & MASK64
        except GuestFault as fault:
            vcpu.inject(fault.vector, fault.error_code)
            return None

    def _bad_pointer(self, registers: Registers, is_64bit: bool) -> int:
        number = self._interfaces[0].convention.number(registers, is_64bit)
        return self._entries[number].interface.bad_pointer & MASK64


def _claim_numbers(interfaces: Sequence[Interface]) -> dict[int, HypercallEntry]:
    entries: dict[int, HypercallEntry] = {}
    for interface in interfaces:
        if interface.convention != interfaces[0].convention:
            raise PlacementError(
                f"interfaces {interfaces[0].name!r} and {interface.name!r} pass hypercalls in different registers;"
                " use one of them",
                resource="calling convention",
                interfaces=(interfaces[0].name, interface.name),
            )
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


def _bind(entry: HypercallEntry, *, is_64bit: bool) -> Call:
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
) -> Call:
    pairs = tuple(zip(positions, converters, strict=True))

    def call(vcpu: Vcpu, registers: Registers) -> int | None:
        arguments = [
            registers[position] if convert is None else convert(vcpu, registers[position])
            for position, convert in pairs
        ]
        result: int | None = handler(vcpu, *arguments)
        return result

    return call


def _bind_plain(handler: Callable[..., Any], positions: tuple[int, ...]) -> Call:
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


def _bind_narrow(handler: Callable[..., Any], positions: tuple[int, ...]) -> Call:
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


def registers_of(values: dict[str, int]) -> Registers:
    """Return a vCPU's registers in the order of `Exit.registers`."""
    return (
        values["rax"],
        values["rbx"],
        values["rcx"],
        values["rdx"],
        values["rsi"],
        values["rdi"],
        values["rbp"],
        values["r8"],
        values["r9"],
        values["r10"],
        values["rip"],
    )


assert RIP == 10, "registers_of follows Exit.registers"
