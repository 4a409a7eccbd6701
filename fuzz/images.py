"""Makes hostile kernels: each a function of a random generator alone, so that a seed gives the same one again."""

from __future__ import annotations

import struct
from random import Random

LOAD_ADDRESS = 0x100000
MULTIBOOT_MAGIC = 0x1BADB002
AOUT_KLUDGE = 1 << 16

# Beginnings of instructions that do more than compute: what follows them is random.
_STARTS_HEX = """
    0f01c1 0f01d9 0f01 0f00 0f05 0f34 0f35 0f07 0f30 0f32 0fa2 0f20 0f22 0f21 0f23 0f09 0f08 0f0b 0fff f4 cc cd
    ce cf fa fb 9c 9d 0fc7 0fae 0fb0 0fb1 0fba f0 f2 f3 f3a4 f3ab f2ae f36d f36e 66 67 2e 64 65 8e 8c 0fb2 0fb4
    0fb5 c4 c5 62 9a ea ff e4 e5 e6 e7 ec ed ee ef 6c 6d 6e 6f c8 c9 8f d9 dd df 0f6f 0f10 0fc2 0f38f0 0f38f1
    0f3882 0f0d 0f18 0fc3 0f77 e8 e9 eb 0f80 0f8f 70 7f e0 e3 f6 f7 fe d7 27 37 d4 d5
"""
_STARTS = [bytes.fromhex(text) for text in _STARTS_HEX.split()]
_REAL_WORLD_CR0 = (0x11, 0x80000011, 0x80010033, 0x60000010, 0)
_MSRS = (0xC0000080, 0xC0000081, 0xC0000101, 0x1B, 0x10, 0x6E0, 0x277, 0x4B564D01, 0x11, 0x808, 0x830, 0x3B)


def random_code(random: Random, length: int) -> bytes:
    """Code that is now and then sensible: known beginnings, numbers that matter, noise."""
    code = bytearray()
    while len(code) < length:
        match random.randrange(8):
            case 0 | 1 | 2:
                code += random.choice(_STARTS) + random.randbytes(random.randrange(4))
            case 3:
                code += random.randbytes(random.randrange(1, 16))
            case 4:  # mov eax, CR0 value; mov cr0, eax
                code += b"\xb8" + struct.pack("<I", random.choice(_REAL_WORLD_CR0)) + b"\x0f\x22\xc0"
            case 5:  # mov ecx, MSR; rdmsr or wrmsr
                code += b"\xb9" + struct.pack("<I", random.choice(_MSRS)) + random.choice((b"\x0f\x32", b"\x0f\x30"))
            case 6:  # an access somewhere: RAM, the APICs, the hole, the end
                where = random.choice((0, 0xA0000, 0xFEE00000, 0xFEC00000, 0xFF000000, 0xFFFFFFFC, LOAD_ADDRESS))
                address = (where + random.randrange(0x1000)) & 0xFFFFFFFF
                code += random.choice((b"\xa1", b"\xa3", b"\xc6\x05")) + struct.pack("<I", address)
            case 7:  # a short loop back
                code += b"\xeb" + bytes((random.randrange(0x80, 0x100),))
    return bytes(code[:length])


def kludge_image(random: Random) -> bytes:
    """A multiboot file whose header has addresses of its own, right or nearly so, and random code behind it."""
    code = random_code(random, random.randrange(16, 4096))
    entry = LOAD_ADDRESS + 32
    fields = [LOAD_ADDRESS, LOAD_ADDRESS, 0, 0, entry]
    if random.random() < 0.3:
        fields[random.randrange(5)] = random.choice((0, entry - 1, random.getrandbits(32), 0xFFFFFFFF, 0x3FFF000))
    flags = AOUT_KLUDGE | random.choice((0, 3, 3, 3, random.getrandbits(16)))
    checksum = -(MULTIBOOT_MAGIC + flags) & 0xFFFFFFFF
    return struct.pack("<8I", MULTIBOOT_MAGIC, flags, checksum, *fields) + code


def mutated_image(random: Random, image: bytes) -> bytes:
    """A working image with some bytes changed, more often where headers are, or cut."""
    data = bytearray(image)
    for _ in range(random.choice((1, 2, 8, 64))):
        span = random.choice((64, 64 + 2 * 56, 0x1100, len(data)))
        at = random.randrange(min(span, len(data)))
        data[at] = random.choice((0, 0xFF, 0x7F, 0x80, random.getrandbits(8)))
    if random.random() < 0.1:
        del data[random.randrange(len(data)) :]
    return bytes(data)


def mutated_code(random: Random, image: bytes, start: int, length: int) -> bytes:
    """A working image with random code written over a part of its text: it fails deep inside a running kernel."""
    data = bytearray(image)
    at = start + random.randrange(length)
    code = random_code(random, random.randrange(1, 24))
    data[at : at + len(code)] = code
    return bytes(data[: len(image)])


def noise(random: Random) -> bytes:
    """No image at all."""
    return random.randbytes(random.randrange(1, 20000))
