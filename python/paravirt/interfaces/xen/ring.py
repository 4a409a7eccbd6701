"""Rings of bytes in a shared page: data, and two indices that only ever grow and are taken modulo the ring's size.

One end writes and moves `prod`, the other reads and moves `cons`. The guest may write anything to both, so they are
looked at anew each time, and never believed when they say that there is more than the ring can hold.
"""

from __future__ import annotations

from paravirt.memory import GuestMemory

__all__ = ["Ring"]

MASK32 = (1 << 32) - 1


class Ring:
    """One ring. size: in bytes, a power of two. Addresses are guest-physical."""

    def __init__(self, memory: GuestMemory, data: int, size: int, cons: int, prod: int) -> None:
        self._memory = memory
        self._data = data
        self._size = size
        self._cons = cons
        self._prod = prod

    @property
    def used(self) -> int:
        """How many bytes are in it; 0 if its indices make no sense."""
        used = (self._memory.read_int(self._prod, 4) - self._memory.read_int(self._cons, 4)) & MASK32
        return used if used <= self._size else 0

    @property
    def room(self) -> int:
        """How many bytes fit; 0 if its indices make no sense."""
        used = (self._memory.read_int(self._prod, 4) - self._memory.read_int(self._cons, 4)) & MASK32
        return self._size - used if used <= self._size else 0

    def take(self, limit: int) -> bytes:
        """Take out what is in it, at most `limit` bytes."""
        length = min(self.used, limit)
        if not length:
            return b""
        cons = self._memory.read_int(self._cons, 4)
        start = cons % self._size
        first = self._memory.read(self._data + start, min(length, self._size - start))
        rest = self._memory.read(self._data, length - len(first))
        self._memory.write_int(self._cons, 4, cons + length)
        return first + rest

    def put(self, data: bytes) -> int:
        """Put in as much as fits. Returns how many bytes that was."""
        data = data[: self.room]
        if not data:
            return 0
        prod = self._memory.read_int(self._prod, 4)
        start = prod % self._size
        first = data[: self._size - start]
        self._memory.write(self._data + start, first)
        self._memory.write(self._data, data[len(first) :])
        self._memory.write_int(self._prod, 4, prod + len(data))
        return len(data)
