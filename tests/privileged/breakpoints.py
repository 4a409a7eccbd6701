"""Generated breakpoints: code, data and ports, of every length, with accesses that hit them, just miss them, or fault.

Data breakpoints are in the page of data, away from stacks, so that the monitor meets none. Accesses are aligned, since
QEMU takes others for accesses to all that is around them, and so are breakpoints, whose low bits it does not leave out.
It has no general detection (DR7.GD), and misses what OUTS reads.
"""

from __future__ import annotations

import random

from . import layout as at
from .image import Case
from .segments import EFLAGS_DF, SET_TF, Builder

CR4_DE, CR4_OSFXSR = 1 << 3, 1 << 9
EXECUTE, WRITE, IO, ACCESS = range(4)
LENGTHS = {1: 0, 2: 1, 4: 3, 8: 2}
PORT = 0x3E8
"""Eight ports behind which there is nothing: a third serial port's."""
PLACE = at.DATA + 0x80

# The address is in (R/E)BX, (R/E)SI and (R/E)DI; the count in (R/E)CX, the port in DX.
ACCESSES = {
    "mov r, m": b"\x8b\x03",
    "mov m, r": b"\x89\x03",
    "mov r8, m8": b"\x8a\x03",
    "mov m8, r8": b"\x88\x03",
    "mov m16, r16": b"\x66\x89\x03",
    "add": b"\x01\x03",
    "cmp": b"\x39\x03",
    "xchg": b"\x87\x03",
    "cmpxchg": b"\x0f\xb1\x0b",
    "push m": b"\xff\x33",
    "pop m": b"\x8f\x03",
    "movups load": b"\x0f\x10\x03",
    "movups store": b"\x0f\x11\x03",
    "cmpxchg8b": b"\x0f\xc7\x0b",
    "setz": b"\x0f\x94\x03",
    "div": b"\xf7\x33",
    "movsb": b"\xa4",
    "movsd": b"\xa5",
    "stosb": b"\xaa",
    "stosd": b"\xab",
    "lodsb": b"\xac",
    "scasb": b"\xae",
    "cmpsb": b"\xa6",
    "rep movsb": b"\xf3\xa4",
    "rep movsd": b"\xf3\xa5",
    "rep stosb": b"\xf3\xaa",
    "repe cmpsb": b"\xf3\xa6",
    "repne scasb": b"\xf2\xae",
    "rep lodsb": b"\xf3\xac",
    "in": b"\xec",
    "in eax": b"\xed",
    "out": b"\xee",
    "out eax": b"\xef",
    "insb": b"\x6c",
    "nop": b"\x90",
    "jmp": b"\xeb\x00",
    "mov ss": b"\x8e\xd5",
    "int3": b"\xcc",
}


def make_breakpoint_case(rng: random.Random) -> Case:
    """Draw one case."""
    b = Builder(rng, long=rng.random() < 0.5)
    b.ring = rng.choice((0, 3))
    parts = [rng.choice(list(ACCESSES.items())) for _ in range(rng.choice((1, 2, 3)))]
    # What moves pointers by single bytes, or changes the port, comes last.
    parts.sort(key=lambda part: part[0].endswith("b") or part[0] == "div")
    stepped = rng.random() < 0.25
    code = (SET_TF if stepped else b"") + b"".join(part for _, part in parts)
    case = b.case(
        "TF " * stepped + ", ".join(name for name, _ in parts),
        code,
        rbx=PLACE,
        rsi=PLACE + rng.choice((-8, -4, 0, 4)),
        rdi=PLACE + rng.choice((-8, -4, 0, 4)),
        rcx=rng.randrange(8),
        rdx=PORT + rng.choice((0, 4)),
        rbp=at.FLAT[b.ring],
    )
    case.rflags |= 3 << 12  # Ports are for all rings.
    if rng.random() < 0.8:
        case.rflags &= ~EFLAGS_DF
    case.cr4 |= CR4_OSFXSR | rng.choice((0, CR4_DE, CR4_DE))
    case.memory[PLACE - 16] = rng.choice((bytes(48), rng.randbytes(48)))
    starts = [at.CODE + sum(len(part) for _, part in parts[:i]) for i in range(len(parts))]
    starts = [start + (len(SET_TF) if stepped else 0) for start in starts]
    _add_breakpoints(rng, case, [*starts, at.CODE, starts[-1] + 1])
    return case


def _add_breakpoints(rng: random.Random, case: Case, starts: list[int]) -> None:
    addresses = []
    for number in range(4):
        kind = rng.choice((EXECUTE, WRITE, ACCESS, ACCESS, IO))
        if kind == IO and not case.cr4 & CR4_DE:
            kind = WRITE  # Ports cannot be watched without CR4.DE.
        length = rng.choice(list(LENGTHS)) if kind != EXECUTE else 1
        if kind == EXECUTE:
            address = rng.choice(starts)
        elif kind == IO:
            address = PORT + rng.randrange(8)
        else:
            address = PLACE + rng.randrange(-4, 16)
        address &= -length
        addresses.append(address)
        enabled = rng.choice((0, 1, 2, 3)) if number else rng.choice((1, 2))
        case.dr7 |= enabled << 2 * number | (kind | LENGTHS[length] << 2) << 16 + 4 * number
    first, second, third, fourth = addresses
    case.breakpoints = (first, second, third, fourth)
    case.label += f"; {case.dr7:x} {' '.join(f'{address:x}' for address in addresses)}"
