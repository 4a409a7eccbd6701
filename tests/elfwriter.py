"""Small ELF files, made to measure: what tests of loaders read instead of committed binaries."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

EM_386, EM_ARM, EM_X86_64, EM_AARCH64 = 3, 40, 62, 183
ET_REL, ET_EXEC = 1, 2


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD segment. memory_size: as long as the data if None."""

    paddr: int
    data: bytes
    memory_size: int | None = None


def multiboot_header(flags: int = 0) -> bytes:
    """Return a multiboot header that says nothing about addresses."""
    return struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF)


def write_elf(
    segments: Sequence[Segment],
    *,
    entry: int,
    bits: int = 32,
    machine: int | None = None,
    elf_type: int = ET_EXEC,
    symbols: Sequence[tuple[str, int, int]] = (),
    notes: Sequence[tuple[bytes, int, bytes]] = (),
) -> bytes:
    """Return an executable ELF file.

    symbols: (name, address, size), all functions. notes: (owner, type, description).
    """
    machine = machine if machine is not None else (EM_386 if bits == 32 else EM_X86_64)
    header_size, phentsize, shentsize = (52, 32, 40) if bits == 32 else (64, 56, 64)
    phnum = len(segments) + bool(notes)
    body_at = header_size + phentsize * phnum
    headers, body = b"", b""
    for segment in segments:
        offset = body_at + len(body)
        size = len(segment.data)
        memory_size = size if segment.memory_size is None else segment.memory_size
        if bits == 32:
            headers += struct.pack("<IIIIIIII", 1, offset, segment.paddr, segment.paddr, size, memory_size, 7, 4)
        else:
            headers += struct.pack("<IIQQQQQQ", 1, 7, offset, segment.paddr, segment.paddr, size, memory_size, 4)
        body += segment.data
    if notes:
        content = b"".join(_note(*note) for note in notes)
        place = (body_at + len(body), 0, 0, len(content), len(content))
        headers += (
            struct.pack("<IIIIIIII", 4, *place, 4, 4) if bits == 32 else struct.pack("<IIQQQQQQ", 4, 4, *place, 4)
        )
        body += content
    sections, section_count, sections_at = _symbol_sections(symbols, bits, body_at + len(body), shentsize)
    body += sections
    ident = b"\x7fELF" + bytes((1 if bits == 32 else 2, 1, 1)) + bytes(9)
    fields = (
        *(elf_type, machine, 1, entry, header_size, sections_at, 0),
        *(header_size, phentsize, phnum, shentsize, section_count, max(section_count - 1, 0)),
    )
    header = ident + struct.pack("<HHIIIIIHHHHHH" if bits == 32 else "<HHIQQQIHHHHHH", *fields)
    return header + headers + body


def _note(owner: bytes, note_type: int, description: bytes) -> bytes:
    name = owner + b"\0"
    header = struct.pack("<III", len(name), len(description), note_type)
    return header + b"".join(text + bytes(-len(text) % 4) for text in (name, description))


def _symbol_sections(
    symbols: Sequence[tuple[str, int, int]], bits: int, at: int, shentsize: int
) -> tuple[bytes, int, int]:
    """Return the symbol and string tables with their section headers; how many; and where the headers are."""
    if not symbols:
        return b"", 0, 0
    names, table = b"\0", bytes(16 if bits == 32 else 24)
    for name, address, size in symbols:
        if bits == 32:
            table += struct.pack("<IIIBBH", len(names), address, size, 0x12, 0, 0xFFF1)
        else:
            table += struct.pack("<IBBHQQ", len(names), 0x12, 0, 0xFFF1, address, size)
        names += name.encode() + b"\0"
    section_names = b"\0.symtab\0.strtab\0.shstrtab\0"
    table_at, names_at = at, at + len(table)
    section_names_at = names_at + len(names)
    headers_at = section_names_at + len(section_names)
    form = "<IIIIIIIIII" if bits == 32 else "<IIQQQQIIQQ"
    headers = bytes(shentsize)
    headers += struct.pack(form, 1, 2, 0, 0, table_at, len(table), 2, 1, 4, 16 if bits == 32 else 24)
    headers += struct.pack(form, 9, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    headers += struct.pack(form, 17, 3, 0, 0, section_names_at, len(section_names), 0, 0, 1, 0)
    return table + names + section_names + headers, 4, headers_at
