"""The names of a Linux kernel's functions, from the tables by which the kernel itself names them in its traces.

Distributions strip their kernels' symbol tables, but these (CONFIG_KALLSYMS) are part of the image. Nothing says where
they are, so they are found by their form; a kernel whose tables look otherwise has no names here, and nothing worse
happens.

In the image of a 64-bit kernel (Linux 4.20 to 6.x), each aligned to 8 bytes, all numbers little-endian:

    num_syms      u32
    names         for each symbol, ascending by address: length (one byte, or two with bit 7 of the first set), then
                  that many bytes, each the number of a token; the first character of the text is the symbol's type
    markers       u32[]: where in `names` every 256th symbol begins
    token_table   256 strings, each with a NUL
    token_index   u16[256]: where in `token_table` each begins
    offsets       i32[num_syms], and relative_base u64, to which they count; before `num_syms` until Linux 6.4
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from paravirt.boot.layout import align_up
from paravirt.symbols import SymbolTable

__all__ = ["read_kallsyms"]

NUM_TOKENS = 256
FIRST_DIGIT = ord("0")
DIGIT_TOKENS = b"".join(bytes((digit, 0)) for digit in b"0123456789")
"""Characters that occur in names are their own tokens, and all digits do."""
MAX_TOKEN_BYTES = 64
MAX_NAME_BYTES = 512
"""Of a symbol, type included (KSYM_NAME_LEN)."""
ALIGNMENT = 8
MARKER_DISTANCE = 256
MIN_SYMBOLS, MAX_SYMBOLS = 1_000, 2_000_000
MAX_TABLE_BYTES = 32 << 20
"""How far before the tokens the other tables may begin."""
PROBED_SYMBOLS = 64
"""So many must look like symbols before all are read."""
MAX_CANDIDATES, MAX_ATTEMPTS = 50_000, 8
"""So many places are looked at, and read, at most: a file may be made to mislead. Real kernels need 3000, and one."""
TYPES = frozenset(b"aAbBcCdDgGiIrRsSnNpPtTuUvVwW?")
KERNEL_HALF = 1 << 63

Tokens = list[bytes]


class _Tokens(NamedTuple):
    """The token table: where it begins, the address behind its index, and the tokens."""

    start: int
    end: int
    texts: Tokens


def read_kallsyms(data: bytes) -> SymbolTable:
    """Return the symbols that a kernel's image (an ELF file) knows of itself; none if it has no such tables."""
    tokens = _find_tokens(data)
    if tokens is None:
        return SymbolTable()
    candidates = islice(_candidates(data, tokens), MAX_CANDIDATES)
    plausible = (place for place in candidates if _looks_like_names(data, place[0] + ALIGNMENT, tokens))
    for at, count in islice(plausible, MAX_ATTEMPTS):
        names = _read_names(data, at + ALIGNMENT, count, tokens)
        if names is None:
            continue
        addresses = _read_addresses(data, at, count, tokens)
        if addresses is not None:
            # Absolute symbols, per-CPU variables among them, are no places.
            pairs = zip(names, addresses, strict=True)
            return SymbolTable((name, address, 0) for name, address in pairs if address >= KERNEL_HALF)
    return SymbolTable()


def _find_tokens(data: bytes) -> _Tokens | None:
    at = data.find(DIGIT_TOKENS)
    while at >= 0:
        tokens = _tokens_around(data, at)
        if tokens is not None:
            return tokens
        at = data.find(DIGIT_TOKENS, at + 1)
    return None


