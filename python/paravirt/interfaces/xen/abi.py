"""Numbers and layouts of Xen's guest interface, without behaviour.

Source: Xen's public headers (xen/include/public). Every structure exists twice: as a 64-bit caller lays it out, and as
a 32-bit caller does, for whom pointers and longs have 4 bytes and 64-bit numbers are aligned to 4.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["DOMID_OWN", "DOMID_SELF", "DOMID_TOOLS", "MASK32", "PAGE_SIZE", "Errno", "Struct", "XenError"]

PAGE_SIZE = 4096
MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1

DOMID_TOOLS = 0
"""The domain with the tool stack: the other end of the console and of xenstore."""
DOMID_OWN = 1
"""The guest."""
DOMID_SELF = 0x7FF0
"""How a guest names itself."""

VERSION = 4 << 16 | 19
"""The release whose interface this is: 4.19."""


class Errno(IntEnum):
    """Error numbers (public/errno.h), returned negative."""

    EPERM = 1
    ENOENT = 2
    ESRCH = 3
    E2BIG = 7
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    EBUSY = 16
    EEXIST = 17
    EINVAL = 22
    ENOSPC = 28
    ENOSYS = 38
    ENODATA = 61
    ETIME = 62
    EOPNOTSUPP = 95


class XenError(Exception):
    """Ends a hypercall with an error number."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno.name)
        self.errno = errno


class Field(NamedTuple):
    """Where a number is in a structure, both in bytes."""

    offset: int
    size: int


class Layout(NamedTuple):
    """A structure as one kind of caller lays it out."""

    size: int
    fields: MappingProxyType[str, Field]


_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
_LONGS = frozenset(("ulong", "ptr", "align"))


class Struct:
    """A structure of the interface, from its fields in order: u8 to u64, `ulong` and `ptr`, each aligned to its size.
    `align` has no bytes, and aligns what follows to a long: it is the end of a structure within this one.

    Signed fields are declared unsigned; writing a negative number to one is fine.
    """

    def __init__(self, **fields: str) -> None:
        self.wide = _lay_out(fields, is_wide=True)
        self.narrow = _lay_out(fields, is_wide=False)


def _lay_out(fields: dict[str, str], *, is_wide: bool) -> Layout:
    placed: dict[str, Field] = {}
    end = 0
    alignment = 1
    for name, kind in fields.items():
        size = (8 if is_wide else 4) if kind in _LONGS else _SIZES[kind]
        own = size if is_wide else min(size, 4)
        offset = -(-end // own) * own
        size = 0 if kind == "align" else size
        placed[name] = Field(offset, size)
        end = offset + size
        alignment = max(alignment, own)
    return Layout(-(-end // alignment) * alignment, MappingProxyType(placed))
