"""Tracing: one line for each event of the kinds that were asked for.

A machine without a tracer runs handlers that know nothing of tracing, so what is off costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

from paravirt.errors import ConfigurationError

if TYPE_CHECKING:
    from paravirt._native import Exit
    from paravirt.hypercalls.fixup import FixUp

__all__ = ["TRACE_KINDS", "Tracer", "parse_trace_kinds"]

TRACE_KINDS = ("hypercall", "fixup", "msr", "cpuid", "port", "mmio", "halt", "exception")
"""What can be traced. `msr`, `port` and `mmio` mean every access, also to what the board serves by itself."""

_GROUPS = {"exit": ("cpuid", "port", "mmio", "halt", "exception"), "all": TRACE_KINDS}


def parse_trace_kinds(kinds: str | Iterable[str]) -> frozenset[str]:
    """Return the kinds named, as `"hypercall,msr"` or a list; `exit` and `all` stand for several.

    Raises ConfigurationError for a kind that does not exist.
    """
    names = kinds.split(",") if isinstance(kinds, str) else list(kinds)
    chosen: set[str] = set()
    for name in names:
        name = name.strip()
        if name not in TRACE_KINDS and name not in _GROUPS:
            known = ", ".join((*TRACE_KINDS, *_GROUPS))
            raise ConfigurationError(f"unknown trace kind {name!r}; known: {known}", option="trace", value=name)
        chosen.update(_GROUPS.get(name, (name,)))
    return frozenset(chosen)


class Tracer:
    """Writes a line per event to a text stream.

    kinds: as `parse_trace_kinds`. Subclass and override `emit` to do something else with the events. An error of the
    stream (a full disk) comes out of `Machine.run`.
    """

    def __init__(self, stream: IO[str], kinds: str | Iterable[str] = "hypercall,fixup") -> None:
        self._stream = stream
        self.kinds = parse_trace_kinds(kinds)

    def emit(self, time_ns: int, vcpu: int, kind: str, text: str) -> None:
        """Write one event. time_ns is virtual time."""
        self._stream.write(f"{time_ns / 1e9:14.9f} cpu{vcpu} {kind:<9} {text}\n")

    def flush(self) -> None:
        """Called when a run ends."""
        self._stream.flush()


def describe_hypercall(exit: Exit, answer: int | None) -> str:
    """Say what a hypercall asked and got."""
    rax, rbx, rcx, rdx, rsi, *_, rip = exit.registers
    result = "no result" if answer is None else f"{answer:#x}"
    return (
        f"nr {rax:#x} rbx {rbx:#x} rcx {rcx:#x} rdx {rdx:#x} rsi {rsi:#x}"
        f" rip {rip:#x} cpl {exit.cpl} {exit.mode}-bit -> {result}"
    )


def describe_fixup(fixup: FixUp) -> str:
    """Say what was done with a foreign hypercall instruction."""
    where = f"{fixup.rip:#x}" + (f" <{fixup.symbol}>" if fixup.symbol else "")
    change = fixup.found.hex(" ") + (f" -> {fixup.replaced.hex(' ')}" if fixup.replaced else "")
    return f"{fixup.action} at {where} gpa {fixup.gpa:#x}: {change}"


def describe_access(exit: Exit, outcome: int | None, *, write: bool) -> str:
    """Say what a port, MMIO or MSR access was and what was read; outcome None means that the guest got a fault."""
    size = f" size {exit.size}" if exit.size else ""
    fault = " faults" if outcome is None else ""
    if write:
        return f"write {exit.address:#x}{size} <- {exit.value:#x}{fault}"
    return f"read {exit.address:#x}{size}{fault}" + ("" if outcome is None else f" -> {outcome:#x}")
