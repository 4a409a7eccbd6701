"""Guest-physical memory as Python sees it, and sizes as people write them."""

from __future__ import annotations

import re

from paravirt import _native
from paravirt.errors import ConfigurationError, GuestMemoryError

__all__ = ["GuestMemory", "parse_memory_size"]

PAGE_SIZE = 4096
MIB = 1 << 20
MIN_MEMORY_BYTES = MIB
MAX_MEMORY_BYTES = 1 << 40

_UNITS = {"": MIB, "K": 1 << 10, "M": MIB, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,15})([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_memory_size(size: int | str) -> int:
    """Return a memory size in bytes.

    size: bytes as an int, or text such as `"512K"`, `"64M"`, `"1G"`; text without a unit means MiB, as for QEMU's
    `-m`. Raises ConfigurationError unless it is a whole number of pages between 1 MiB and 1 TiB, both inclusive.
    """
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise _size_error(size, "must be a number of bytes or text such as '64M'")
    if isinstance(size, str):
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise _size_error(size, "is not a size; write it as '64M' or '1G'")
        num_bytes = int(match[1]) * _UNITS[match[2].upper()]
    else:
        num_bytes = size
    if num_bytes < MIN_MEMORY_BYTES:
        raise _size_error(size, "is too small; the least is '1M'")
    if num_bytes > MAX_MEMORY_BYTES:
        raise _size_error(size, "is too large; the most is '1T'")
    if num_bytes % PAGE_SIZE:
        raise _size_error(size, f"is not a multiple of {PAGE_SIZE} bytes")
    return num_bytes


def _size_error(size: object, text: str) -> ConfigurationError:
    return ConfigurationError(f"memory {size!r} {text}", option="memory", value=size)


class GuestMemory:
    """RAM by guest-physical address.

    Reads and writes go to the machine's RAM at once, whether it runs or not; a write marks pages dirty and drops
    decoded code. Raises GuestMemoryError where there is no RAM.
    """

    __slots__ = ("_native",)

    def __init__(self, memory: _native.Memory) -> None:
        self._native = memory

    @property
    def size(self) -> int:
        """Bytes of RAM."""
        return self._native.size

    def ranges(self) -> list[tuple[int, int]]:
        """Return RAM as (gpa, length in bytes), ascending; two entries when it goes on above the hole at 3 GiB."""
        return self._native.ranges()

    def read(self, gpa: int, length: int) -> bytes:
        """Return `length` bytes at `gpa`."""
        try:
            return self._native.read(gpa, length)
        except (_native.MemoryRangeError, OverflowError):
            raise GuestMemoryError(gpa, length) from None

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `gpa`, or nothing."""
        try:
            self._native.write(gpa, data)
        except (_native.MemoryRangeError, OverflowError):
            raise GuestMemoryError(gpa, len(data)) from None

    def clear(self, gpa: int, length: int) -> None:
        """Zero `length` bytes at `gpa`, all or nothing. Pages that are zero already cost neither time nor memory."""
        try:
            self._native.clear(gpa, length)
        except (_native.MemoryRangeError, OverflowError):
            raise GuestMemoryError(gpa, length) from None

    def read_int(self, gpa: int, size: int) -> int:
        """Return a little-endian unsigned number of `size` bytes (1, 2, 4 or 8)."""
        try:
            return self._native.read_int(gpa, size)
        except (_native.MemoryRangeError, OverflowError):
            raise GuestMemoryError(gpa, size) from None

    def write_int(self, gpa: int, size: int, value: int) -> None:
        """Write a little-endian number of `size` bytes (1, 2, 4 or 8); `value` is truncated to it."""
        try:
            self._native.write_int(gpa, size, value & ((1 << 8 * size) - 1))
        except (_native.MemoryRangeError, OverflowError):
            raise GuestMemoryError(gpa, size) from None

    def take_dirty_pages(self) -> list[int]:
        """Return the GPAs of the 4096-byte pages written since the last call, ascending."""
        return self._native.take_dirty_pages()

    def __repr__(self) -> str:
        return f"<GuestMemory {self.size // MIB} MiB>"
