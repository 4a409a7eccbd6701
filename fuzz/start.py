"""The modes of the CPU, and what a vCPU needs to be put into one: tables, handlers, registers.

Linear addresses are physical ones. Everything that is executed or written by intention lies in one area of 32 KiB,
so that 16-bit code sees all of it in one segment.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from paravirt import _native

GDT, TSS, IDT, HANDLERS, PAGE_TABLES = 0x500, 0x600, 0x1000, 0x3000, 0x4000
STACKS, STACK_SIZE = 0x8000, 0x1000
SHARED, SHARED_SIZE = 0x20000, 0x8000

ERROR_CODE_VECTORS = (8, 10, 11, 12, 13, 14, 17, 21)
TIMER_VECTOR = 0x40

CR0_PE, CR0_ET, CR0_NE, CR0_WP, CR0_PG = 1, 1 << 4, 1 << 5, 1 << 16, 1 << 31
CR4_VME, CR4_PSE, CR4_PAE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE = (1 << bit for bit in (0, 4, 5, 9, 10, 18))
EFER_LONG = 0x501
RFLAGS, RFLAGS_VM, RFLAGS_IOPL3 = 0x202, 1 << 17, 3 << 12

APIC_BASE, X2APIC_BASE = 0x1B, 0xFEE00C00
SPURIOUS, LVT_TIMER, INITIAL_COUNT, DIVIDER = 0x80F, 0x832, 0x838, 0x83E
PERIODIC, DIVIDE_BY_1 = 1 << 17, 0xB

# What a descriptor has in bits 40 to 55.
CODE16, CODE32, CODE64 = 0x009B, 0xC09B, 0xA09B
DATA16, DATA32 = 0x0093, 0xC093
USER = 0x60
TSS_BUSY = 0x8B


@dataclass(frozen=True)
class Mode:
    """One mode. handlers: width in bits of the code that takes faults and interrupts. extensions: CR4.VME is set, and
    IOPL is 0."""

    code: int
    data: int
    handlers: int
    user: bool = False
    paging: str = ""
    v86: bool = False
    extensions: bool = False


MODES = {
    "real": Mode(CODE16, DATA16, 16),
    "virtual8086": Mode(CODE16, DATA16, 32, user=True, v86=True),
    "virtual8086e": Mode(CODE16, DATA16, 32, user=True, v86=True, extensions=True),
    "protected16": Mode(CODE16, DATA16, 32),
    "protected32": Mode(CODE32, DATA32, 32),
    "paged32": Mode(CODE32, DATA32, 32, user=True, paging="32"),
    "pae": Mode(CODE32, DATA32, 32, paging="pae"),
    "compatibility16": Mode(CODE16, DATA16, 64, paging="long"),
    "compatibility32": Mode(CODE32, DATA32, 64, user=True, paging="long"),
    "long64": Mode(CODE64, DATA32, 64, paging="long"),
    "user64": Mode(CODE64, DATA32, 64, user=True, paging="long"),
}


def write_tables(vm: _native.Vm, mode: str) -> None:
    """Write interrupt vectors and handlers, descriptors, page tables."""
    chosen = MODES[mode]
    memory = vm.memory
    _write_handlers(memory, chosen)
    kernel_code = {16: CODE16, 32: CODE32, 64: CODE64}[chosen.handlers]
    descriptors = [(0, 0, 0), (0, 0xFFFFF, kernel_code), (0, 0xFFFFF, DATA32)]
    base, limit = _segment(chosen)
    descriptors += [(base, limit, chosen.code | level) for level in (0, USER)]
    descriptors += [(base, limit, chosen.data | level) for level in (0, USER)]
    memory.write(GDT, b"".join(_descriptor(*entry) for entry in descriptors))
    for vcpu in range(len(vm.apic_ids())):
        _write_tss(memory, vcpu, chosen.handlers)
    if chosen.paging == "32":
        memory.write_int(PAGE_TABLES, 4, 0x87)
    elif chosen.paging:
        memory.write_int(PAGE_TABLES, 8, PAGE_TABLES + 0x1000 | 7)
        directory = PAGE_TABLES + 0x2000
        memory.write_int(PAGE_TABLES + 0x1000, 8, directory | (7 if chosen.paging == "long" else 1))
        for page in range(2):
            memory.write_int(directory + 8 * page, 8, page << 21 | 0x87)


def _segment(mode: Mode) -> tuple[int, int]:
    """Base and limit, as a descriptor has it, of code and data."""
    return (SHARED, 0xFFFF) if mode.code == CODE16 else (0, 0xFFFFF)


def _descriptor(base: int, limit: int, attributes: int) -> bytes:
    high = attributes | (limit >> 16 & 0xF) << 8
    return struct.pack("<HHBHB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, high, base >> 24)


def _write_tss(memory: _native.Memory, vcpu: int, width: int) -> None:
    tss, stack = TSS + 0x100 * vcpu, STACKS + STACK_SIZE * (vcpu + 1)
    if width == 64:
        memory.write(tss, struct.pack("<I3Q Q2Q", 0, stack, 0, 0, 0, stack - 0x400, stack - 0x800))
    else:
        memory.write(tss, struct.pack("<III", 0, stack, 0x10))
        memory.write_int(tss + 102, 2, 104)


def _write_handlers(memory: _native.Memory, mode: Mode) -> None:
    """Three of them: for faults without and with an error code, which go on one byte further within the shared area,
    and for interrupts, which are acknowledged."""
    base = 0 if mode.code == CODE16 else SHARED
    forward = (
        b"\xff\x04\x24\x81\x24\x24" + struct.pack("<I", SHARED_SIZE - 1) + b"\x81\x0c\x24" + struct.pack("<I", base)
    )
    acknowledge = bytes.fromhex("505152 b90b080000 31c0 31d2 0f30 5a5958")
    if mode.handlers == 16:
        plain = bytes.fromhex("55 89e5 ff4602 816602ff7f c746040020 5d cf")
        codes = (plain, plain, bytes.fromhex("665066516652 66b90b080000 6631c0 6631d2 0f30 665a66596658 cf"))
    elif mode.handlers == 32:
        codes = (forward + b"\xcf", b"\x83\xc4\x04" + forward + b"\xcf", acknowledge + b"\xcf")
    else:
        upper = b"\xc7\x44\x24\x04\0\0\0\0"
        codes = (
            forward + upper + b"\x48\xcf",
            b"\x48\x83\xc4\x08" + forward + upper + b"\x48\xcf",
            acknowledge + b"\x48\xcf",
        )
    for number, code in enumerate(codes):
        memory.write(HANDLERS + 0x40 * number, code)
    for vector in range(256):
        kind = 2 if vector >= 32 else int(vector in ERROR_CODE_VECTORS)
        offset = 0x40 * kind
        if mode.handlers == 16:
            memory.write(4 * vector, struct.pack("<HH", offset, HANDLERS >> 4))
        elif mode.handlers == 32:
            memory.write(IDT + 8 * vector, struct.pack("<HHHH", HANDLERS + offset, 8, 0x8E00, 0))
        else:
            stack = 2 if vector >= 32 else 1
            memory.write(IDT + 16 * vector, struct.pack("<HHHHQ", HANDLERS + offset, 8, 0x8E00 | stack, 0, 0))


def enter(vm: _native.Vm, vcpu: int, mode: str, random: Random, *, xcr0: int = 0) -> None:
    """Put a vCPU at a random place of the shared area in a mode, with random registers and a running timer."""
    chosen = MODES[mode]
    vm.boot_protected32(vcpu, 0, 0, 0)
    state = {"gdtr_base": GDT, "gdtr_limit": 7 * 8 - 1}
    if chosen.handlers == 16:
        state |= {"idtr_base": 0, "idtr_limit": 0x3FF}
    else:
        state |= {"idtr_base": IDT, "idtr_limit": 256 * chosen.handlers // 4 - 1}
        state |= {"tr": 0x38, "tr_base": TSS + 0x100 * vcpu, "tr_limit": 0xFF, "tr_attributes": TSS_BUSY}
    state |= _control_registers(chosen, xcr0)
    state |= _segments(chosen)
    virtual = RFLAGS_VM | (0 if chosen.extensions else RFLAGS_IOPL3)
    state["rflags"] = RFLAGS | (virtual if chosen.v86 else 0)
    for name, value in state.items():
        vm.set_register(vcpu, name, value)
    base = 0 if chosen.code == CODE16 else SHARED
    wide = chosen.code == CODE64
    for name in ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "rip"):
        vm.set_register(vcpu, name, base + random.randrange(SHARED_SIZE))
        if name != "rip" and random.random() < 0.2:
            vm.set_register(vcpu, name, random.getrandbits(64 if wide else 32))
    _start_timer(vm, vcpu, random)


def _control_registers(mode: Mode, xcr0: int) -> dict[str, int]:
    cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | (CR4_OSXSAVE if xcr0 else 0)
    cr4 |= CR4_VME if mode.extensions else 0
    cr4 |= {"": 0, "32": CR4_PSE}.get(mode.paging, CR4_PAE)
    cr0 = CR0_ET | CR0_NE
    if mode.handlers != 16:
        cr0 |= CR0_PE
    if mode.paging:
        cr0 |= CR0_PG | CR0_WP
    cr3 = PAGE_TABLES + (0x1000 if mode.paging == "pae" else 0)
    registers = {"cr3": cr3, "cr4": cr4, "efer": EFER_LONG if mode.paging == "long" else 0, "cr0": cr0}
    return registers | ({"xcr0": xcr0} if xcr0 else {})


def _segments(mode: Mode) -> dict[str, int]:
    base, limit = _segment(mode)
    real = mode.v86 or mode.handlers == 16
    level = USER if mode.user else 0
    rpl = 3 if mode.user else 0
    registers: dict[str, int] = {}
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        attributes = mode.code if name == "cs" else mode.data
        selector = SHARED >> 4 if real else (0x18 if name == "cs" else 0x28) + (8 if mode.user else 0) | rpl
        if mode.v86:
            attributes = DATA16
        registers |= {
            name: selector,
            f"{name}_base": base,
            f"{name}_limit": limit if mode.code == CODE16 else 0xFFFFFFFF,
            f"{name}_attributes": attributes | level,
        }
    return registers


def _start_timer(vm: _native.Vm, vcpu: int, random: Random) -> None:
    for msr, value in (
        (APIC_BASE, X2APIC_BASE | (0x100 if vcpu == 0 else 0)),
        (SPURIOUS, 0x1FF),
        (DIVIDER, DIVIDE_BY_1),
        (LVT_TIMER, PERIODIC | TIMER_VECTOR),
        (INITIAL_COUNT, random.randrange(500, 5000)),
    ):
        try:
            vm.set_msr(vcpu, msr, value)
        except KeyError:  # The guest has left its APIC in a mode from where this is no step.
            return
