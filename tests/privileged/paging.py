"""Generated page tables: permissions, reserved bits and page sizes of every level, and what control registers add.

One address is under test, at the page PAGE of low memory, in a part of the address space whose tables are the case's
own, so that records show their accessed and dirty bits. The page behind it has its own entry, for accesses in both.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from . import layout as at
from .image import PRESENT, UD2, USER, WRITE, Case, long_tables

ACCESSED, DIRTY, LARGE, GLOBAL, NX = 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
CR0 = 0x80000011
CR0_WP = 1 << 16
CR4_PSE, CR4_PAE, CR4_PGE, CR4_LA57, CR4_SMEP, CR4_SMAP, CR4_PKE = (1 << bit for bit in (4, 5, 7, 12, 20, 21, 22))
CR4_PKS = 1 << 24
PKRS = 0x6E1
EFER_LME, EFER_NXE = 1 << 8, 1 << 11
EFLAGS_AC = 1 << 18
PAGE_FRAME = at.PAGE
MAX_PHYSICAL_BITS = 46
"""As CPUID says; QEMU is told so."""


@dataclass(frozen=True)
class Mode:
    """A paging mode. levels: tables of the tested part from its root, as (address, index of the tested entry)."""

    name: str
    entry_bytes: int
    root: int
    levels: tuple[tuple[int, int], ...]
    identity: tuple[int, int]
    """The entry that maps low memory: its address and value."""
    linear: int
    cr4: int = 0
    efer: int = 0


_INDEX = at.PAGE >> 12
MODES = (
    Mode(
        "32-bit",
        4,
        at.PD,
        ((at.PD, 1), (at.PT, _INDEX)),
        (at.PD, at.IDENTITY_PT32 | PRESENT | WRITE | USER),
        1 << 22 | at.PAGE,
    ),
    Mode(
        "PAE",
        8,
        at.PDPT,
        ((at.PD, 0), (at.PT, _INDEX)),
        (at.PDPT, at.IDENTITY_PD | PRESENT),
        1 << 30 | at.PAGE,
        CR4_PAE,
    ),
    Mode(
        "4-level",
        8,
        at.PML4,
        ((at.PML4, 1), (at.PDPT, 0), (at.PD, 0), (at.PT, _INDEX)),
        (at.PML4, at.IDENTITY_PDPT | PRESENT | WRITE | USER),
        1 << 39 | at.PAGE,
        CR4_PAE,
        EFER_LME,
    ),
    Mode(
        "5-level",
        8,
        at.PML5,
        ((at.PML5, 1), (at.PML4, 0), (at.PDPT, 0), (at.PD, 0), (at.PT, _INDEX)),
        (at.PML5, at.IDENTITY_PML4 | PRESENT | WRITE | USER),
        1 << 48 | at.PAGE,
        CR4_PAE | CR4_LA57,
        EFER_LME,
    ),
)

# The address is in EBX or RBX. REX prefixes are added where they are needed.
ACCESSES = {
    "load": b"\x8b\x03",
    "store": b"\x89\x03",
    "add": b"\x01\x03",
    "xchg": b"\x87\x03",
    "cmpxchg": b"\x0f\xb1\x0b",
    "test": b"\x85\x03",
    "byte": b"\x88\x03",
    "execute": b"\xff\xe3",
    "push": b"\xff\x33",
    "pop": b"\x8f\x03",
    "shift by 0": b"\xd3\x23",
    "bts": b"\x0f\xab\x0b",
    "call": b"\xff\x13",
}
OFFSETS = (0, 0, 0, 8, 0x800, 0xFFC, 0xFFE, 0xFFF)


def make_keys_case(rng: random.Random) -> Case:
    """Draw a case in which pages have protection keys, those of the kernel too."""
    case = _draw(rng, tuple(mode for mode in MODES if mode.efer))
    case.cr4 |= CR4_PKS | rng.choice((0, CR4_PKE))
    # Key 0 is the monitor's.
    case.msrs[PKRS] = rng.choice((4, 8, 12, 0x55555554, 0xAAAAAAA8, 0xFFFFFFFC, rng.getrandbits(32) & ~3))
    return case


def make_paging_case(rng: random.Random) -> Case:
    """Draw one case."""
    return _draw(rng, MODES)


def _draw(rng: random.Random, modes: tuple[Mode, ...]) -> Case:
    mode = rng.choice(modes)
    user = rng.random() < 0.5
    cr4 = mode.cr4 | sum(bit for bit in (CR4_PSE, CR4_PGE, CR4_SMEP, CR4_SMAP) if rng.random() < 0.5)
    long = bool(mode.efer)
    if long and rng.random() < 0.3:
        cr4 |= CR4_PKE
    efer = mode.efer | (EFER_NXE if mode.cr4 & CR4_PAE and rng.random() < 0.6 else 0)
    name, access = rng.choice(list(ACCESSES.items()))
    linear = mode.linear + rng.choice(OFFSETS)
    if name == "execute":
        linear &= ~1  # UD2 is at even addresses.
    memory = dict(long_tables()) if long else {}
    memory |= _tables(rng, mode, cr4, efer)
    _map_user_pages(mode, memory, user)
    memory[at.CODE] = access + UD2
    if long and rng.random() < 0.05:
        linear ^= rng.choice((1 << 63, 1 << 56, 1 << 47, 0xFFFF << 48))
    ring = 3 if user else 0
    return Case(
        f"{mode.name} {name} at {linear:x}, ring {ring}",
        long=long,
        cr0=CR0 | rng.choice((0, CR0_WP)),
        cr3=mode.root,
        cr4=cr4,
        efer=efer,
        pkru=rng.choice((0, 0, 4, 8, 12, 0x55555554, 0xFFFFFFFF)),
        cs=(at.CODE64 if long else at.CODE32)[ring],
        ss=at.FLAT[ring],
        data=at.FLAT[ring],
        rsp=at.USER_STACK_TOP if user else at.STACKS + at.STACK_SIZE,
        rflags=2 | rng.choice((0, EFLAGS_AC)),
        registers={"rax": rng.getrandbits(32), "rbx": linear, "rcx": rng.randrange(32)},
        memory=memory,
    )


def _map_user_pages(mode: Mode, memory: dict[int, bytes], user: bool) -> None:
    """Code and the user's stack belong to the ring that runs."""
    for page in (at.CODE >> 12, at.USER_STACK_TOP - 1 >> 12):
        entry = page << 12 | PRESENT | WRITE | (USER if user else 0)
        if mode.entry_bytes == 4:
            memory[at.IDENTITY_PT32 + 4 * page] = struct.pack("<I", entry)
        else:
            memory[at.IDENTITY_PT + 8 * page] = struct.pack("<Q", entry)


