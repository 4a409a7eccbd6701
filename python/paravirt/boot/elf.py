"""ELF files of x86: what to load, and the symbol table.

Program headers are read here, because a kernel's file is not to be trusted and each defect deserves one clear line.
The symbol table, wanted for logs only, is left to pyelftools. Source: System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from paravirt.boot.image import KernelFile, Segment
from paravirt.boot.layout import align_up
from paravirt.errors import ImageError
from paravirt.symbols import SymbolTable

__all__ = ["Elf", "read_elf", "read_symbols"]

MAGIC = b"\x7fELF"
ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB = 1
ET_EXEC, ET_DYN = 2, 3
EM_386, EM_X86_64 = 3, 62
PT_LOAD = 1
PT_NOTE = 4
MAX_NOTES = 256
MAX_PROGRAM_HEADERS = 128

# Behind e_ident: type, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, phnum.
_HEADERS = {ELFCLASS32: struct.Struct("<HHIIIIIHHH"), ELFCLASS64: struct.Struct("<HHIQQQIHHH")}
# 32 bits: type, offset, vaddr, paddr, filesz, memsz, flags, align. 64 bits: type, flags, offset, vaddr, ...
_PROGRAM_HEADERS = {ELFCLASS32: struct.Struct("<IIIIIIII"), ELFCLASS64: struct.Struct("<IIQQQQQQ")}

_MACHINES = {
    2: "SPARC",
    8: "MIPS",
    20: "PowerPC",
    21: "64-bit PowerPC",
    22: "S/390",
    40: "ARM",
    50: "IA-64",
    183: "64-bit ARM",
    243: "RISC-V",
    258: "LoongArch",
}


@dataclass(frozen=True, slots=True)
class Elf:
    """What a loader needs of an ELF file. Addresses are physical."""

    is_64bit: bool
    machine: int
    entry: int
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """A note of a PT_NOTE segment. owner: its name, without the NUL at its end."""

    owner: bytes
    type: int
    description: bytes


def read_elf(file: KernelFile) -> Elf:
    """Read an executable ELF file for x86. Raises ImageError if it is none, or is damaged."""
    data = file.data
    if data[:4] != MAGIC:
        raise ImageError(file.name, "not an ELF file")
    if len(data) < 16:
        raise ImageError(file.name, "truncated within its ELF header")
    elf_class, byte_order = data[4], data[5]
    if elf_class not in _HEADERS or byte_order not in (1, 2):
        raise ImageError(file.name, f"ELF class {elf_class}, byte order {byte_order} are neither 32- nor 64-bit ELF")
    if byte_order != ELFDATA2LSB:
        raise ImageError(file.name, f"an ELF file for {_machine_name(data, 'big')}, not for x86")
    if len(data) < 16 + _HEADERS[elf_class].size:
        raise ImageError(file.name, "truncated within its ELF header")
    header = _HEADERS[elf_class].unpack_from(data, 16)
    elf_type, machine, _version, entry, phoff, _shoff, _flags, _ehsize, phentsize, phnum = header
    if machine not in (EM_386, EM_X86_64):
        raise ImageError(file.name, f"an ELF file for {_machine_name(data, 'little')}, not for x86")
    if elf_type not in (ET_EXEC, ET_DYN):
        raise ImageError(file.name, "an ELF file, but not an executable one")
    segments, notes = _read_segments(file, elf_class, phoff, phentsize, phnum)
    return Elf(elf_class == ELFCLASS64, machine, entry, segments, notes)


def _machine_name(data: bytes, byte_order: str) -> str:
    number = int.from_bytes(data[18:20], "big" if byte_order == "big" else "little")
    return _MACHINES.get(number, f"machine {number}")


def _read_segments(
    file: KernelFile, elf_class: int, phoff: int, phentsize: int, phnum: int
) -> tuple[tuple[Segment, ...], tuple[Note, ...]]:
    layout = _PROGRAM_HEADERS[elf_class]
    if not phnum:
        raise ImageError(file.name, "an ELF file without program headers: nothing to load")
    if phnum > MAX_PROGRAM_HEADERS or phentsize < layout.size:
        raise ImageError(
            file.name, f"an ELF file with {phnum} program headers of {phentsize} bytes is none we can load"
        )
    if phoff + phnum * phentsize > len(file.data):
        raise ImageError(file.name, "truncated within its program headers")
    segments: list[Segment] = []
    notes: list[Note] = []
    for index in range(phnum):
        fields = layout.unpack_from(file.data, phoff + index * phentsize)
        if elf_class == ELFCLASS32:
            kind, offset, _vaddr, paddr, file_size, memory_size, _flags, _align = fields
        else:
            kind, _flags, offset, _vaddr, paddr, file_size, memory_size, _align = fields
        if kind == PT_LOAD and memory_size:
            segments.append(_read_segment(file, index, offset, paddr, file_size, memory_size))
        elif kind == PT_NOTE:
            notes += _read_notes(file.data[offset : offset + file_size])
    if not segments:
        raise ImageError(file.name, "an ELF file without loadable segments")
    return tuple(segments), tuple(notes)


def _read_notes(data: bytes) -> list[Note]:
    """Notes of a segment, up to the first that is damaged. Names and descriptions are padded to 4 bytes in 64-bit
    files too: so do all kernels, whatever the ELF specification says."""
    notes: list[Note] = []
    at = 0
    while at + 12 <= len(data) and len(notes) < MAX_NOTES:
        name_size, description_size, note_type = struct.unpack_from("<III", data, at)
        description_at = at + 12 + align_up(name_size, 4)
        end = description_at + description_size
        if end > len(data):
            break
        name = data[at + 12 : at + 12 + name_size].rstrip(b"\0")
        notes.append(Note(name, note_type, data[description_at:end]))
        at = align_up(end, 4)
    return notes


def _read_segment(file: KernelFile, index: int, offset: int, paddr: int, file_size: int, memory_size: int) -> Segment:
    if offset + file_size > len(file.data):
        raise ImageError(
            file.name,
            f"truncated: segment {index} ends at {offset + file_size:#x} in the file,"
            f" which has {len(file.data):#x} bytes",
        )
    if file_size > memory_size:
        raise ImageError(
            file.name, f"segment {index} has {file_size:#x} bytes in the file and {memory_size:#x} in memory"
        )
    return Segment(paddr, memoryview(file.data)[offset : offset + file_size], memory_size)


def read_symbols(file: KernelFile) -> SymbolTable:
    """Return the functions and labels of an ELF file; none if it has no symbol table, or a damaged one."""
    from elftools.common.exceptions import ELFError, ELFParseError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        elf = ELFFile(io.BytesIO(file.data))
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            return SymbolTable()
        return SymbolTable(
            (symbol.name, symbol["st_value"], symbol["st_size"])
            for symbol in table.iter_symbols()
            if symbol.name and symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] in _NAMED_TYPES
        )
    except (ELFError, ELFParseError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
        # A kernel runs without its symbols; a damaged table is no reason to refuse it.
        return SymbolTable()


_NAMED_TYPES = ("STT_NOTYPE", "STT_FUNC", "STT_OBJECT")
