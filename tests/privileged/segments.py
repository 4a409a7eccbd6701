"""Generated descriptors, selectors and gates: loads of segment registers, transfers between rings, task switches.

Tested descriptors are in the GDT from FIRST_TESTED on and in the LDT, tested gates in the IDT from vector 32 on.
Wherever a transfer goes it finds UD2: gates and pointers lead to even addresses in the page of code, full of it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from . import layout as at
from .image import UD2, Case, descriptor, gate, gate64, long_tables, task_state

TARGETS = range(at.CODE + 0x400, at.CODE + 0xFF0, 2)
STACK_TOPS = (*(at.STACKS + at.STACK_SIZE * (ring + 1) for ring in range(3)), at.USER_STACK_TOP)
NUM_LDT = 16
NUM_GATES = 16
TESTED = range(at.FIRST_TESTED, at.GDT_LIMIT + 1, 8)
EFLAGS_TF, EFLAGS_IF, EFLAGS_DF, EFLAGS_NT, EFLAGS_AC = 1 << 8, 1 << 9, 1 << 10, 1 << 14, 1 << 18
SET_TF = b"\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d"
"""PUSHF, OR of the dword on the stack, POPF, in 32-bit and 64-bit code."""
READ_OUTSIDE = (0, 0x3F8, 0xA1F0, 0xBFF0, 0xFFF0, 0x15FF0)
PARAMETER_COUNTS = (0, 0, 1, 2, 5, 31)


class Builder:
    """One case in the making: 32-bit code of some ring, or 64-bit code."""

    def __init__(self, rng: random.Random, long: bool) -> None:
        self.rng = rng
        self.long = long
        self.code64 = long and rng.random() < 0.8
        """Otherwise 32-bit code, in long mode in compatibility mode."""
        self.ring = rng.choice((0, 0, 1, 2, 3, 3)) if not long else rng.choice((0, 3))
        self.gdt = {selector: self.descriptor() for selector in rng.sample(TESTED, 10)} if not long else self._gdt64()
        self.ldt = [self.descriptor() if rng.random() < 0.6 else bytes(8) for _ in range(NUM_LDT)]

    def _gdt64(self) -> dict[int, bytes]:
        """Descriptors of 16 bytes beside others."""
        table = {selector: self.descriptor() for selector in TESTED[::2] if self.rng.random() < 0.5}
        for selector, first in table.items():
            if not first[5] & 0x10 and self.rng.random() < 0.95:
                table[selector] = first + (bytes(8) if self.rng.random() < 0.9 else self.rng.randbytes(4) + bytes(4))
        return table

    def target(self) -> int:
        """Return a place with UD2."""
        return self.rng.choice(TARGETS)

    def selector(self) -> int:
        """Draw a selector: a tested one as a rule, any RPL."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.6:
            base = rng.choice(list(self.gdt))
        elif kind < 0.8:
            base = rng.randrange(NUM_LDT) << 3 | 4
        elif kind < 0.95:
            base = rng.choice([*at.CODE32, *at.FLAT, *at.CODE16, *at.CODE64, at.MAIN_TSS, at.MAIN_LDT]) & ~7
        else:
            base = rng.choice((0, 0x200, 0xFFF8, 0x84, 0x1F8))
        return base | (self.ring if rng.random() < 0.5 else rng.randrange(4))

    def present_and_dpl(self) -> int:
        """Draw P and DPL of an access byte."""
        rng = self.rng
        dpl = self.ring if rng.random() < 0.4 else rng.randrange(4)
        return (0x80 if rng.random() < 0.93 else 0) | dpl << 5

    def descriptor(self) -> bytes:
        """Draw a descriptor of any kind."""
        kind = self.rng.random()
        if kind < 0.35:
            return self._code()
        if kind < 0.6:
            return self._data()
        if kind < 0.85:
            return self.gate()
        return self._system()

    def _code(self) -> bytes:
        rng = self.rng
        flags = rng.choice((0xA, 0xA, 0xA, 0xC, 0xE, 0x8) if self.long else (0xC, 0xC, 0x8, 0xE))
        limit = 0xFFFFF if rng.random() < 0.85 else 2
        if rng.random() < 0.1:
            flags, limit = flags & 4, rng.choice((at.CODE + 0x500, at.CODE + 0xFFF, 0xFFFF))
        return descriptor(0, limit, 0x18 | self.present_and_dpl() | rng.choice((0, 1, 2, 3, 4, 5, 6, 7)), flags)

    def _data(self) -> bytes:
        rng = self.rng
        base, limit = rng.choice(
            ((0, 0xFFFFF), (at.DATA, 0x3FF), (at.DATA, 0), (at.DATA, 0xFFFF), (0, at.STACKS + 0x1FF))
        )
        granular = 8 if limit == 0xFFFFF else 0
        return descriptor(
            base, limit, 0x10 | self.present_and_dpl() | rng.randrange(8), granular | rng.choice((0, 4, 4))
        )

    def _system(self) -> bytes:
        rng = self.rng
        kind = rng.choice((1, 2, 3, 9, 9, 11, rng.randrange(16)))
        base, limit = rng.choice(((at.OTHER_TSS, 0x67), (at.OTHER_TSS, 0x66), (at.TSS_16, 0x2B), (at.TSS_16, 0x2A)))
        if kind in {9, 11}:
            base, limit = at.OTHER_TSS, limit | 0x60
        if kind == 2:
            base, limit = at.LDT, rng.choice((0x7F, 0x3F))
        return descriptor(base, limit, self.present_and_dpl() | kind, 0)

    def gate(self, kinds: tuple[int, ...] = (4, 5, 12, 12)) -> bytes:
        """Draw a gate of one of these types."""
        rng = self.rng
        kind = rng.choice(kinds)
        selector = self.code_selector() if kind != 5 else self.task_selector()
        return gate(selector, self.target(), self.present_and_dpl() | kind, rng.choice(PARAMETER_COUNTS))

    def code_selector(self) -> int:
        """Draw a selector that is likely to be code."""
        rng = self.rng
        if rng.random() < 0.55:
            base = rng.choice(at.CODE64[::3] if self.long else at.CODE32) & ~7
        elif rng.random() < 0.8:
            base = rng.choice(TESTED)
        else:
            base = rng.randrange(NUM_LDT) << 3 | 4
        return base | rng.randrange(4) if rng.random() < 0.98 else rng.randrange(4)

    def task_selector(self) -> int:
        """Draw a selector that may be a TSS."""
        return self.rng.choice(TESTED) | self.rng.randrange(4)

    def stack_selector(self) -> int:
        """Draw a selector that may be a stack."""
        rng = self.rng
        return rng.choice(at.FLAT) if rng.random() < 0.7 else self.selector()

    def memory(self, code: bytes) -> dict[int, bytes]:
        """Return the stores: code, tables, tasks."""
        rng = self.rng
        memory = dict(long_tables()) if self.long else {}
        if self.long:
            memory[at.PML4] = struct.pack("<Q", at.IDENTITY_PDPT | 7)
            for page in range(at.ARENA >> 12, at.ARENA_END >> 12):
                memory[at.IDENTITY_PT + 8 * page] = struct.pack("<Q", page << 12 | 7)
            page = at.IST_TOP - 1 >> 12  # The tested gates' interrupt stack, for whatever ring.
            memory[at.IDENTITY_PT + 8 * page] = struct.pack("<Q", page << 12 | 7)
        for selector, data in self.gdt.items():
            if selector + len(data) <= at.GDT_LIMIT + 1:
                memory[at.GDT + selector] = data
        memory[at.LDT] = b"".join(self.ldt)
        memory[at.IDT + 32 * (16 if self.long else 8)] = b"".join(self._idt_gate() for _ in range(NUM_GATES))
        if not self.long:
            self._add_tasks(memory)
        memory[at.CODE] = code + UD2
        memory[at.DATA] = rng.randbytes(64)
        memory |= {address: bytes(0x20) for address in READ_OUTSIDE}  # Firmware's memory is not the same everywhere.
        return memory

    def _idt_gate(self) -> bytes:
        rng = self.rng
        if self.long:
            ist = rng.choice((0, 0, 0, 1))
            kind = rng.choice((14, 14, 15, 15, rng.randrange(16)))
            offset = self.target() | (1 << 47 if rng.random() < 0.03 else 0)
            return gate64(self.code_selector(), offset, self.present_and_dpl() | kind, ist)
        return self.gate((5, 6, 7, 14, 14, 15, 15, rng.randrange(16)))

    def _add_tasks(self, memory: dict[int, bytes]) -> None:
        rng = self.rng
        if rng.random() < 0.3:  # Bad stacks for rings 1 and 2; ring 0's is needed to report.
            ring = rng.choice((1, 2))
            esp = rng.choice((STACK_TOPS[ring], 4, at.DATA + 0x10))
            memory[at.TSS + 4 + 8 * ring] = struct.pack("<II", esp, self.selector())
        ring = rng.randrange(4)
        segments = {
            name: rng.choice((at.FLAT[ring], at.FLAT[3], self.selector(), 0)) for name in ("es", "ds", "fs", "gs")
        }
        memory[at.OTHER_TSS] = task_state(
            link=self.task_selector(),
            esp0=STACK_TOPS[0],
            ss0=at.FLAT[0],
            esp1=STACK_TOPS[1],
            ss1=at.FLAT[1],
            esp2=STACK_TOPS[2],
            ss2=at.FLAT[2],
            eip=self.target(),
            eflags=2 | rng.choice((0, EFLAGS_DF, EFLAGS_NT, EFLAGS_AC)),
            esp=STACK_TOPS[ring],
            eax=rng.getrandbits(32),
            cs=at.CODE32[ring] if rng.random() < 0.7 else self.code_selector(),
            ss=at.FLAT[ring] if rng.random() < 0.8 else self.stack_selector(),
            ldt=at.MAIN_LDT if rng.random() < 0.8 else self.selector(),
            **segments,
        )[:0x64] + struct.pack("<I", 0x68 << 16)
        words = [self.task_selector()]
        for level in range(3):
            words += [STACK_TOPS[level], at.FLAT[level]]
        words += [self.target(), 2, *(rng.getrandbits(16) for _ in range(4)), STACK_TOPS[ring], 1, 2, 3]
        words += [at.FLAT[ring], at.CODE32[ring], at.FLAT[ring], self.selector(), at.MAIN_LDT]
        memory[at.TSS_16] = struct.pack(f"<{len(words)}H", *words)

    def case(self, label: str, code: bytes, **registers: int) -> Case:
        """Make the case."""
        rng, ring = self.rng, self.ring
        rflags = 2 | rng.choice((0, 0, EFLAGS_IF)) | rng.choice((0, 0, EFLAGS_DF)) | ring << 12
        if rng.random() < 0.3:
            rflags |= rng.randrange(4) << 12
        state = Case(
            f"{label} at ring {ring}, {'64' if self.code64 else '32'}-bit{' in long mode' if self.long else ''}",
            cs=(at.CODE64 if self.code64 else at.CODE32)[ring],
            ss=at.FLAT[ring],
            data=at.FLAT[ring],
            rsp=STACK_TOPS[ring] - 0x40,
            rflags=rflags & ~(3 << 12) | min(rflags >> 12 & 3, 3) << 12,
            registers={"rax": rng.getrandbits(32), "rcx": 3, "rdx": 0x3F8, "rbx": at.DATA, **registers},
            memory=self.memory(code),
            long=self.long,
        )
        if self.long:
            state.cr0, state.cr3, state.cr4, state.efer = 0x80000011, at.PML4, 0x20, 0x900
        return state

    def push(self, value: int) -> bytes:
        """Encode PUSH imm32."""
        return b"\x68" + struct.pack("<I", value & 0xFFFFFFFF)

    def far_pointer(self, selector: int) -> bytes:
        """Return m16:32 or m16:16."""
        return struct.pack("<IH", self.target(), selector)


