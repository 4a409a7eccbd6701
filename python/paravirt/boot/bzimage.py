"""bzImage: the file that a Linux distribution ships, a set-up header and a compressed kernel with code to unpack it.

Source: Linux/x86 boot protocol (Documentation/arch/x86/boot.rst). Offsets are those of the file, and of `boot_params`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paravirt.boot.image import KernelFile
from paravirt.errors import ImageError

__all__ = ["BzImage", "is_bzimage", "read_bzimage"]

SECTOR = 512
HEADER_AT = 0x1F1
SIGNATURE_AT = 0x202
SIGNATURE = b"HdrS"
BOOT_FLAG_AT = 0x1FE
BOOT_FLAG = b"\x55\xaa"
DEFAULT_SETUP_SECTORS = 4
MAX_HEADER_END = 0x290
"""The end of the header's place in boot_params."""

LOADED_HIGH = 1 << 0
"""Of loadflags: the kernel belongs to 1 MiB, not to 64 KiB."""
XLF_KERNEL_64 = 1 << 0
"""Of xloadflags: there is a 64-bit entry point."""

OLDEST_VERSION = 0x202
"""The first with cmd_line_ptr."""
CMDLINE_SIZE_SINCE, INITRD_ADDR_MAX_SINCE, PAYLOAD_SINCE = 0x206, 0x203, 0x208
PREF_ADDRESS_SINCE, XLOADFLAGS_SINCE = 0x20A, 0x20C
OLD_CMDLINE_SIZE, OLD_INITRD_ADDR_MAX = 255, 0x37FF_FFFF
DEFAULT_LOAD_ADDRESS = 0x10_0000


@dataclass(frozen=True, slots=True)
class BzImage:
    """What a boot loader needs of one; names as in the protocol.

    header: bytes from HEADER_AT on, for boot_params. kernel_at: where the protected-mode part begins in the file.
    payload_offset: of the compressed kernel in that part; payload_length: 0 if there is none.
    """

    file: KernelFile
    header: bytes
    version: int
    kernel_at: int
    code32_start: int
    initrd_addr_max: int
    cmdline_size: int
    has_64bit_entry: bool
    pref_address: int
    init_size: int
    payload_offset: int
    payload_length: int

    @property
    def code(self) -> memoryview:
        """The protected-mode part."""
        return memoryview(self.file.data)[self.kernel_at :]

    @property
    def payload(self) -> memoryview:
        """The compressed kernel; empty if there is none. Raises ImageError if it lies outside the file."""
        if self.payload_offset + self.payload_length > len(self.code):
            raise ImageError(
                self.file.name,
                f"truncated: its compressed kernel ends at {self.payload_offset + self.payload_length:#x} behind its"
                f" set-up code, where the file has {len(self.code):#x} bytes",
            )
        return self.code[self.payload_offset : self.payload_offset + self.payload_length]


def is_bzimage(data: bytes) -> bool:
    """Whether a file has the header of a Linux kernel."""
    return data[SIGNATURE_AT : SIGNATURE_AT + 4] == SIGNATURE


def read_bzimage(file: KernelFile) -> BzImage:
    """Read the header. Raises ImageError for a file that is none, truncated, or of another kind than bzImage."""
    data = file.data
    if not is_bzimage(data) or data[BOOT_FLAG_AT : BOOT_FLAG_AT + 2] != BOOT_FLAG:
        raise ImageError(file.name, "not a Linux kernel: it has no boot header")
    header_end = SIGNATURE_AT + data[SIGNATURE_AT - 1]
    kernel_at = ((data[HEADER_AT] or DEFAULT_SETUP_SECTORS) + 1) * SECTOR
    if len(data) <= max(kernel_at, header_end):
        raise ImageError(file.name, "truncated within the set-up code of a Linux kernel")
    field = _field_reader(data, header_end)
    version = field(0x206, 2)
    if version < OLDEST_VERSION:
        raise ImageError(
            file.name,
            f"a Linux kernel with boot protocol {version >> 8}.{version & 0xFF:02}; 2.02 is the oldest we load",
        )
    if not field(0x211, 1) & LOADED_HIGH:
        raise ImageError(file.name, "a zImage, which belongs below 1 MiB; only a bzImage can be loaded")
    is_preferring = version >= PREF_ADDRESS_SINCE
    return BzImage(
        file=file,
        header=data[HEADER_AT : min(header_end, MAX_HEADER_END)],
        version=version,
        kernel_at=kernel_at,
        code32_start=field(0x214, 4) or DEFAULT_LOAD_ADDRESS,
        initrd_addr_max=field(0x22C, 4) if version >= INITRD_ADDR_MAX_SINCE else OLD_INITRD_ADDR_MAX,
        cmdline_size=field(0x238, 4) if version >= CMDLINE_SIZE_SINCE else OLD_CMDLINE_SIZE,
        has_64bit_entry=version >= XLOADFLAGS_SINCE and bool(field(0x236, 2) & XLF_KERNEL_64),
        pref_address=field(0x258, 8) if is_preferring else DEFAULT_LOAD_ADDRESS,
        init_size=field(0x260, 4) if is_preferring else 0,
        payload_offset=field(0x248, 4) if version >= PAYLOAD_SINCE else 0,
        payload_length=field(0x24C, 4) if version >= PAYLOAD_SINCE else 0,
    )


def _field_reader(data: bytes, header_end: int) -> Callable[[int, int], int]:
    """Fields by offset and size; those behind the header's end are 0."""

    def read(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little") if offset + size <= header_end else 0

    return read