def _tokens_around(data: bytes, digits_at: int) -> _Tokens | None:
    """Return the token table whose entry for the digit 0 is here, if its index confirms that."""
    before = data[max(0, digits_at - FIRST_DIGIT * MAX_TOKEN_BYTES) : digits_at].split(b"\0")[-FIRST_DIGIT - 1 : -1]
    start = digits_at - sum(len(token) + 1 for token in before)
    texts = data[start : start + NUM_TOKENS * MAX_TOKEN_BYTES].split(b"\0", NUM_TOKENS)[:NUM_TOKENS]
    if len(before) != FIRST_DIGIT or len(texts) != NUM_TOKENS:
        return None
    offsets, end = [], 0
    for text in texts:
        offsets.append(end)
        end += len(text) + 1
    if end >= 1 << 16 or max(map(len, texts)) > MAX_TOKEN_BYTES:
        return None
    index = struct.pack(f"<{NUM_TOKENS}H", *offsets)
    index_at = data.find(index, start + end, start + end + ALIGNMENT + len(index))
    return None if index_at < 0 else _Tokens(start, index_at + len(index), texts)


def _candidates(data: bytes, tokens: _Tokens) -> Iterator[tuple[int, int]]:
    """Yield places that may be `num_syms`, with its value."""
    start = align_up(max(0, tokens.start - MAX_TABLE_BYTES), ALIGNMENT)
    words = memoryview(data)[start : start + (tokens.start - start) // ALIGNMENT * ALIGNMENT].cast("Q")
    for index, count in enumerate(words):
        if MIN_SYMBOLS <= count <= MAX_SYMBOLS:
            yield start + index * ALIGNMENT, count


def _read_names(data: bytes, at: int, count: int, tokens: _Tokens) -> list[str] | None:
    """Return the names in the table here, without their types; None if it is none."""
    start, names, markers = at, [], []
    for number in range(count):
        if number % MARKER_DISTANCE == 0:
            markers.append(at - start)
        entry = _read_entry(data, at, tokens)
        if entry is None:
            return None
        text, at = entry
        names.append(text[1:].decode("ascii", "replace"))
    expected = struct.pack(f"<{len(markers)}I", *markers)
    return names if data.find(expected, at, at + ALIGNMENT + len(expected)) >= 0 else None


def _looks_like_names(data: bytes, at: int, tokens: _Tokens) -> bool:
    for _ in range(PROBED_SYMBOLS):
        entry = _read_entry(data, at, tokens)
        if entry is None or len(entry[0]) < 2 or entry[0][0] not in TYPES:
            return False
        at = entry[1]
    return True


def _read_entry(data: bytes, at: int, tokens: _Tokens) -> tuple[bytes, int] | None:
    """Return the text of a symbol, type first, and where the next one begins."""
    if at + 1 >= tokens.start:
        return None
    length = data[at]
    at += 1
    if length & 0x80:
        length = length & 0x7F | data[at] << 7
        at += 1
    end = at + length
    if not 0 < length <= MAX_NAME_BYTES or end > tokens.start:
        return None
    texts = tokens.texts
    text = b"".join([texts[number] for number in data[at:end]])
    return (text, end) if len(text) <= MAX_NAME_BYTES else None


def _read_addresses(data: bytes, num_syms_at: int, count: int, tokens: _Tokens) -> list[int] | None:
    """Return the addresses, from either of the places where they may be."""
    length = align_up(4 * count, ALIGNMENT)
    base_before = num_syms_at - ALIGNMENT
    behind = align_up(tokens.end, ALIGNMENT)
    for offsets_at, base_at in ((base_before - length, base_before), (behind, behind + length)):
        if offsets_at < 0 or base_at + 8 > len(data):
            continue
        (base,) = struct.unpack_from("<Q", data, base_at)
        if base < KERNEL_HALF:
            continue
        offsets = struct.unpack_from(f"<{count}i", data, offsets_at)
        addresses = _addresses(offsets, base)
        if all(first <= second for first, second in pairwise(addresses)):
            return addresses
    return None


def _addresses(offsets: Sequence[int], base: int) -> list[int]:
    """Offsets count from the base; where per-CPU symbols are absolute (CONFIG_KALLSYMS_ABSOLUTE_PERCPU), those of all
    others are negative, and count from below it."""
    if min(offsets) < 0:
        return [offset if offset >= 0 else base - 1 - offset for offset in offsets]
    return [base + offset for offset in offsets]
