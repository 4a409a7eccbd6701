"""What a BIOS leaves in memory: interrupt vectors, its data area, and a few instructions behind the vectors.

There is no firmware; but kernels that start in, or go back to, real mode find what they expect: interrupts that return,
a timer interrupt that acknowledges itself.
"""

from __future__ import annotations

import struct

from paravirt.boot import layout
from paravirt.memory import GuestMemory

__all__ = ["write_firmware_state"]

NUM_VECTORS = 256
TIMER_VECTOR = 0x08
SLAVE_VECTORS = range(0x70, 0x78)
MASTER_VECTORS = range(0x08, 0x10)

# All at F000:offset. `push ax; mov al, 0x20; out 0x20, al; pop ax; iret`, and with the slave's 0xA0 before it.
IRET_OFFSET = 0xE000
MASTER_EOI_OFFSET = 0xE010
SLAVE_EOI_OFFSET = 0xE020
IRET = b"\xcf"
MASTER_EOI = b"\x50\xb0\x20\xe6\x20\x58\xcf"
SLAVE_EOI = b"\x50\xb0\x20\xe6\xa0\xe6\x20\x58\xcf"
HALT_FOR_EVER = b"\xfa\xf4\xeb\xfd"
"""`cli; 1: hlt; jmp 1b`: the machine takes over before this runs."""
PC_AT = 0xFC
"""Model byte at FFFF:000E."""


def write_firmware_state(memory: GuestMemory) -> None:
    """Write vectors, the code that they lead to, and the BIOS data area."""
    memory.write(layout.IVT, INTERRUPT_VECTORS)
    bios = layout.BIOS
    memory.write(bios + IRET_OFFSET, IRET)
    memory.write(bios + MASTER_EOI_OFFSET, MASTER_EOI)
    memory.write(bios + SLAVE_EOI_OFFSET, SLAVE_EOI)
    memory.write(layout.BIOS_RESET_VECTOR, HALT_FOR_EVER)
    memory.write_int(layout.BIOS_RESET_VECTOR + 14, 1, PC_AT)
    _write_data_area(memory)


def _vector(number: int) -> bytes:
    if number in MASTER_VECTORS:
        offset = MASTER_EOI_OFFSET
    elif number in SLAVE_VECTORS:
        offset = SLAVE_EOI_OFFSET
    else:
        offset = IRET_OFFSET
    return struct.pack("<HH", offset, layout.BIOS_SEGMENT)


INTERRUPT_VECTORS = b"".join(_vector(number) for number in range(NUM_VECTORS))


def _write_data_area(memory: GuestMemory) -> None:
    bda = bytearray(0x100)
    struct.pack_into("<H", bda, 0x00, 0x3F8)  # COM1
    struct.pack_into("<H", bda, 0x0E, layout.EBDA >> 4)
    struct.pack_into("<H", bda, 0x13, layout.EBDA // layout.KIB)
    memory.write(layout.BDA, bytes(bda))
    memory.write_int(layout.EBDA, 1, (layout.BASE_MEMORY_END - layout.EBDA) // layout.KIB)
