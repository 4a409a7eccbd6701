"""Small bzImages, made to measure: a set-up header, some code, and an ELF file packed as kernels are."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import zstandard

HEADER_END = 0x26C
SETUP_SECTORS = 1
CODE_BYTES = 0x400
"""Code before the payload: the 64-bit entry is 0x200 behind its start."""


def _lz4_legacy(data: bytes) -> bytes:
    packed = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block: bytes = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        packed += struct.pack("<I", len(block)) + block
    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "lz4": _lz4_legacy,
}


def pack(kernel: bytes, packer: str = "gzip") -> bytes:
    """Compress a kernel and put its size behind it, as a kernel's build does; gzip has it there."""
    packed = PACKERS[packer](kernel)
    return packed if packer == "gzip" else packed + struct.pack("<I", len(kernel))


def write_bzimage(
    payload: bytes = b"",
    *,
    version: int = 0x20F,
    loadflags: int = 1,
    xloadflags: int = 1,
    cmdline_size: int = 2047,
    initrd_addr_max: int = 0x7FFF_FFFF,
    pref_address: int = 0x100_0000,
    init_size: int = 0x10_0000,
) -> bytes:
    """Return a bzImage. payload: what its header names as the compressed kernel."""
    setup = bytearray((SETUP_SECTORS + 1) * 512)
    setup[0x1F1] = SETUP_SECTORS
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = bytes((0xEB, HEADER_END - 0x202))
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    setup[0x211] = loadflags
    struct.pack_into("<I", setup, 0x214, 0x10_0000)
    struct.pack_into("<I", setup, 0x22C, initrd_addr_max)
    struct.pack_into("<H", setup, 0x236, xloadflags)
    struct.pack_into("<I", setup, 0x238, cmdline_size)
    struct.pack_into("<II", setup, 0x248, CODE_BYTES if payload else 0, len(payload))
    struct.pack_into("<QI", setup, 0x258, pref_address, init_size)
    return bytes(setup) + b"\x90" * CODE_BYTES + payload
