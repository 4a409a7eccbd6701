"""Who makes a hypercall, and the memory that its pointers lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.errors import GuestMemoryError, GuestPointerError
from paravirt.interfaces.xen.abi import MASK32, MASK64, PAGE_SIZE, Layout, Struct

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["Argument", "Caller"]


class Caller:
    """A vCPU in a hypercall. Pointers are linear addresses, used with the rights of the kernel; where there is no
    memory of that kind, the call ends with -EFAULT."""

    __slots__ = ("is_wide", "vcpu")

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.is_wide = vcpu.is_64bit

    @property
    def long_bytes(self) -> int:
        """The size of a long and of a pointer."""
        return 8 if self.is_wide else 4

    def read(self, gva: int, length: int) -> bytes:
        """Return `length` bytes."""
        try:
            return self.vcpu.read(gva, length)
        except GuestMemoryError as error:
            raise GuestPointerError(error.address, error.length, space=error.space) from None

    def write(self, gva: int, data: bytes) -> None:
        """Write all of `data`, or nothing."""
        for page in range(gva & -PAGE_SIZE, gva + len(data), PAGE_SIZE):
            if self.vcpu.translate(page & MASK64, write=True, user=False) is None:
                raise GuestPointerError(page & MASK64, len(data), space="virtual")
        try:
            self.vcpu.write(gva, data)
        except GuestMemoryError as error:
            raise GuestPointerError(error.address, error.length, space=error.space) from None

    def read_long(self, gva: int, index: int = 0) -> int:
        """Return an item of an array of longs."""
        size = self.long_bytes
        return int.from_bytes(self.read(gva + index * size, size), "little")

    def write_long(self, gva: int, index: int, value: int) -> None:
        """Set an item of an array of longs."""
        size = self.long_bytes
        self.write(gva + index * size, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def load(self, struct: Struct, gva: int) -> Argument:
        """Return a structure."""
        return Argument(self, struct.wide if self.is_wide else struct.narrow, gva)

    def size_of(self, struct: Struct) -> int:
        """Return a structure's size in bytes."""
        return (struct.wide if self.is_wide else struct.narrow).size

    def join(self, low: int, high: int) -> int:
        """Return a 64-bit argument: one register, or outside 64-bit code two."""
        return low if self.is_wide else (high & MASK32) << 32 | low & MASK32


class Argument:
    """A structure that a hypercall's pointer leads to: fields are read once, and written through."""

    __slots__ = ("_caller", "_data", "_fields", "gva")

    def __init__(self, caller: Caller, layout: Layout, gva: int) -> None:
        self._caller = caller
        self._fields = layout.fields
        self._data = caller.read(gva, layout.size)
        self.gva = gva

    def __getitem__(self, name: str) -> int:
        offset, size = self._fields[name]
        return int.from_bytes(self._data[offset : offset + size], "little")

    def __setitem__(self, name: str, value: int) -> None:
        offset, size = self._fields[name]
        self._caller.write(self.gva + offset, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
