"""Addresses in the guest that runs generated cases, the same for the monitor (as macros) and for the generator."""

from __future__ import annotations

# Low memory, which each case finds fresh: whatever it changes there is in its record.
ARENA = 0x2000
GDT = 0x2000
GDT_LIMIT = 0x1FF
LDT = 0x2200
LDT_LIMIT = 0x7F
IDT = 0x2400
IDT_LIMIT = 0x3FF
TSS = 0x2800
TSS_LIMIT = 0xFF
OTHER_TSS = 0x2A00
TSS_16 = 0x2B00
CODE = 0x3000
STACKS = 0x4000
STACK_SIZE = 0x400
USER_STACK_TOP = 0x6000
DATA = 0x6000
SMALL_ARENA_END = 0x7000
PML5 = 0x7000
PML4 = 0x8000
PDPT = 0x9000
PD = 0xA000
PT = 0xB000
PAGE = 0xC000
ARENA_END = 0xE000

# The image, at 1 MiB.
MONITOR = 0x100000
STUBS32 = 0x101000
STUBS64 = 0x101400
STUBS_TASK = 0x101800
SHADOW = 0x120000
STACK_TOP = 0x140000
"""The monitor's own stack."""
IST_TOP = 0x150000
TASK_STACK_TOP = 0x160000
IDENTITY_PT32 = 0x1C0000
IDENTITY_PT = 0x1C1000
IDENTITY_PD = 0x1C2000
IDENTITY_PDPT = 0x1C3000
IDENTITY_PML4 = 0x1C4000
PRISTINE = 0x1E0000
MONITOR_TSS = 0x1FE000
PARAMETERS = 0x1FF000
CASES = 0x200000
RECORDS = 0x3000000
MEMORY = 0x4000000

# Fields of a case.
C_FLAGS = 4
C_CR0 = 8
C_CR3 = 12
C_CR4 = 16
C_EFER = 20
C_PKRU = 24
C_TR = 28
C_LDTR = 32
C_DATA = 36
C_RIP = 40
C_CS = 48
C_RFLAGS = 52
C_RSP = 56
C_SS = 64
C_NUM_PATCHES = 68
C_RAX = 72
C_RCX = 80
C_RDX = 88
C_RBX = 96
C_RBP = 104
C_RSI = 112
C_RDI = 120
C_DR7 = 128
C_NUM_MSRS = 132
C_DR0 = 136
C_DR1 = 144
C_DR2 = 152
C_DR3 = 160
C_PATCHES = 168

EFLAGS_VM = 1 << 17
RECORD_DWORDS = 14 + 2 * 12

# Selectors of the GDT that every case has.
CODE32 = (0x08, 0x29, 0x3A, 0x4B)
"""By ring, as those below."""
FLAT = (0x10, 0x31, 0x42, 0x53)
CODE64 = (0x18, 0, 0, 0x5B)
CODE16 = (0x20, 0, 0, 0x63)
MAIN_TSS = 0x70
MAIN_LDT = 0x80
TASKS = (0x90, 0x98, 0xA0)
"""Task gates' tasks for #DF, #TS and #SS."""
FIRST_TESTED = 0xC0
"""From here on the descriptors are the case's own."""


def macros() -> dict[str, int]:
    """Return the numbers for the assembler."""
    return {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
