"""The compressed kernel inside a bzImage, unpacked on the host: some hundred times as fast as the guest would do it.

Each format by a library. A damaged or hostile file ends in ImageError: what comes out is bounded by the size that the
payload itself states in its last four bytes, and that by 1 GiB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt.boot.bzimage import BzImage
from paravirt.boot.image import MAX_FILE_BYTES, KernelFile
from paravirt.errors import ImageError

if TYPE_CHECKING:
    from lzma import LZMADecompressor

__all__ = ["unpack_kernel"]

SIZE_BYTES = 4
"""At the end of the payload: the size of the kernel, little-endian (gzip has it there by itself)."""
LZ4_BLOCK_BYTES = 8 << 20
"""How much one block of the legacy LZ4 format holds at most."""
DICTIONARY_LIMIT = 512 << 20
"""Memory that an LZMA or xz decoder may take, in bytes: it depends on the dictionary that the file asks for."""

Unpack = Callable[[memoryview, int], bytes]


class _DamagedError(Exception):
    """The payload is not what its format allows."""


def unpack_kernel(image: BzImage) -> KernelFile | None:
    """Return the ELF file inside a bzImage; None if it holds none, or one in a format that no library here knows.

    Raises ImageError if it is damaged.
    """
    payload = image.payload
    unpack = next((unpack for magic, unpack in _FORMATS.items() if payload[: len(magic)] == magic), None)
    if unpack is None:
        return None
    size = int.from_bytes(payload[-SIZE_BYTES:], "little")
    name = image.file.name
    if size > MAX_FILE_BYTES:
        raise ImageError(name, f"its compressed kernel claims {size:#x} bytes, more than 1 GiB")
    try:
        # One byte more than there should be: then the decoder reaches the end, and its checksum.
        data = unpack(payload, size + 1)
    except _DamagedError as error:
        raise ImageError(name, f"its compressed kernel is damaged: {error}") from error
    if len(data) != size:
        raise ImageError(name, f"its compressed kernel is damaged: {len(data):#x} bytes where it claims {size:#x}")
    return KernelFile(name, data)


# The libraries are imported where they are used: no kernel needs more than one, and most guests none.


def _unpack_gzip(payload: memoryview, size: int) -> bytes:
    import zlib

    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(payload, size)
    except zlib.error as error:
        raise _DamagedError(str(error)) from error


def _unpack_bzip2(payload: memoryview, size: int) -> bytes:
    import bz2

    try:
        return bz2.BZ2Decompressor().decompress(payload, size)
    except (OSError, EOFError) as error:
        raise _DamagedError(str(error)) from error


def _unpack_xz(payload: memoryview, size: int) -> bytes:
    import lzma

    return _unpack_lzma_stream(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARY_LIMIT), payload, size)


def _unpack_lzma(payload: memoryview, size: int) -> bytes:
    import lzma

    return _unpack_lzma_stream(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=DICTIONARY_LIMIT), payload, size)


def _unpack_lzma_stream(decompressor: LZMADecompressor, payload: memoryview, size: int) -> bytes:
    import lzma

    try:
        return decompressor.decompress(payload, size)
    except (lzma.LZMAError, EOFError) as error:
        raise _DamagedError(str(error)) from error


def _unpack_zstd(payload: memoryview, size: int) -> bytes:
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
            return reader.read(size)
    except zstandard.ZstdError as error:
        raise _DamagedError(str(error)) from error


def _unpack_lz4(payload: memoryview, size: int) -> bytes:
    """The legacy format: blocks, each behind its compressed length, up to the payload's last four bytes."""
    import lz4.block

    blocks: list[bytes] = []
    at, end, room = 4, len(payload) - SIZE_BYTES, size
    while at < end:
        length = int.from_bytes(payload[at : at + 4], "little")
        at += 4
        if not 0 < length <= end - at:
            raise _DamagedError(f"a block of {length:#x} bytes does not fit")
        try:
            block = lz4.block.decompress(payload[at : at + length], uncompressed_size=min(LZ4_BLOCK_BYTES, room))
        except lz4.block.LZ4BlockError as error:
            raise _DamagedError(str(error)) from error
        blocks.append(block)
        room -= len(block)
        at += length
    return b"".join(blocks)


_FORMATS: dict[bytes, Unpack] = {
    b"\x1f\x8b": _unpack_gzip,
    b"BZh": _unpack_bzip2,
    b"\xfd7zXZ\0": _unpack_xz,
    b"\x5d\0\0": _unpack_lzma,
    b"\x28\xb5\x2f\xfd": _unpack_zstd,
    b"\x02\x21\x4c\x18": _unpack_lz4,
}
"""By the payload's first bytes. LZO, which kernels may use too, is left to the kernel's own code."""
