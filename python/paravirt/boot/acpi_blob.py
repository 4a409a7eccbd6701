"""ACPI tables in one block that can still be moved.

Tables name each other by address, and have checksums over that. The block keeps where its pointers and checksums are:
`placed` finishes it for an address, and firmware that chooses the address itself gets the lists.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from paravirt.boot.layout import align_up

__all__ = ["FACS_BYTES", "FACS_WAKING_VECTOR", "AcpiBlob", "Pointer", "Table", "checksum"]

FACS_BYTES = 64
FACS_WAKING_VECTOR = 12
CHECKSUM_OFFSET = 9


class Pointer(NamedTuple):
    """A field of `size` bytes at `offset` that holds an address in the block, given by the target's offset there."""

    offset: int
    size: int
    target: int


class Table(NamedTuple):
    """Where a table with a header lies in the block."""

    offset: int
    length: int


class AcpiBlob:
    """The block. rsdt and xsdt: offsets of these two, once they are added."""

    HEADER_BYTES: ClassVar[int] = 36
    OEM_ID: ClassVar[bytes] = b"PARAVT"
    OEM_TABLE_ID: ClassVar[bytes] = b"PARAVIRT"
    CREATOR_ID: ClassVar[bytes] = b"PVRT"

    def __init__(self) -> None:
        self.data = bytearray()
        """The block with offsets for addresses, and without checksums."""
        self.pointers: list[Pointer] = []
        self.tables: list[Table] = []
        self.rsdt = self.xsdt = 0

    def add_raw(self, structure: bytes) -> int:
        """Add a structure without a header. Returns its offset, a multiple of 64 if nothing was before it."""
        offset = align_up(len(self.data), 8)
        self.data = self.data.ljust(offset, b"\0") + structure
        return offset

    def add(self, signature: bytes, revision: int, body: bytes, pointers: Sequence[Pointer] = ()) -> int:
        """Add a table. pointers: in it, with offsets from the table's start. Returns its offset."""
        length = self.HEADER_BYTES + len(body)
        names = (self.OEM_ID, self.OEM_TABLE_ID, 1, self.CREATOR_ID, 1)
        offset = self.add_raw(struct.pack("<4sIBB6s8sI4sI", signature, length, revision, 0, *names) + body)
        self.tables.append(Table(offset, length))
        for pointer in pointers:
            moved = pointer._replace(offset=offset + pointer.offset)
            self.pointers.append(moved)
            self._store(self.data, moved, 0)
        return offset

    def add_index(self, signature: bytes, tables: Sequence[int], pointer_size: int) -> int:
        """Add a table of pointers to the tables at these offsets: RSDT and XSDT. Returns its offset."""
        offsets = range(self.HEADER_BYTES, self.HEADER_BYTES + pointer_size * len(tables), pointer_size)
        pointers = [Pointer(offset, pointer_size, table) for offset, table in zip(offsets, tables, strict=True)]
        return self.add(signature, 1, bytes(pointer_size * len(tables)), pointers)

    def placed(self, gpa: int) -> bytes:
        """Return the block finished for that address, a multiple of 64."""
        block = bytearray(self.data)
        for pointer in self.pointers:
            self._store(block, pointer, gpa)
        for offset, length in self.tables:
            block[offset + CHECKSUM_OFFSET] = checksum(block[offset : offset + length])
        return bytes(block)

    @staticmethod
    def _store(block: bytearray, pointer: Pointer, base: int) -> None:
        value = base + pointer.target
        block[pointer.offset : pointer.offset + pointer.size] = value.to_bytes(pointer.size, "little")


def checksum(data: bytes | bytearray) -> int:
    """Return the byte that makes the sum of all, its own place being 0, come to 0."""
    return -sum(data) & 0xFF
