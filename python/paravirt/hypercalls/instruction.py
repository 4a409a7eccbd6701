"""Recognising a hypercall instruction with its prefixes.

Only these are decoded: VMCALL `0F 01 C1`, VMMCALL `0F 01 D9`, and the call of a host without virtualization,
`CD 1F 90` (`int $0x1f; nop`). Intel SDM vol. 2 "Instruction format" and "VMCALL"; AMD APM vol. 3 "VMMCALL".

- 66, 67, segment overrides and REX change nothing and are accepted.
- LOCK makes the instruction undefined.
- F2 and F3 make it another instruction (VMGEXIT with SEV-ES), so it is none of ours.
- More than 15 bytes in all are no instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

from paravirt.host import INT_1F, VMCALL, VMMCALL

__all__ = ["MAX_INSTRUCTION_LENGTH", "HypercallInstruction", "recognise"]

MAX_INSTRUCTION_LENGTH = 15

_REDUNDANT_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67))
_REX = range(0x40, 0x50)
_NAMES = {VMCALL: "vmcall", VMMCALL: "vmmcall", INT_1F: "int $0x1f"}


@dataclass(frozen=True, slots=True)
class HypercallInstruction:
    """A hypercall instruction as it stands in memory.

    opcode: its last three bytes. opcode_offset: how many prefix bytes come before them.
    """

    opcode: bytes
    opcode_offset: int

    @property
    def length(self) -> int:
        """Bytes of the whole instruction, prefixes included."""
        return self.opcode_offset + len(self.opcode)

    @property
    def name(self) -> str:
        """Its mnemonic."""
        return _NAMES[self.opcode]


def recognise(code: bytes, *, is_64bit: bool) -> HypercallInstruction | None:
    """Return the hypercall instruction at the start of `code`, None if there is another or `code` ends too early.

    is_64bit: whether 40–4F are REX prefixes; elsewhere they are INC and DEC.
    """
    offset = _skip_prefixes(code, is_64bit)
    opcode = code[offset : offset + 3]
    if opcode not in _NAMES or offset + len(opcode) > MAX_INSTRUCTION_LENGTH:
        return None
    if opcode == INT_1F and offset:
        # Two instructions, of which a prefix belongs to the first: nobody emits that.
        return None
    return HypercallInstruction(opcode, offset)


def _skip_prefixes(code: bytes, is_64bit: bool) -> int:
    offset = 0
    while offset < len(code) and code[offset] in _REDUNDANT_PREFIXES:
        offset += 1
    # A REX prefix counts only directly before the opcode; followed by another prefix it is ignored, which here comes
    # to the same (SDM vol. 2 section 2.2.1).
    while is_64bit and offset < len(code) and (code[offset] in _REX or code[offset] in _REDUNDANT_PREFIXES):
        offset += 1
    return offset
