"""Virtual-8086 mode and its extensions (CR4.VME), as the manual has them: nothing else at hand has VME.

SDM vol. 3 section 21.3 and table 21-2, vol. 2 CLI, STI, PUSHF, POPF, INT n, IRET: what the model below is made from.
Its cases are those of one instruction that `tests/privileged/virtual.py` draws; they end with UD2 or with #GP.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.privileged import layout as at
from tests.privileged.image import Case, Record, build_monitor
from tests.privileged.runner import run_cases, software_cpu
from tests.privileged.virtual import CR4_VME, EFLAGS_VIF, EFLAGS_VIP, make_virtual_case

DRAWN = 900
UD, GP = 6, 13
TF, IF, IOPL, NT, RF = 1 << 8, 1 << 9, 3 << 12, 1 << 14, 1 << 16
STATUS_AND_CONTROL = 0x8D5 | TF | 1 << 10 | NT
"""What any POPF loads."""
WIDE = 1 << 18 | 1 << 21
"""AC and ID, which those of 32 bits load as well."""
SEEN = 0x3F7FD7 & ~RF


@dataclass
class Outcome:
    """How an instruction ends, and the words that it leaves on the stack, from its top."""

    vector: int
    rip: int
    rsp: int
    rflags: int
    pushed: tuple[int, ...] = ()


class Model:
    """One instruction in virtual-8086 mode."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.name = case.label.split(" at ")[0].removeprefix("V86 ")
        self.flags = case.rflags
        self.vme = bool(case.cr4 & CR4_VME)
        self.iopl3 = case.rflags & IOPL == IOPL
        self.code = case.memory[at.CODE]
        self.end = at.CODE + self.code.index(b"\x0f\x0b")

    def outcome(self) -> Outcome | None:
        """Say what happens; None if a descriptor decides."""
        name = self.name.split()[0]
        if name in {"cli", "sti"}:
            return self._switch(name == "sti")
        if name in {"pushf", "pushfd"}:
            return self._pushf(wide=name == "pushfd")
        if name in {"popf", "popfd", "iret", "iretd"}:
            return self._load(name)
        return self._interrupt() if name == "int" else None

    def _fault(self, pushed_bytes: int = 0, before: int = 0) -> Outcome:
        return Outcome(GP, at.CODE + before, self.case.rsp - pushed_bytes, self.flags)

    def _done(self, rflags: int, rsp: int, rip: int | None = None, *pushed: int) -> Outcome:
        return Outcome(UD, self.end if rip is None else rip, rsp, rflags, pushed)

    def _switch(self, on: bool) -> Outcome:
        if not self.iopl3 and (not self.vme or (on and self.flags & EFLAGS_VIP)):
            return self._fault()
        flag = IF if self.iopl3 else EFLAGS_VIF
        return self._done(self.flags | flag if on else self.flags & ~flag, self.case.rsp)

    def _virtual_image(self) -> int:
        """The flags as PUSHF and INT n show them below IOPL 3."""
        image = self.flags & ~IF | IOPL
        return image | IF if self.flags & EFLAGS_VIF else image

    def _pushf(self, *, wide: bool) -> Outcome:
        if not self.iopl3 and (wide or not self.vme):
            return self._fault()
        image = self.flags if self.iopl3 else self._virtual_image()
        return self._done(self.flags, self.case.rsp - (4 if wide else 2), None, image & 0xFFFF)

    def _load(self, name: str) -> Outcome:
        wide, returns = name.endswith("d"), name.startswith("iret")
        size = 4 if wide else 2
        prefix = 1 if wide else 0
        (value,) = struct.unpack_from("<I" if wide else "<H", self.code, 1 + prefix)
        pushed = size * 3 if returns else size
        before = self.end - at.CODE - 1 - prefix
        refused = self.vme and (value & TF or (value & IF and self.flags & EFLAGS_VIP))
        if not self.iopl3 and (wide or not self.vme or refused):
            return self._fault(pushed, before)
        mask = STATUS_AND_CONTROL | (WIDE if wide else 0) | (IF if self.iopl3 else 0)
        flags = self.flags & ~mask | value & mask
        if not self.iopl3:
            flags = flags | EFLAGS_VIF if value & IF else flags & ~EFLAGS_VIF
        rip = self._return_address(wide) if returns else None
        return self._done(flags, self.case.rsp, rip)

    def _return_address(self, wide: bool) -> int:
        end = self.end - at.CODE - (2 if wide else 1)
        (address,) = struct.unpack_from("<I" if wide else "<H", self.code, end - (4 if wide else 2))
        return int(address)

    def _interrupt(self) -> Outcome | None:
        vector = int(self.name.split()[1])
        redirections = self.case.memory[at.TSS + 0x64][4:]
        to_idt = not self.vme or redirections[vector // 8] >> vector % 8 & 1
        if to_idt:
            return None if self.iopl3 else self._fault()
        image = self.flags if self.iopl3 else self._virtual_image()
        (offset,) = struct.unpack_from("<H", self.case.memory[4 * vector])
        rflags = self.flags & ~(TF | (IF if self.iopl3 else EFLAGS_VIF))
        return self._done(rflags, self.case.rsp - 6, offset, self.end, 0, image & 0xFFFF)


def word_at(record: Record, address: int) -> int:
    """Return a word of the stack, which was clear."""
    return record.changes.get(address & ~3, 0) >> 8 * (address & 3) & 0xFFFF


def test_as_the_manual_says(host: str, tmp_path: Path) -> None:
    """Each instruction does what its page of the manual says."""
    rng = random.Random("virtual-8086")
    drawn = [make_virtual_case(rng) for _ in range(DRAWN)]
    cases = [case for case in drawn if case.rflags & at.EFLAGS_VM]
    models = [Model(case) for case in cases]
    expected = {i: m.outcome() for i, m in enumerate(models) if len(m.name.split()) == 1 + m.name.startswith("int ")}
    cases = [cases[i] for i in expected]
    records = run_cases(software_cpu(host, "default", tmp_path), build_monitor(tmp_path), cases, small=True)
    known = 0
    for i, case, record in zip(expected, cases, records, strict=True):
        outcome = expected[i]
        if outcome is None:
            continue
        known += 1
        fields = record.fields
        actual = (fields["vector"], fields["rip"], fields["rsp"], fields["rflags"] & SEEN)
        assert actual == (outcome.vector, outcome.rip, outcome.rsp, outcome.rflags & SEEN), case.label
        assert fields["error"] == 0
        for number, word in enumerate(outcome.pushed):
            assert word_at(record, outcome.rsp + 2 * number) == word, case.label
    assert known > DRAWN // 10
