r"""ACPI machine language, composed: each function returns the bytes of one term, and takes those of the terms in it.

    device("COM1", name("_HID", eisa_id("PNP0501")), name("_CRS", resources(io_ports(0x3F8, 8), irq(4))))

Source: ACPI specification 6.5: chapter 20 for the language, section 6.4 for resource descriptors.
"""

from __future__ import annotations

import struct

__all__ = [
    "buffer",
    "bus_numbers",
    "device",
    "eisa_id",
    "integer",
    "io_ports",
    "io_window",
    "irq",
    "memory",
    "memory_window",
    "name",
    "package",
    "resources",
    "scope",
    "string",
]

NAME_OP = 0x08
STRING_PREFIX = 0x0D
SCOPE_OP = 0x10
BUFFER_OP = 0x11
PACKAGE_OP = 0x12
DUAL_NAME_PREFIX = 0x2E
MULTI_NAME_PREFIX = 0x2F
DEVICE_OP = b"\x5b\x82"

_INTEGERS = ((0x0A, "<B"), (0x0B, "<H"), (0x0C, "<I"), (0x0E, "<Q"))
"""Prefixes of integer constants and the widths behind them."""
NAME_SEGMENT_BYTES = 4
MAX_PACKAGE_ELEMENTS = 255


# -- terms


def integer(value: int) -> bytes:
    """Return an integer constant, 0 to 2**64 - 1, in its shortest form."""
    if value in (0, 1):
        return bytes((value,))  # ZeroOp and OneOp.
    for prefix, layout in _INTEGERS:
        if value < 1 << 8 * struct.calcsize(layout):
            return bytes((prefix,)) + struct.pack(layout, value)
    raise ValueError(f"{value:#x} does not fit in an AML integer")


def string(text: str) -> bytes:
    """Return an ASCII string."""
    return bytes((STRING_PREFIX,)) + text.encode("ascii") + b"\0"


def buffer(data: bytes) -> bytes:
    """Return a buffer with that content."""
    return bytes((BUFFER_OP,)) + _with_length(integer(len(data)) + data)


def package(*elements: bytes | int) -> bytes:
    """Return a package of up to 255 elements; numbers become integer constants."""
    if len(elements) > MAX_PACKAGE_ELEMENTS:
        raise ValueError(f"a package of {len(elements)} elements: at most {MAX_PACKAGE_ELEMENTS}")
    body = b"".join(map(_object, elements))
    return bytes((PACKAGE_OP,)) + _with_length(bytes((len(elements),)) + body)


def name(path: str, value: bytes | int) -> bytes:
    """Return `Name(path, value)`."""
    return bytes((NAME_OP,)) + _path(path) + _object(value)


def scope(path: str, *terms: bytes) -> bytes:
    """Return `Scope(path) { terms }`."""
    return bytes((SCOPE_OP,)) + _with_length(_path(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Return `Device(path) { terms }`."""
    return DEVICE_OP + _with_length(_path(path) + b"".join(terms))


def eisa_id(text: str) -> bytes:
    """Return a plug-and-play id such as PNP0501 as the number that stands for it (section 19.6.38)."""
    letters, number = text[:3], int(text[3:], 16)
    compressed = 0
    for letter in letters:
        compressed = compressed << 5 | ord(letter) - ord("A") + 1
    return integer(int.from_bytes((compressed << 16 | number).to_bytes(4, "big"), "little"))


def _object(value: bytes | int) -> bytes:
    return integer(value) if isinstance(value, int) else value


def _path(path: str) -> bytes:
    r"""A NameString: `\` and `^` in front, then segments, each filled up with underscores."""
    rest = path.lstrip("\\^")
    prefix = path[: len(path) - len(rest)].encode("ascii")
    segments = [segment.ljust(NAME_SEGMENT_BYTES, "_").encode("ascii") for segment in rest.split(".")]
    if any(len(segment) != NAME_SEGMENT_BYTES for segment in segments):
        raise ValueError(f"{path!r} is not an ACPI name: segments have up to {NAME_SEGMENT_BYTES} characters")
    match len(segments):
        case 1:
            return prefix + segments[0]
        case 2:
            return prefix + bytes((DUAL_NAME_PREFIX,)) + b"".join(segments)
        case count:
            return prefix + bytes((MULTI_NAME_PREFIX, count)) + b"".join(segments)


def _with_length(body: bytes) -> bytes:
    """Put a PkgLength in front, which counts itself: 6 bits of it in one byte, else 4 and then 8 for each more."""
    if len(body) + 1 < 1 << 6:
        return bytes((len(body) + 1,)) + body
    for extra in (1, 2, 3):
        length = len(body) + 1 + extra
        if length < 1 << 4 + 8 * extra:
            return bytes((extra << 6 | length & 0xF,)) + (length >> 4).to_bytes(extra, "little") + body
    raise ValueError(f"{len(body)} bytes are too long for an AML package")


# -- resource descriptors

IO_DESCRIPTOR = 0x47
IRQ_DESCRIPTOR = 0x22
END_TAG = b"\x79\x00"
"""A checksum of 0 counts as correct (section 6.4.2.9)."""
FIXED_MEMORY_DESCRIPTOR = 0x86
DWORD_SPACE, WORD_SPACE = 0x87, 0x88

SPACE_MEMORY, SPACE_IO, SPACE_BUS = 0, 1, 2
PRODUCER_POSITIVE_FIXED = 0x0C
"""General flags: decoded positively, minimum and maximum are fixed; bit 0 clear: handed on to what is behind."""
IO_ENTIRE_RANGE = 3
MEMORY_WRITABLE = 1


def resources(*descriptors: bytes) -> bytes:
    """Return a resource template: what `_CRS` holds."""
    return buffer(b"".join(descriptors) + END_TAG)


def io_ports(first: int, count: int) -> bytes:
    """Return a descriptor of ports that a device uses, decoded with 16 bits."""
    return struct.pack("<BBHHBB", IO_DESCRIPTOR, 1, first, first, 1, count)


def irq(number: int) -> bytes:
    """Return a descriptor of an ISA interrupt: edge-triggered, active high, not shared."""
    return struct.pack("<BH", IRQ_DESCRIPTOR, 1 << number)


def memory(gpa: int, length: int) -> bytes:
    """Return a descriptor of the memory that a device's registers are in, below 4 GiB."""
    return struct.pack("<BHBII", FIXED_MEMORY_DESCRIPTOR, 9, 0, gpa, length)


def bus_numbers(first: int, last: int) -> bytes:
    """Return a descriptor of the buses below a bridge."""
    return _word_space(SPACE_BUS, 0, first, last)


def io_window(first: int, last: int) -> bytes:
    """Return a descriptor of the ports that a bridge hands on."""
    return _word_space(SPACE_IO, IO_ENTIRE_RANGE, first, last)


def memory_window(first: int, last: int) -> bytes:
    """Return a descriptor of the memory that a bridge hands on, below 4 GiB."""
    flags = (SPACE_MEMORY, PRODUCER_POSITIVE_FIXED, MEMORY_WRITABLE)
    return struct.pack("<BHBBBIIIII", DWORD_SPACE, 23, *flags, 0, first, last, 0, last - first + 1)


def _word_space(space: int, flags: int, first: int, last: int) -> bytes:
    general = PRODUCER_POSITIVE_FIXED
    return struct.pack("<BHBBBHHHHH", WORD_SPACE, 13, space, general, flags, 0, first, last, 0, last - first + 1)
