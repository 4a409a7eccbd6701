"""Makes a bootable image out of cases, and reads the records of how they ended."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import layout as at

MONITOR_SOURCE = Path(__file__).with_name("monitor.S")
PRESENT, WRITE, USER = 1, 2, 4
UD2 = b"\x0f\x0b"
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi")


@dataclass
class Case:
    """A state to start from; what is not given is that of ring 0 in flat 32-bit code without paging."""

    label: str
    """What it is about, for whoever reads a difference."""
    long: bool = False
    cr0: int = 0x11
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    pkru: int = 0
    tr: int = at.MAIN_TSS
    ldtr: int = at.MAIN_LDT
    cs: int = at.CODE32[0]
    ss: int = at.FLAT[0]
    data: int = at.FLAT[0]
    rip: int = at.CODE
    rsp: int = at.STACKS + at.STACK_SIZE
    rflags: int = 2
    registers: dict[str, int] = field(default_factory=dict)
    msrs: dict[int, int] = field(default_factory=dict)
    breakpoints: tuple[int, int, int, int] = (0, 0, 0, 0)
    dr7: int = 0x400
    memory: dict[int, bytes] = field(default_factory=dict)
    """Stores before the start, in this order."""

    def ring_of_code(self) -> int:
        """Return the privilege level at which it starts."""
        return 3 if self.rflags & at.EFLAGS_VM else self.cs & 3

    def pack(self) -> bytes:
        """Encode as monitor.S reads it."""
        dwords = self._patches()
        head = struct.pack(
            "<10I", int(self.long), self.cr0, self.cr3, self.cr4, self.efer, self.pkru, self.tr, self.ldtr, self.data, 0
        )[:-4]
        frame = struct.pack("<QIIQII", self.rip, self.cs, self.rflags, self.rsp, self.ss, len(dwords))
        registers = struct.pack("<7Q", *(self.registers.get(name, 0) for name in REGISTERS))
        debug = struct.pack("<II4Q", self.dr7, len(self.msrs), *self.breakpoints)
        body = head + frame + registers + debug + b"".join(struct.pack("<II", *store) for store in dwords)
        body += b"".join(struct.pack("<IQ", *msr) for msr in self.msrs.items())
        return struct.pack("<I", len(body) + 4) + body

    def _patches(self) -> list[tuple[int, int]]:
        stores = []
        for address, data in self.memory.items():
            padded = data + bytes(-len(data) % 4)
            stores += [(address + 4 * i, value) for i, (value,) in enumerate(struct.iter_unpack("<I", padded))]
        return stores


@dataclass(frozen=True)
class Record:
    """How a case ended."""

    fields: dict[str, int]
    changes: dict[int, int]
    """Dwords of low memory, by address."""

    def describe(self) -> str:
        """One line."""
        fields = " ".join(f"{name}={value:x}" for name, value in self.fields.items())
        changes = " ".join(f"[{address:x}]={value:x}" for address, value in self.changes.items())
        return f"{fields} {changes}"


FIELDS = (
    *("vector", "error", "cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr", "cr0", "cr4", "dr6", "dr7"),
    *("cr2", "rip", "rflags", "rsp", *REGISTERS, "r11"),
)
RECORD = struct.Struct("<14I12Q")


def read_records(memory: bytes, count: int) -> list[Record]:
    """Decode the records at the beginning of what starts at RECORDS."""
    records = []
    offset = 0
    for index in range(count):
        (number,) = struct.unpack_from("<I", memory, offset)
        assert number == index
        fields = dict(zip(FIELDS, RECORD.unpack_from(memory, offset + 4), strict=True))
        offset += 4 + RECORD.size
        (changed,) = struct.unpack_from("<I", memory, offset)
        pairs = struct.unpack_from(f"<{2 * changed}I", memory, offset + 4)
        records.append(Record(fields, dict(zip(pairs[::2], pairs[1::2], strict=True))))
        offset += 4 + 8 * changed
    return records


def build_monitor(directory: Path) -> bytes:
    """Assemble the monitor with the C compiler."""
    target = directory / "monitor.o"
    flat = directory / "monitor.bin"
    macros = [f"-D{name}={value:#x}" for name, value in at.macros().items()]
    subprocess.run(["gcc", "-m64", "-c", *macros, "-o", target, MONITOR_SOURCE], check=True)
    link = ["-nostdlib", "-static", "-no-pie", f"-Wl,-Ttext={at.MONITOR:#x}", "-Wl,--oformat=binary,--build-id=none"]
    subprocess.run(["gcc", "-m64", *link, "-o", flat, target], check=True)
    return flat.read_bytes()


def make_image(monitor: bytes, cases: Sequence[Case], *, small: bool) -> bytes:
    """Return a multiboot image. small: page tables are not part of what is compared."""
    packed = b"".join(case.pack() for case in cases)
    image = bytearray(at.CASES - at.MONITOR) + packed
    assert at.MONITOR + len(image) <= at.RECORDS, "too many cases for one image"
    end = at.SMALL_ARENA_END if small else at.ARENA_END

    def put(address: int, data: bytes) -> None:
        image[address - at.MONITOR : address - at.MONITOR + len(data)] = data

    put(at.MONITOR, monitor)
    put(at.MONITOR + 20, struct.pack("<II", at.MONITOR + len(image), 0))
    for address, data in low_memory().items():
        put(at.PRISTINE + address - at.ARENA, data)
    for address, data in outside().items():
        put(address, data)
    put(at.PARAMETERS, struct.pack("<III", len(cases), (end - at.ARENA) // 4, 0))
    return bytes(image)


def descriptor(base: int, limit: int, access: int, flags: int = 0) -> bytes:
    """Encode a segment descriptor. access: the byte with type and P; flags: G, D, L, AVL as bits 3 to 0."""
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, flags << 4 | limit >> 16 & 15, base >> 24
    )


def gate(selector: int, offset: int, access: int, parameters: int = 0) -> bytes:
    """Encode a gate of 8 bytes. access: the byte with type, DPL and P."""
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, parameters, access, offset >> 16 & 0xFFFF)


def gate64(selector: int, offset: int, access: int, ist: int = 0) -> bytes:
    """Encode a gate of 16 bytes."""
    return gate(selector, offset, access, ist) + struct.pack("<II", offset >> 32, 0)


def task_state(**fields: int) -> bytes:
    """Encode a 32-bit TSS."""
    offsets = {"link": 0, "esp0": 4, "ss0": 8, "esp1": 12, "ss1": 16, "esp2": 20, "ss2": 24, "cr3": 28, "eip": 32}
    offsets |= {"eflags": 36, "eax": 40, "ecx": 44, "edx": 48, "ebx": 52, "esp": 56, "ebp": 60, "esi": 64, "edi": 68}
    offsets |= {"es": 72, "cs": 76, "ss": 80, "ds": 84, "fs": 88, "gs": 92, "ldt": 96, "trap": 100}
    state = bytearray(0x68)
    for name, value in fields.items():
        struct.pack_into("<I", state, offsets[name], value)
    return bytes(state)


def low_memory() -> dict[int, bytes]:
    """Return what each case finds below 1 MiB: 32-bit tables."""
    flat = 0xFFFFF
    gdt = bytearray(at.GDT_LIMIT + 1)

    def put(selector: int, data: bytes) -> None:
        gdt[selector & ~7 : (selector & ~7) + len(data)] = data

    for ring in range(4):
        put(at.CODE32[ring], descriptor(0, flat, 0x9B | ring << 5, 0xC))
        put(at.FLAT[ring], descriptor(0, flat, 0x93 | ring << 5, 0xC))
    for ring in (0, 3):
        put(at.CODE64[ring], descriptor(0, flat, 0x9B | ring << 5, 0xA))
        put(at.CODE16[ring], descriptor(0, 0xFFFF, 0x9B | ring << 5))
    put(at.MAIN_TSS, descriptor(at.TSS, at.TSS_LIMIT, 0x89))
    put(at.MAIN_LDT, descriptor(at.LDT, at.LDT_LIMIT, 0x82))
    for i, selector in enumerate(at.TASKS):
        put(selector, descriptor(at.MONITOR_TSS + 0x80 * i, 0x67, 0x89))
    idt = b"".join(gate(at.CODE32[0], at.STUBS32 + 16 * vector, 0x8E) for vector in range(32))
    for vector, selector in zip((8, 10, 12), at.TASKS, strict=True):
        idt = idt[: 8 * vector] + gate(selector, 0, 0x85) + idt[8 * vector + 8 :]
    tops = {f"esp{ring}": at.STACKS + at.STACK_SIZE * (ring + 1) for ring in range(3)}
    stacks = {f"ss{ring}": at.FLAT[ring] for ring in range(3)}
    tss = task_state(**tops, **stacks)[:0x64] + struct.pack("<I", 0x68 << 16)
    io_bitmap = bytes(0x20) + b"\xff" * (at.TSS_LIMIT + 1 - 0x68 - 0x20)
    return {
        at.GDT: bytes(gdt),
        at.IDT: idt,
        at.TSS: tss + io_bitmap,
        at.CODE: UD2 * 0x800,
        at.PAGE: UD2 * 0x1000,
    }


def long_tables() -> dict[int, bytes]:
    """Return what differs in long mode: stores for a case."""
    idt = b"".join(gate64(at.CODE64[0], at.STUBS64 + 16 * vector, 0x8E, 1) for vector in range(32))
    tss = bytearray(0x68)
    for i in range(3):
        struct.pack_into("<Q", tss, 4 + 8 * i, at.STACKS + at.STACK_SIZE * (i + 1))
    struct.pack_into("<Q", tss, 0x24, at.IST_TOP)
    struct.pack_into("<H", tss, 0x66, 0x68)
    return {
        at.GDT + at.MAIN_TSS: descriptor(at.TSS, at.TSS_LIMIT, 0x89) + bytes(8),
        at.GDT + at.MAIN_LDT: descriptor(at.LDT, at.LDT_LIMIT, 0x82) + bytes(8),
        at.IDT: idt,
        at.TSS: bytes(tss),
    }


def outside() -> dict[int, bytes]:
    """Return tables that no case changes: the monitor's tasks, and page tables that map low memory and the monitor."""
    tables = {
        at.MONITOR_TSS + 0x80 * i: task_state(
            **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), at.FLAT[0]),
            cs=at.CODE32[0],
            esp=at.TASK_STACK_TOP,
            eip=at.STUBS_TASK + 16 * i,
            eflags=2,
        )
        for i in range(3)
    }
    pages = 512
    tables[at.IDENTITY_PT32] = struct.pack("<1024I", *(page << 12 | PRESENT | WRITE for page in range(1024)))
    tables[at.IDENTITY_PT] = struct.pack("<512Q", *(page << 12 | PRESENT | WRITE for page in range(pages)))
    for table, entry in (
        (at.IDENTITY_PD, at.IDENTITY_PT),
        (at.IDENTITY_PDPT, at.IDENTITY_PD),
        (at.IDENTITY_PML4, at.IDENTITY_PDPT),
    ):
        tables[table] = struct.pack("<Q", entry | PRESENT | WRITE | USER)
    return tables
