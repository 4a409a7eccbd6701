"""A file that a user names for its symbols: System.map or what `nm` prints, an ELF file, a Linux kernel as shipped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from paravirt.boot import elf
from paravirt.boot.bzimage import is_bzimage, read_bzimage
from paravirt.boot.image import KernelFile
from paravirt.boot.kallsyms import read_kallsyms
from paravirt.boot.payload import unpack_kernel
from paravirt.errors import ImageError
from paravirt.symbols import SymbolTable

__all__ = ["read_elf_symbols", "read_symbol_file"]

_LINE = re.compile(rb"^([0-9a-fA-F]{8,16}) ([a-zA-Z]) ([\w.$]+)(?:\t\[\w+\])?$", re.MULTILINE)
"""Of System.map, /proc/kallsyms and `nm`: address, type, name."""
NO_PLACES = b"aAU"
"""Types of symbols that are numbers, or are elsewhere."""


def read_symbol_file(file: KernelFile) -> SymbolTable:
    """Return the symbols of any such file. Raises ImageError if there are none in it."""
    if file.data[:4] == elf.MAGIC:
        symbols = read_elf_symbols(file)
    elif is_bzimage(file.data):
        unpacked = unpack_kernel(read_bzimage(file))
        symbols = SymbolTable() if unpacked is None else read_elf_symbols(unpacked)
    else:
        symbols = SymbolTable(_lines(file.data))
    if not len(symbols):
        raise ImageError(
            file.name, "no symbols in it: give a System.map, the output of nm, or an ELF file that has them"
        )
    return symbols


def read_elf_symbols(file: KernelFile) -> SymbolTable:
    """Return the symbols of an ELF file: of its symbol table, or those that a Linux kernel keeps for its own traces."""
    symbols = elf.read_symbols(file)
    return symbols if len(symbols) else read_kallsyms(file.data)


def _lines(data: bytes) -> Iterator[tuple[str, int, int]]:
    for match in _LINE.finditer(data):
        address, kind, name = match.groups()
        if kind not in NO_PLACES:
            yield name.decode("ascii", "replace"), int(address, 16), 0
