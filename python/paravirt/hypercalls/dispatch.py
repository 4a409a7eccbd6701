"""Dispatch: from a hypercall to the interface that answers it.

There is one instruction and there may be many interfaces. Those with one calling convention share a table of numbers.
Where there are several tables, each call is somebody's by the first of these that says so:

1. an interface claims it (`Interface.claims_call`): it was made from a page that the interface wrote, or carries its
   mark;
2. an interface routes it (`Interface.route_call`): the guest has selected a style;
3. the first interface that is ready for calls (`Interface.answers_unclaimed`), else the first of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from paravirt.errors import ConfigurationError, GuestFault, PlacementError
from paravirt.hypercalls.call_table import CallTable
from paravirt.hypercalls.registers import MASK64, RIP, Registers

if TYPE_CHECKING:
    from paravirt._native import Exit
    from paravirt.interfaces.base import Interface
    from paravirt.vcpu import Vcpu

__all__ = ["Call", "Dispatcher", "registers_of"]


class Call:
    """One hypercall, as interfaces see it that share the instruction with others or have a convention of their own.

    registers: those of `Exit.registers`, as 64-bit numbers. cpl: 0 to 3.
    """

    def __init__(self, vcpu: Vcpu, registers: Registers, is_64bit: bool, cpl: int) -> None:
        self.vcpu = vcpu
        self.registers = registers
        self.is_64bit = is_64bit
        self.cpl = cpl

    @cached_property
    def gpa(self) -> int | None:
        """Guest-physical address of the instruction."""
        return self.vcpu.translate(self.vcpu.linear_rip)


class Dispatcher:
    """Finds the interface that answers a hypercall, and lets it.

    Raises PlacementError if two interfaces claim the same number, or if nothing tells their calls apart;
    ConfigurationError if a handler's arguments cannot be passed.
    """

    def __init__(self, interfaces: Sequence[Interface], vcpus: Sequence[Vcpu]) -> None:
        self._interfaces = tuple(interfaces)
        self._vcpus = vcpus
        self._tables = _make_tables(interfaces)
        self._answerers = {
            id(interface): _answerer(interface, table) for table in self._tables for interface in table.interfaces
        }
        self._claimants = [interface for interface in interfaces if _overrides(interface, "claims_call")]
        self._routers = [interface for interface in interfaces if _overrides(interface, "route_call")]
        self._check_reachable()

    @property
    def is_empty(self) -> bool:
        """Whether no interface is there to answer: the instruction is then undefined, as without a hypervisor."""
        return not self._interfaces

    @property
    def owners(self) -> dict[int, Interface]:
        """Which interface answers which number; where several tables have a number, that of the first."""
        owners: dict[int, Interface] = {}
        for table in reversed(self._tables):
            owners.update(table.owners)
        return dict(sorted(owners.items()))

    def handler(self) -> Callable[[Exit], int | None]:
        """Return the function that completes a HYPERCALL exit: it gets the exit and returns the answer.

        None means that the guest got an exception instead.
        """
        if not self._interfaces:
            raise ConfigurationError("no interface to dispatch hypercalls to", option="interfaces")
        vcpus = self._vcpus
        answer = self._tables[0].answer if self._is_simple else self._arbitrate

        def dispatch(exit: Exit) -> int | None:
            return answer(vcpus[exit.vcpu], exit.registers, exit.mode == 64, exit.cpl)

        return dispatch

    def call(self, vcpu: Vcpu, registers: Registers, *, is_64bit: bool, cpl: int) -> int | None:
        """Carry out a hypercall that did not come as a native exit. Returns the result, 64 bits wide.

        None means that the guest got an exception instead.
        """
        answer = self._tables[0].answer if self._is_simple else self._arbitrate
        return answer(vcpu, registers, is_64bit, cpl)

    @property
    def _is_simple(self) -> bool:
        """Whether one table answers everything."""
        return len(self._tables) == 1 and not any(_overrides(self._interfaces[0], name) for name in _HOOKS)

    def _arbitrate(self, vcpu: Vcpu, registers: Registers, is_64bit: bool, cpl: int) -> int | None:
        call = Call(vcpu, registers, is_64bit, cpl)
        return self._answerers[id(self._find_owner(vcpu, call))](vcpu, call)

    def _find_owner(self, vcpu: Vcpu, call: Call) -> Interface:
        if len(self._interfaces) == 1:
            return self._interfaces[0]
        for interface in self._claimants:
            if interface.claims_call(vcpu, call):
                return interface
        for interface in self._routers:
            owner = interface.route_call(vcpu, call)
            if owner is not None:
                return owner
        for interface in self._interfaces:
            if interface.answers_unclaimed(vcpu):
                return interface
        return self._interfaces[0]

    def _check_reachable(self) -> None:
        """Raise PlacementError for a table whose calls nothing tells from those of the tables before it."""
        if self._routers:
            return
        certain = self._tables[0].interfaces if self._tables else ()
        if any(_overrides(interface, "answers_unclaimed") for interface in certain):
            return
        for table in self._tables[1:]:
            if not any(_overrides(interface, "claims_call") for interface in table.interfaces):
                raise PlacementError(
                    f"interfaces {certain[0].name!r} and {table.first.name!r} pass hypercalls in different registers,"
                    " and nothing tells their calls apart; use one of them",
                    resource="calling convention",
                    interfaces=(certain[0].name, table.first.name),
                )


_HOOKS = ("claims_call", "route_call", "answer_call")


def _overrides(interface: Interface, name: str) -> bool:
    from paravirt.interfaces.base import Interface

    return getattr(type(interface), name) is not getattr(Interface, name)


def _make_tables(interfaces: Sequence[Interface]) -> list[CallTable]:
    """One for each convention, in the order of its first interface; one more for each interface with its own ways."""
    groups: dict[object, list[Interface]] = {}
    for interface in interfaces:
        key = id(interface) if _overrides(interface, "answer_call") else interface.convention
        groups.setdefault(key, []).append(interface)
    return [CallTable(group) for group in groups.values()]


def _answerer(interface: Interface, table: CallTable) -> Callable[[Vcpu, Call], int | None]:
    if not _overrides(interface, "answer_call"):
        return lambda vcpu, call: table.answer(vcpu, call.registers, call.is_64bit, call.cpl)

    def answer(vcpu: Vcpu, call: Call) -> int | None:
        try:
            result = interface.answer_call(vcpu, call)
        except GuestFault as fault:
            vcpu.inject(fault.vector, fault.error_code)
            return None
        return None if result is None else result & MASK64

    return answer


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
