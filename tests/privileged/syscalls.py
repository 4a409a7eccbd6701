"""Generated system calls: SYSCALL, SYSRET, SYSENTER and SYSEXIT, from every mode and ring, with any selectors.

What they load is not looked up in tables; where they go there is UD2, whose record shows what they have made.
"""

from __future__ import annotations

import random
import struct

from . import layout as at
from .image import Case
from .segments import EFLAGS_AC, EFLAGS_DF, EFLAGS_IF, EFLAGS_NT, EFLAGS_TF, SET_TF, STACK_TOPS, Builder

SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
STAR, LSTAR, CSTAR, SFMASK = 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084
EFER_SCE = 1
SYSCALL, SYSRET, SYSENTER, SYSEXIT = b"\x0f\x05", b"\x0f\x07", b"\x0f\x34", b"\x0f\x35"
NAMES = {SYSCALL: "SYSCALL", SYSRET: "SYSRET", SYSENTER: "SYSENTER", SYSEXIT: "SYSEXIT"}
NONCANONICAL = 1 << 47
FLAGS = 0xD5 | EFLAGS_TF | EFLAGS_IF | EFLAGS_DF | 3 << 12 | EFLAGS_NT | EFLAGS_AC | 1 << 21


def make_syscall_case(rng: random.Random) -> Case:
    """Draw one case."""
    b = Builder(rng, long=rng.random() < 0.6)
    opcode = rng.choice(list(NAMES))
    if opcode in {SYSRET, SYSEXIT} and rng.random() < 0.85:
        b.ring = 0
    rex = b"\x48" if b.code64 and rng.random() < 0.6 else b""
    flags = rng.getrandbits(22) & FLAGS | 2
    prefix = b"\x49\xbb" + struct.pack("<Q", flags) if b.code64 else b""  # MOV R11, imm64
    if rng.random() < 0.15:
        prefix += SET_TF
    case = b.case(f"{'REX.W ' * len(rex)}{NAMES[opcode]}", prefix + rex + opcode)
    case.registers["rcx"], case.registers["rdx"] = _return_registers(b, opcode)
    case.msrs = {
        SYSENTER_CS: rng.choice((at.CODE32[0], at.CODE64[0], _selector(rng), 0, rng.randrange(4))),
        SYSENTER_ESP: STACK_TOPS[0] - 16 * rng.randrange(4),
        SYSENTER_EIP: b.target(),
        STAR: _selector(rng) << 48 | _selector(rng) << 32 | b.target(),
        LSTAR: b.target(),
        CSTAR: b.target(),
        SFMASK: rng.getrandbits(22) & FLAGS,
    }
    if rng.random() < 0.9:
        case.efer |= EFER_SCE
    # Whether SYSCALL exists in virtual-8086 mode, hypervisors and manuals do not agree.
    if not b.long and b.ring == 3 and opcode in {SYSENTER, SYSEXIT} and rng.random() < 0.3:
        case.rflags |= at.EFLAGS_VM
        case.cs, case.ss, case.data, case.label = 0, 0, 0, f"V86 {case.label}"
    return case


def _selector(rng: random.Random) -> int:
    return rng.choice((at.CODE32[0], at.CODE64[0], at.CODE32[3] - 16, rng.getrandbits(16), rng.getrandbits(16)))


def _return_registers(b: Builder, opcode: bytes) -> tuple[int, int]:
    """RCX and RDX: where SYSRET and SYSEXIT return to, and the stack of SYSEXIT."""
    rng = b.rng
    target, stack = b.target(), STACK_TOPS[3] - 16 * rng.randrange(4)
    rcx, rdx = (target, rng.getrandbits(32)) if opcode != SYSEXIT else (stack, target)
    if b.code64 and rng.random() < 0.1:
        rcx ^= rng.choice((NONCANONICAL, 1 << 63, 1 << 32))
    if b.code64 and rng.random() < 0.1:
        rdx ^= rng.choice((NONCANONICAL, 1 << 63, 1 << 32))
    return rcx, rdx
