"""What recorded chips did, repeated on the software CPU, and what no CPU of today does as they did.

Each difference is a rule with its reason. A rule either leaves a case out, or says what to expect instead; a case to
which no rule applies must end as on the chip: every register and byte of memory, every flag that the case defines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paravirt as pv
from paravirt._native import ExitKind

from .moo import Case

SEGMENTS = ("cs", "ss", "ds", "es")
WIDE = {name: f"r{name}" for name in ("ax", "bx", "cx", "dx", "sp", "bp", "si", "di")}
PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0xF0, 0xF1, 0xF2, 0xF3})
LOCK, REPNE, REP = 0xF0, 0xF2, 0xF3
STRINGS = frozenset({*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)})
INDEXED_BY = {
    "si": frozenset({0x6E, 0x6F, *range(0xA4, 0xA8), 0xAC, 0xAD}),
    "di": frozenset({0x6C, 0x6D, *range(0xA4, 0xA8), 0xAA, 0xAB, 0xAE, 0xAF}),
}
PUSHES_FLAGS = {0x9C: 0, 0xCC: 4, 0xCD: 4, 0xCE: 4}
"""Where they are above the new stack pointer."""
MAY_DIVIDE = frozenset({"D4", "F6.6", "F6.7", "F7.6", "F7.7"})
DIRECTION_FLAG = 0x400
STATUS_FLAGS = 0x8D5
FLAGS = 0xFFF
"""IOPL and NT were not there on an 8086, and could not be set in real mode on a 286 (SDM vol. 3 section 23.2)."""
HLT = 0xF4
STACK_FAULT, GENERAL_PROTECTION = 12, 13
MAX_STEPS = 1000
"""More elements than any recorded string instruction has."""


@dataclass(frozen=True)
class Chip:
    """A directory of recordings."""

    directory: Path
    name: str
    opcodes: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> Chip:
        metadata = json.loads((directory / "metadata.json").read_text())
        return cls(directory, metadata["cpu"], metadata["opcodes"])

    @property
    def is_8086(self) -> bool:
        return self.name in {"8086", "8088"}

    def describe(self, form: str) -> dict[str, Any]:
        """Return what the recordings say of an opcode such as `80.3`, opcode and ModRM.reg."""
        opcode, _, extension = form.partition(".")
        entry: dict[str, Any] = self.opcodes[opcode]
        extensions = entry.get("reg", {})
        return dict(extensions.get(extension, entry))

    def defined_flags(self, form: str) -> int:
        """Return the flags that the instruction defines."""
        if form in {"F6.6", "F6.7", "F7.6", "F7.7"}:
            return FLAGS & ~STATUS_FLAGS  # DIV and IDIV define none.
        mask = int(self.describe(form).get("flags-mask", 0xFFFF))
        if form.split(".")[0] in {"C0", "C1", "D2", "D3"}:
            mask &= ~0x800  # OF is defined for counts of 1 only.
        return mask & FLAGS


@dataclass(frozen=True)
class Instruction:
    """The prefixes and the first byte behind them."""

    prefixes: bytes
    opcode: int
    modrm: int

    @classmethod
    def of(cls, case: Case) -> Instruction:
        start = next((i for i, byte in enumerate(case.code) if byte not in PREFIXES), 0)
        modrm = case.code[start + 1] if start + 1 < len(case.code) else 0
        return cls(case.code[:start], case.code[start], modrm)

    @property
    def repeats(self) -> bool:
        return self.opcode in STRINGS and (REP in self.prefixes or REPNE in self.prefixes)

    @property
    def extension(self) -> int:
        return self.modrm >> 3 & 7


def wraps_in_segment(case: Case) -> bool:
    """Whether the bytes at both ends of a segment are touched."""
    touched = case.initial.memory.keys() | case.final.memory.keys()
    bases = {(case.initial.registers | case.final.registers)[name] << 4 for name in SEGMENTS}
    bases |= {case.initial.registers["cs"] << 4}
    return any((base + 0xFFFF) % (1 << 20) in touched and base % (1 << 20) in touched for base in bases)


MISREAD = {("CD", 2044), ("CE", 1193), ("FF.3", 1141)}
"""Recordings of the 286 in which SS was pushed for CS; in thousands of the same instructions it was CS."""


@dataclass(frozen=True)
class LeftOut:
    """Cases that mean another thing today."""

    reason: str
    applies: Callable[[Chip, str, Case, Instruction], bool]


LEFT_OUT = (
    LeftOut(
        "LOCK is #UD unless a lockable instruction writes to memory (SDM vol. 2 LOCK, vol. 3 section 23.17.3)",
        lambda chip, form, case, instruction: bool({0xF0, 0xF1} & set(instruction.prefixes)),
    ),
    LeftOut(
        "instructions may have 15 bytes, on a 286 they had 10 (SDM vol. 3 section 23.25)",
        lambda chip, form, case, instruction: (
            chip.name == "286"
            and (len(case.code) - 1 > 10 or (case.name == "(bad)" and case.exception == GENERAL_PROTECTION))
        ),
    ),
    LeftOut(
        "FS and GS came with the 386 (SDM vol. 3 section 23.14)",
        lambda chip, form, case, instruction: form in {"8C", "8E"} and instruction.extension >= 4,
    ),
    LeftOut(
        "no coprocessor sat beside the recorded chip, so that ESC did nothing",
        lambda chip, form, case, instruction: 0xD8 <= instruction.opcode <= 0xDF,
    ),
    LeftOut(
        "opcodes that only an 8086 executes, or executes as others (SDM vol. 3 section 23.15)",
        lambda chip, form, case, instruction: (
            chip.is_8086
            and (
                chip.describe(form).get("status", "normal") not in {"normal", "alias"}
                or form in {"C0", "C1", "C8", "C9", "F1", "FF.7"}
                or 0x60 <= instruction.opcode <= 0x6F
                or (form in {"8F", "C6", "C7"} and instruction.extension != 0)
            )
        ),
    ),
    LeftOut(
        "an 8086 does not mask shift counts to 5 bits (SDM vol. 2 SAL/SAR/SHL/SHR, IA-32 Architecture Compatibility)",
        lambda chip, form, case, instruction: (
            chip.is_8086 and form[:2] in {"D2", "D3"} and case.initial.registers["cx"] & 0xFF > 31
        ),
    ),
    LeftOut(
        "PUSH SP stores the new value on an 8086 (SDM vol. 2 PUSH, IA-32 Architecture Compatibility)",
        lambda chip, form, case, instruction: (
            chip.is_8086 and (form == "54" or (form == "FF.6" and instruction.modrm == 0xF4))
        ),
    ),
    LeftOut(
        "an 8086 wraps in the middle of an operand or instruction; it is #GP or #SS today (SDM vol. 3 section 23.33)",
        lambda chip, form, case, instruction: chip.is_8086 and wraps_in_segment(case),
    ),
    LeftOut(
        "on an 8086, REP before IDIV changes the sign of the quotient, undocumented",
        lambda chip, form, case, instruction: (
            chip.is_8086 and form in {"F6.7", "F7.7"} and bool({REP, REPNE} & set(instruction.prefixes))
        ),
    ),
    LeftOut(
        "misread by the recorder",
        lambda chip, form, case, instruction: chip.name == "286" and (form, case.index) in MISREAD,
    ),
    LeftOut(
        "some quotients out of range are no divide errors on a 286, which leaves the lowest negative number",
        lambda chip, form, case, instruction: (
            chip.name == "286"
            and case.exception is None
            and (
                (form == "F6.7" and case.final.registers.get("ax", 0) & 0xFF == 0x80)
                or (form == "F7.7" and case.final.registers.get("ax", 0) == 0x8000)
            )
        ),
    ),
    LeftOut(
        "an 8086 adjusts AL and AH apart; AX is adjusted as a whole today (SDM vol. 2 AAA, AAS)",
        lambda chip, form, case, instruction: chip.is_8086 and adjusts_with_carry(case, form),
    ),
    LeftOut(
        "an 8086 compares AL with 9Fh, not 99h, if AF was set, and forgets DAS's first borrow (SDM vol. 2 DAA, DAS)",
        lambda chip, form, case, instruction: (
            chip.is_8086
            and ((form in {"27", "2F"} and 0x9A <= al_of(case) <= 0x9F) or (form == "2F" and al_of(case) < 6))
        ),
    ),
    LeftOut(
        "AAM 0 leaves all flags undefined (SDM vol. 2 AAM)",
        lambda chip, form, case, instruction: form == "D4" and instruction.modrm == 0,
    ),
    LeftOut(
        "a 286 does not put SP back when POP to memory faults (SDM vol. 3 section 6.6)",
        lambda chip, form, case, instruction: form == "8F" and case.exception == GENERAL_PROTECTION,
    ),
)


def al_of(case: Case) -> int:
    """Return AL before the instruction."""
    return case.initial.registers["ax"] & 0xFF


def adjusts_with_carry(case: Case, form: str) -> bool:
    """Whether AAA or AAS carries out of, or borrows from, the whole of AL."""
    return (form == "37" and al_of(case) >= 0xFA) or (form == "3F" and al_of(case) < 6)


def restartable_string(registers: dict[str, int], instruction: Instruction) -> dict[str, int]:
    """Return the counters before the word that begins at FFFF and cannot be accessed."""
    indices = [name for name in ("si", "di") if instruction.opcode in INDEXED_BY[name]]
    step = -2 if registers["flags"] & DIRECTION_FLAG else 2
    counters = {name: registers[name] for name in (*indices, "cx")}
    while instruction.repeats and all(counters[name] != 0xFFFF for name in indices):
        counters = {name: value + (-1 if name == "cx" else step) & 0xFFFF for name, value in counters.items()}
    return counters


class Repeater:
    """A machine on which recorded cases are repeated."""

    def __init__(self, host: str, chip: Chip) -> None:
        self._machine = pv.Machine(host=host, memory="4M", interfaces=[], devices=[])
        self._vm = self._machine._vm
        for address in (0xFFFF0, 0xFFFFFFF0):
            self._vm.remove_breakpoint(address)  # A reset vector's; here it is memory like any other.
        self._vm.claim_ports(0, 0xFFFF)
        self._vm.intercept_halt(True)
        self._chip = chip

    def why_left_out(self, form: str, case: Case) -> str | None:
        """Return why a case is not repeated, None if it is."""
        instruction = Instruction.of(case)
        return next((rule.reason for rule in LEFT_OUT if rule.applies(self._chip, form, case, instruction)), None)

    def differences(self, form: str, case: Case) -> list[str]:
        """Repeat a case; return what is not as on the chip."""
        self._set_state(case)
        self._execute(case)
        if self._chip.is_8086 and self._is_most_negative_quotient(form):
            return []  # In range today, a divide error on an 8086 (SDM vol. 3 section 23.31).
        return self._compare(form, case)

    def _aliases(self, address: int) -> tuple[int, ...]:
        """An 8086 has 20 address lines: what is beyond 1 MiB is the beginning again."""
        return (address, address + (1 << 20)) if self._chip.is_8086 and address < 0xFFF0 else (address,)

    def _set_state(self, case: Case) -> None:
        vm, registers = self._vm, case.initial.registers
        for address, byte in case.initial.memory.items():
            for alias in self._aliases(address):
                vm.memory.write_int(alias, 1, byte)
        for name, wide in WIDE.items():
            vm.set_register(0, wide, registers[name])
        for name in SEGMENTS:
            vm.set_register(0, name, registers[name])
            vm.set_register(0, f"{name}_base", registers[name] << 4)
        vm.set_register(0, "rip", registers["ip"])
        vm.set_register(0, "rflags", registers["flags"] & FLAGS | 2)

    def _execute(self, case: Case) -> None:
        vm, start = self._vm, (case.initial.registers["cs"], case.initial.registers["ip"])
        repeats = Instruction.of(case).repeats
        answer: int | None = None
        for _ in range(MAX_STEPS):
            event = vm.step(0, answer)
            answer = None
            if event.kind in {ExitKind.PORT_READ, ExitKind.PORT_WRITE}:
                answer = (1 << 8 * event.size) - 1  # Nothing answered on the recorded chip's bus.
            elif event.kind == ExitKind.HALT:
                return
            elif event.kind != ExitKind.STEP:
                raise AssertionError(f"{case.name}: exit {event.kind}")
            elif not repeats or (vm.get_register(0, "cs"), vm.get_register(0, "rip")) != start:
                return
        raise AssertionError(f"{case.name}: does not end")

    def _compare(self, form: str, case: Case) -> list[str]:
        expected = case.initial.registers | case.final.registers
        self._expect_today(form, case, expected)
        found = {name: self._vm.get_register(0, wide) for name, wide in WIDE.items()}
        found |= {name: self._vm.get_register(0, name) for name in SEGMENTS}
        found["ip"] = self._vm.get_register(0, "rip")
        found["flags"] = self._vm.get_register(0, "rflags")
        flags = self._chip.defined_flags(form)
        expected["flags"] &= flags
        found["flags"] &= flags
        if self._chip.is_8086:
            found["ip"] &= 0xFFFF  # Behind the last byte of a segment; there the next instruction is #GP today.
        different = [
            f"{name} {found[name]:#x}, not {expected[name]:#x}" for name in found if found[name] != expected[name]
        ]
        for address, byte in case.final.memory.items():
            mask = self._compared_bits(form, case, address, expected)
            if all((self._vm.memory.read_int(alias, 1) ^ byte) & mask for alias in self._aliases(address)):
                different.append(f"byte at {address:#x} {self._vm.memory.read_int(address, 1):#x}, not {byte:#x}")
        return different

    def _expect_today(self, form: str, case: Case, expected: dict[str, int]) -> None:
        """Change what the chip left to what a CPU of today leaves."""
        instruction = Instruction.of(case)
        if not self._chip.is_8086 and instruction.opcode != HLT:
            expected["ip"] = (expected["ip"] - 1) & 0xFFFF  # The HLT with which each recording ends.
        if case.exception != GENERAL_PROTECTION:
            return
        if instruction.opcode in STRINGS:
            # A 286 has counted on already; instructions that fault can be restarted since (SDM vol. 3 section 6.6).
            expected |= restartable_string(case.initial.registers, instruction)
        if self._handler() == self._vector(STACK_FAULT):
            # A word that leaves the stack segment is #SS since the 386 (SDM vol. 3 section 6.15, interrupt 12).
            expected["cs"], expected["ip"] = self._vector(STACK_FAULT)

    def _is_most_negative_quotient(self, form: str) -> bool:
        ax = self._vm.get_register(0, "rax") & 0xFFFF
        return (form == "F6.7" and ax & 0xFF == 0x80) or (form == "F7.7" and ax == 0x8000)

    def _handler(self) -> tuple[int, int]:
        return self._vm.get_register(0, "cs"), self._vm.get_register(0, "rip")

    def _vector(self, number: int) -> tuple[int, int]:
        read = self._vm.memory.read_int
        return read(4 * number + 2, 2), read(4 * number, 2)

    def _compared_bits(self, form: str, case: Case, address: int, expected: dict[str, int]) -> int:
        """Which bits of a byte count: all, but for flags that were pushed."""
        pushed = PUSHES_FLAGS.get(Instruction.of(case).opcode)
        if case.exception is not None or self._has_divide_error(form, case, expected):
            pushed = 4
        if pushed is None:
            return 0xFF
        offset = (address - (expected["ss"] << 4) - expected["sp"]) & 0xFFFF
        if self._chip.is_8086 and form in MAY_DIVIDE and offset in {0, 1}:
            return 0  # The next instruction's address on an 8086, the faulting one's today (SDM vol. 3 section 23.31).
        return self._chip.defined_flags(form) >> 8 * (offset - pushed) & 0xFF if offset - pushed in {0, 1} else 0xFF

    def _has_divide_error(self, form: str, case: Case, expected: dict[str, int]) -> bool:
        initial = case.initial.registers
        return form in MAY_DIVIDE and (expected["sp"] - initial["sp"]) & 0xFFFF == (1 << 16) - 6