def _load(b: Builder) -> Case:
    """MOV, POP, LDS and their like; then an access through the segment."""
    rng = b.rng
    selector = b.selector()
    segment = rng.choice((0, 2, 3, 4, 5) if b.ring or rng.random() < 0.5 else (0, 3, 4, 5))
    code = b"\x66\xb8" + struct.pack("<H", selector) + b"\x8e" + bytes([0xC0 | segment << 3])
    prefix = {0: b"\x26", 2: b"\x36", 3: b"\x3e", 4: b"\x64", 5: b"\x65"}[segment]
    if b.code64 and segment < 4:
        prefix = b""  # It would mean nothing, but QEMU 7.2 takes it seriously.
    offset = rng.choice((0, 0x10, 0x3FC, 0x3FD, 0x3FF, 0x400, 0xFFFC, at.DATA, at.STACKS + 0x1FC, at.STACKS + 0x200))
    access = rng.choice(
        (b"\x8b\x03", b"\x89\x03", b"\x8a\x03", b"\xff\x33", b"\x8f\x03", b"\x0f\xb1\x0b", b"\x83\x03\x00")
    )
    return b.case(f"MOV S{segment}, {selector:x}; access", code + prefix + access, rbx=offset)


def _load_pointer(b: Builder) -> Case:
    opcode = b.rng.choice((b"\xc4\x03", b"\xc5\x03", b"\x0f\xb2\x03", b"\x0f\xb4\x03", b"\x0f\xb5\x03"))
    selector = b.selector()
    case = b.case(f"LxS {selector:x}", opcode)
    case.memory[at.DATA] = struct.pack("<IHH", STACK_TOPS[b.ring], selector, 0)
    return case


