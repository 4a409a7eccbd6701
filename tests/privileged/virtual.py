"""Generated code in virtual-8086 mode with its extensions (CR4.VME), and with virtual interrupts otherwise (CR4.PVI).

The real-mode vectors that a redirected INT n may use lead to UD2.
"""

from __future__ import annotations

import random
import struct

from . import layout as at
from .image import Case
from .segments import EFLAGS_IF, EFLAGS_NT, EFLAGS_TF, NUM_GATES, SET_TF, Builder

CR4_VME, CR4_PVI = 1, 2
EFLAGS_VIF, EFLAGS_VIP = 1 << 19, 1 << 20
IO_MAP = 0x88
"""Offset of the I/O map, with room for the map of redirections below."""
STACK_TOP = at.USER_STACK_TOP - 0x40


def make_virtual_case(rng: random.Random) -> Case:
    """Draw one case."""
    b = Builder(rng, long=False)
    virtual = rng.random() < 0.75
    b.ring = 3 if virtual or rng.random() < 0.8 else rng.randrange(4)
    names, code = [], b""
    for _ in range(rng.choice((1, 1, 2, 3))):
        name, part = _instruction(b, virtual)
        names.append(name)
        code += part
    if rng.random() < 0.1:
        names, code = ["TF", *names], (_set_tf16() if virtual else SET_TF) + code
    case = b.case(" ".join(names), code, rsp=STACK_TOP)
    case.cr4 |= sum(bit for bit in (CR4_VME, CR4_PVI) if rng.random() < 0.7)
    case.rflags = case.rflags & ~(3 << 12) | rng.choice((0, 0, 1, 2, 3)) << 12
    case.rflags |= rng.choice((0, EFLAGS_VIF)) | rng.choice((0, 0, EFLAGS_VIP))
    if virtual:
        case.rflags |= at.EFLAGS_VM
        case.cs, case.ss, case.data, case.label = 0, 0, 0, f"V86 {case.label}"
        case.rsp = STACK_TOP
    _add_redirections(b, case)
    return case


def _set_tf16() -> bytes:
    """PUSHF, OR of the word on the stack with TF, POPF; which faults where IOPL is below 3 without VME."""
    return b"\x9c\x67\x81\x0c\x24\x00\x01\x9d"


def _instruction(b: Builder, virtual: bool) -> tuple[str, bytes]:
    rng = b.rng
    vector = 32 + rng.randrange(NUM_GATES)
    flags = 2 | rng.choice((0, EFLAGS_IF)) | rng.choice((0, EFLAGS_NT)) | rng.randrange(4) << 12 | rng.getrandbits(1)
    if rng.random() < 0.1:
        flags |= EFLAGS_TF
    wide = struct.pack("<I", flags | rng.choice((0, EFLAGS_VIF | EFLAGS_VIP, 1 << 18)))
    other = b"\x66" if virtual else b""  # The prefix for operands of 32 bits.
    word = b"" if virtual else b"\x66"
    push, push_wide = word + b"\x68" + struct.pack("<H", flags), other + b"\x68" + wide
    choices = [
        ("cli", b"\xfa"),
        ("sti", b"\xfb"),
        ("pushf", word + b"\x9c"),
        ("pushfd", other + b"\x9c"),
        ("popf", push + word + b"\x9d"),
        ("popfd", push_wide + other + b"\x9d"),
        (f"int {vector}", bytes([0xCD, vector])),
        ("int3", b"\xcc"),
        ("into", b"\xce"),
    ]
    if virtual:
        frame = struct.pack("<H", 0), struct.pack("<H", b.target())
        choices += [
            ("iret", push + b"\x68" + frame[0] + b"\x68" + frame[1] + b"\xcf"),
            ("iretd", push_wide + b"\x66\x6a\x00\x66\x68" + struct.pack("<I", b.target()) + b"\x66\xcf"),
            (f"int {vector}", bytes([0xCD, vector])),
        ]
    return rng.choice(choices)


def _add_redirections(b: Builder, case: Case) -> None:
    """The map of the TSS that says which INT n go to real-mode vectors, and these."""
    rng = b.rng
    redirections = rng.choice((b"\x00", b"\xff")) * 32 if rng.random() < 0.3 else rng.randbytes(32)
    case.memory[at.TSS + 0x64] = struct.pack("<I", IO_MAP << 16) + redirections
    for vector in (3, 4, *range(32, 32 + NUM_GATES)):
        case.memory[4 * vector] = struct.pack("<HH", b.target(), 0)