def _tables(rng: random.Random, mode: Mode, cr4: int, efer: int) -> dict[int, bytes]:
    def pack(entry: int) -> bytes:
        return struct.pack("<I", entry & 0xFFFFFFFF) if mode.entry_bytes == 4 else struct.pack("<Q", entry)

    memory = {mode.identity[0]: pack(mode.identity[1])}
    if mode.name == "PAE":
        memory[at.PDPT + 8] = pack(at.PD | PRESENT)
    damage = rng.random() < 0.4
    damaged = rng.randrange(len(mode.levels)) if damage else -1
    for depth, (table, index) in enumerate(mode.levels):
        last = depth == len(mode.levels) - 1
        frame = PAGE_FRAME if last else mode.levels[depth + 1][0]
        entry = frame | _permissions(rng, mode, efer, depth == damaged)
        large = not last and len(mode.levels) - 2 - depth < (2 if mode.efer else 1) and rng.random() < 0.2
        if large and (mode.entry_bytes == 8 or cr4 & CR4_PSE):
            entry = entry & ~(0xFFFFF << 12) | LARGE
            if rng.random() < 0.1:  # A reserved bit. (In 4-byte entries lower ones are bits 32 and up of the address.)
                entry |= 1 << (rng.randrange(13, 21) if mode.entry_bytes == 8 else 21)
        elif rng.random() < 0.03 and (last or mode.entry_bytes == 8):
            entry |= LARGE
            if not last:
                entry &= ~(0xFFFFF << 12)
        memory[table + mode.entry_bytes * index] = pack(entry)
        if last:
            second = PAGE_FRAME + 0x1000 | _permissions(rng, mode, efer, rng.random() < 0.3)
            memory[table + mode.entry_bytes * (index + 1)] = pack(second)
    return memory


def _permissions(rng: random.Random, mode: Mode, efer: int, damage: bool) -> int:
    """Draw the bits of an entry besides its address, most of them generous, unless it is to be damaged."""
    chance = 0.5 if damage else 0.85
    bits = sum(bit for bit in (PRESENT, WRITE, USER) if rng.random() < chance)
    bits |= PRESENT if not damage else 0
    bits |= sum(bit for bit in (ACCESSED, DIRTY, GLOBAL, 1 << 9, 1 << 3, 1 << 4) if rng.random() < 0.3)
    if mode.entry_bytes == 8:
        if rng.random() < (0.3 if efer & EFER_NXE else 0.04):
            bits |= NX
        if rng.random() < 0.05:
            bits |= 1 << rng.randrange(MAX_PHYSICAL_BITS, 63)
        if mode.efer and rng.random() < 0.5:
            bits |= rng.randrange(16) << 59
    return bits