def _query(b: Builder) -> Case:
    selector = b.selector()
    opcode = b.rng.choice(
        (b"\x0f\x02\xc8", b"\x0f\x03\xc8", b"\x0f\x00\xe0", b"\x0f\x00\xe8", b"\x63\xc8", b"\x0f\x00\xc9")
    )
    return b.case(f"LAR and others {opcode.hex()} {selector:x}", opcode, rax=selector)


def _system_load(b: Builder) -> Case:
    selector = b.selector()
    if b.rng.random() < 0.6:
        b.ring = 0
    opcode = b.rng.choice((b"\x0f\x00\xd0", b"\x0f\x00\xd8", b"\x0f\x00\xd3", b"\x0f\x00\xdb"))
    case = b.case(f"LLDT, LTR {opcode.hex()} {selector:x}", opcode, rax=selector)
    case.memory[at.DATA] = struct.pack("<H", selector)
    return case


def _far(b: Builder) -> Case:
    selector = b.selector()
    direct = not b.code64 and b.rng.random() < 0.5
    call = b.rng.random() < 0.6
    prefix = b.rng.choice((b"", b"\x48") if b.code64 else (b"", b"", b"\x66"))
    pointer = b.far_pointer(selector)
    if prefix == b"\x66":
        pointer = pointer[:2] + pointer[4:]
    if prefix == b"\x48":
        pointer = pointer[:4] + bytes(4) + pointer[4:]
    code = prefix + (bytes([0x9A if call else 0xEA]) + pointer if direct else b"\xff" + (b"\x1b" if call else b"\x2b"))
    case = b.case(f"{'CALL' if call else 'JMP'} FAR {selector:x}", code)
    if not direct:
        case.memory[at.DATA] = pointer + bytes(2)
    return case


