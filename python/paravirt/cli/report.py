"""What `paravirt run` says at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paravirt.result import StopReason
from paravirt.status import describe_address, describe_places

if TYPE_CHECKING:
    from paravirt.machine import Machine
    from paravirt.result import Result
    from paravirt.vcpu import Vcpu

_GENERAL_REGISTERS = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
)
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr")
LAST_LINES = 40
"""Enough for the trace of a kernel panic."""
_SYSTEM_REGISTERS = ("cr0", "cr2", "cr3", "cr4", "efer", "dr6", "dr7")


def describe_end(machine: Machine, result: Result) -> str:
    """Say why the run ended, in lines; nothing if the guest ended it on purpose."""
    match result.reason:
        case StopReason.TRIPLE_FAULT:
            return describe_triple_fault(machine, machine.vcpus[result.vcpu or 0])
        case StopReason.CRASH:
            return f"paravirt: the guest has crashed: {result.message or 'it does not say why'}\n"
        case StopReason.HALTED:
            return "paravirt: the guest is halted and nothing can wake it\n" + describe_places(machine)
        case StopReason.MAX_INSTRUCTIONS:
            return f"paravirt: stopped after {result.instructions:,} instructions\n" + describe_places(machine)
        case StopReason.TIMEOUT:
            return f"paravirt: stopped after {result.wall_s:.1f} s\n" + describe_places(machine)
        case StopReason.RESET:
            return "paravirt: the guest asked for a reset\n"
        case _:
            return ""


def describe_last_lines(machine: Machine) -> str:
    """Return the last lines of the guest's console, for a user who has not seen them."""
    text = machine.console.recent.decode("utf-8", "replace").replace("\r\n", "\n")
    lines = [_printable(line) for line in text.splitlines()[-LAST_LINES:]]
    return "".join(f"  {line}\n" for line in ["the last lines of its console:", *lines])


def _printable(line: str) -> str:
    """Without what a terminal would act upon: a guest must not be able to type into the user's."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def describe_triple_fault(machine: Machine, vcpu: Vcpu) -> str:
    """Say what a triple fault left: the CPU's registers, and how it came there."""
    lines = [f"paravirt: triple fault on cpu{vcpu.index} at {describe_address(machine, vcpu.linear_rip)}"]
    lines += ["  " + line for line in describe_registers(vcpu)]
    blocks = vcpu.recent_blocks()
    if blocks:
        lines.append(f"last blocks of cpu{vcpu.index}, the latest at the end:")
    for address, length, instructions in blocks:
        lines.append(f"  {describe_address(machine, address)}: {instructions} instructions, {length} bytes")
    return "\n".join(lines) + "\n"


def describe_registers(vcpu: Vcpu) -> list[str]:
    """Show a vCPU's registers as lines."""
    registers = vcpu.registers
    lines = [f"rip {registers['rip']:016x}  rflags {registers['rflags']:08x}  cpl {vcpu.cpl}"]
    lines += ["  ".join(f"{name:<3} {registers[name]:016x}" for name in row) for row in _GENERAL_REGISTERS]
    for name in _SEGMENTS:
        base, limit, attributes = (registers[f"{name}_{part}"] for part in ("base", "limit", "attributes"))
        lines.append(
            f"{name:<4} {registers[name]:04x}  base {base:016x}  limit {limit:08x}  attributes {attributes:04x}"
        )
    for name in ("gdtr", "idtr"):
        lines.append(f"{name:<10} base {registers[name + '_base']:016x}  limit {registers[name + '_limit']:08x}")
    lines.append("  ".join(f"{name} {registers[name]:x}" for name in _SYSTEM_REGISTERS))
    return lines


def describe_statistics(result: Result) -> str:
    """Show what `--stats` asks for."""
    mips = result.instructions / result.wall_s / 1e6 if result.wall_s else 0.0
    rows = [
        ("engine", result.engine),
        ("ended by", str(result.reason)),
        ("instructions", f"{result.instructions:,}"),
        ("fix-ups", f"{result.fixups:,}"),
        ("guest time", f"{result.virtual_ns / 1e9:.6f} s"),
        ("wall time", f"{result.wall_s:.6f} s, {mips:,.1f} million instructions per second"),
        *((f"exits: {kind}", f"{count:,}") for kind, count in sorted(result.exits.items()) if count),
    ]
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  {value}\n" for name, value in rows)


def result_as_dict(machine: Machine, result: Result) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "reason": str(result.reason),
        "status": result.status,
        "debug_exit": result.debug_exit,
        "message": result.message,
        "engine": result.engine,
        "host": str(machine.host),
        "instructions": result.instructions,
        "exits": dict(result.exits),
        "virtual_ns": result.virtual_ns,
        "wall_s": result.wall_s,
        "fixups": [
            {
                "vcpu": fixup.vcpu,
                "rip": fixup.rip,
                "gpa": fixup.gpa,
                "symbol": fixup.symbol,
                "action": fixup.action,
                "found": fixup.found.hex(),
                "replaced": fixup.replaced.hex() if fixup.replaced else None,
                "time_ns": fixup.time_ns,
            }
            for fixup in machine.fixups
        ],
    }