def _return(b: Builder) -> Case:
    """RETF and IRET with a generated frame."""
    rng = b.rng
    iret = rng.random() < 0.6
    selector = b.selector() if rng.random() < 0.6 else rng.choice(at.CODE64[::3] if b.code64 else at.CODE32)
    outer = selector & 3
    stack = at.FLAT[outer] if rng.random() < 0.6 else b.stack_selector()
    target = b.target()
    values = [target, selector]
    if iret:
        flags = _return_flags(b)
        if flags & at.EFLAGS_VM:
            values[1] = selector = selector & 3  # Virtual-8086 code at the same place.
        values.append(flags)
    values += [STACK_TOPS[rng.randrange(4)], stack]
    if not b.code64:
        values += [0x1000, 0x2000, 0x3000, 0x4000]
    wide = b"\x48" if b.code64 else b""
    code = b"".join(b.push(value) for value in reversed(values))
    if iret:
        code += wide + b"\xcf"
    elif rng.random() < 0.5:
        code += wide + b"\xcb"
    else:
        count = rng.choice((0, 4, 8))
        padding = [0] * (count // (8 if b.code64 else 4))
        values[2:2] = padding
        code = b"".join(b.push(value) for value in reversed(values)) + wide + b"\xca" + struct.pack("<H", count)
    return b.case(f"{'IRET' if iret else 'RETF'} {selector:x}, stack {stack:x}", code)


def _return_flags(b: Builder) -> int:
    rng = b.rng
    flags = 2 | rng.choice((0, EFLAGS_IF)) | rng.choice((0, EFLAGS_DF, EFLAGS_AC)) | rng.randrange(4) << 12
    if not b.long and rng.random() < 0.1:
        flags |= at.EFLAGS_VM
    return flags


def _nested_return(b: Builder) -> Case:
    """IRET with NT: a task's end, or #GP in long mode."""
    code = b"\x9c\x81\x0c\x24\x00\x40\x00\x00\x9d" + (b"\x48" if b.code64 else b"") + b"\xcf"
    case = b.case("IRET with NT", code)
    if not b.long:
        case.memory[at.TSS] = struct.pack("<I", b.task_selector())
    return case


def _interrupt(b: Builder) -> Case:
    rng = b.rng
    kind = rng.random()
    if kind < 0.75:
        vector = 32 + rng.randrange(NUM_GATES + 1)
        case = b.case(f"INT {vector}", bytes([0xCD, vector]))
        if not b.long and b.ring in {0, 3} and rng.random() < 0.3:
            case.cs = at.CODE16[b.ring]
        return case
    # A fault through a tested gate.
    vector, code = rng.choice(((0, b"\x31\xc9\xf7\xf1"), (3, b"\xcc"), (3, b"\xcd\x03"), (13, b"\x8e\xd9")))
    case = b.case(f"fault {vector} through a tested gate", code, rcx=0xFFF0)
    size = 16 if b.long else 8
    entry = b._idt_gate()
    idt = case.memory.get(at.IDT, b"")
    if b.long:
        case.memory[at.IDT] = idt[: size * vector] + entry + idt[size * (vector + 1) :]
    else:
        case.memory[at.IDT + size * vector] = entry
    return case


PRIVILEGED = {
    "cli": b"\xfa",
    "sti": b"\xfb",
    "in al, dx": b"\xec\x31\xc0",
    "in eax, dx": b"\xed\x31\xc0",
    "out dx, al": b"\xee",
    "clts": b"\x0f\x06",
    "mov cr0": b"\x0f\x20\xc0",
    "mov to cr2": b"\x0f\x22\xd0",
    "mov dr7": b"\x0f\x21\xf8",
    "lmsw": b"\x0f\x01\xf1",
    "smsw": b"\x0f\x01\xe1",
    "invlpg": b"\x0f\x01\x3b",
    "wbinvd": b"\x0f\x09",
    "rdmsr": b"\x0f\x32",
    "pushf": b"\x9c",
    "int": b"\xcd\x21",
    "into": b"\xce",
    "popf": b"\x9c\x81\x34\x24\x00\x72\x04\x00\x9d\x9c",
    "popf16": b"\x66\x9c\x66\x81\x34\x24\x00\x72\x66\x9d\x9c",
    "sgdt": b"\x0f\x01\x03",
    "sidt": b"\x0f\x01\x0b",
    "str": b"\x0f\x00\xc8",
    "sldt": b"\x0f\x00\xc0",
}


def _privileged(b: Builder) -> Case:
    rng = b.rng
    name, code = rng.choice(list(PRIVILEGED.items()))
    port = rng.choice((0x80, 0xED, 0xFF, 0x100, 0x101, 0x4BF, 0x4B8, 0xFFFF))
    case = b.case(name, code, rdx=port, rcx=0xC0000080, rax=rng.choice((1, 3, 11, 15)))
    if b.ring and not b.long and not name.startswith("popf") and rng.random() < 0.5:
        case.rflags |= at.EFLAGS_VM
        case.cs, case.ss, case.data, case.label = 0, 0, 0, f"V86 {name}"
        case.rflags = case.rflags & ~(3 << 12) | rng.randrange(4) << 12
    return case


STEPPED = (
    b"\x90",
    b"\x8e\xd0\x90",  # No trap between MOV SS and what follows.
    b"\xcd\x21",
    b"\x9c",
    b"\xf3\xa4",
    b"\x9d\x90",
    b"\x0f\x05",
    b"\xeb\x00",
)


def _single_step(b: Builder) -> Case:
    """Set TF, and step over something."""
    code = SET_TF + b.rng.choice(STEPPED)
    case = b.case(f"TF, {code[len(SET_TF) :].hex(' ')}", code, rax=at.FLAT[b.ring], rsi=at.DATA, rdi=at.DATA + 0x40)
    case.rflags &= ~EFLAGS_DF
    return case


KINDS: tuple[tuple[Callable[[Builder], Case], float], ...] = (
    (_load, 3),
    (_load_pointer, 1),
    (_query, 1),
    (_system_load, 1),
    (_far, 4),
    (_return, 3),
    (_nested_return, 0.6),
    (_interrupt, 3),
    (_privileged, 2),
    (_single_step, 0.7),
)


def make_protected_case(rng: random.Random) -> Case:
    """Draw a case of protected mode."""
    return _draw(rng, long=False)


def make_long_case(rng: random.Random) -> Case:
    """Draw a case of 64-bit mode."""
    return _draw(rng, long=True)


def _draw(rng: random.Random, *, long: bool) -> Case:
    builder = Builder(rng, long)
    (make,) = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
    return make(builder)
