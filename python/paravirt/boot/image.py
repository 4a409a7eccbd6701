"""What boot protocols have in common: files, segments, entry states."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from paravirt.errors import ImageError
from paravirt.memory import MIB, PAGE_SIZE, GuestMemory
from paravirt.symbols import SymbolTable

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = [
    "Entry",
    "Kernel",
    "KernelFile",
    "LongModeEntry",
    "PanicLines",
    "ProtectedEntry",
    "RealModeEntry",
    "ResetEntry",
    "Segment",
]

MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A file's content and the name that messages and the guest's command line have for it."""

    name: str
    data: bytes

    @classmethod
    def read(cls, source: str | os.PathLike[str] | bytes, name: str = "<bytes>") -> KernelFile:
        """Read a file, or take its content. Raises OSError, and ImageError for one larger than 1 GiB."""
        if isinstance(source, bytes):
            return cls(name, source)
        name = os.fspath(source)
        with Path(name).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ImageError(name, "larger than 1 GiB")
        return cls(name, data)


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes for guest-physical memory. memory_size: bytes that it occupies there; behind the data they are zero."""

    gpa: int
    data: bytes | memoryview
    memory_size: int

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.gpa + self.memory_size


@dataclass(frozen=True, slots=True)
class ProtectedEntry:
    """Enter in flat 32-bit protected mode, paging and interrupts off.

    uses_boot_gdt: whether the kernel may rely on GDTR and TR; somebody has written the GDT at layout.BOOT_GDT.
    """

    address: int
    eax: int = 0
    ebx: int = 0
    esi: int = 0
    uses_boot_gdt: bool = False


@dataclass(frozen=True, slots=True)
class LongModeEntry:
    """Enter in 64-bit mode, interrupts off, with page tables at `cr3` and the GDT at layout.BOOT_GDT."""

    address: int
    rsi: int
    cr3: int


@dataclass(frozen=True, slots=True)
class RealModeEntry:
    """Enter in real mode, interrupts off."""

    selector: int
    offset: int


@dataclass(frozen=True, slots=True)
class ResetEntry:
    """Start at the reset vector, as RESET has left the processor."""


Entry = ProtectedEntry | LongModeEntry | RealModeEntry | ResetEntry


class PanicLines(NamedTuple):
    """How console lines begin that a kernel prints when it gives up: at first, and when it has said everything."""

    first: bytes
    last: bytes


class Kernel(Protocol):
    """A kernel that can be put into memory, as often as the machine is reset."""

    panic_lines: ClassVar[PanicLines | None] = None
    """None: nothing is known of how it panics."""

    def load(self, memory: GuestMemory) -> Entry:
        """Write the kernel and what its protocol prescribes. Raises ImageError if it does not fit."""

    def symbols(self) -> SymbolTable:
        """Return its symbols; none if the file has none."""

    def find_symbols(self, symbols: SymbolTable, vcpu: Vcpu) -> SymbolTable | None:
        """Return symbols of this kernel's file as they are in the running machine; None if that is not known yet."""
        return symbols


def check_fits(name: str, segments: Iterable[Segment], memory: GuestMemory) -> None:
    """Raise ImageError unless every segment lies in RAM."""
    ranges = memory.ranges()
    for segment in segments:
        if not _is_inside(segment.gpa, segment.memory_size, ranges):
            raise ImageError(
                name,
                f"a segment needs memory from {segment.gpa:#x} to {segment.end:#x},"
                f" outside the machine's {memory.size // MIB} MiB",
            )


def check_entry(name: str, entry: int, segments: Iterable[Segment]) -> None:
    """Raise ImageError unless the entry point lies in one of the segments."""
    if not any(segment.gpa <= entry < segment.end for segment in segments):
        raise ImageError(name, f"entry point {entry:#x} is in none of its segments")


def _is_inside(gpa: int, length: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(base <= gpa and gpa + length <= base + size for base, size in ranges)


def place_block(length: int, place: tuple[int, int], occupied: Iterable[Segment], otherwise: int) -> int:
    """Return where structures of `length` bytes go: to the start of `place` (end exclusive), or `otherwise` if they are
    longer or one of the segments lies there."""
    start, limit = place
    is_free = all(segment.end <= start or segment.gpa >= limit for segment in occupied)
    return start if length <= limit - start and is_free else otherwise


def place_initrd(initrd: KernelFile, memory: GuestMemory, kernel_end: int, limit: int) -> Segment:
    """Return an initrd as a segment at the top of the RAM below 4 GiB, page-aligned.

    kernel_end: first address that the kernel leaves free. limit: address behind the last that it may have. Raises
    ImageError if it does not fit between them.
    """
    low_base, low_length = memory.ranges()[0]
    top = min(low_base + low_length, limit)
    gpa = (top - len(initrd.data)) & -PAGE_SIZE
    if gpa < kernel_end:
        room = max(top - kernel_end, 0)
        raise ImageError(
            initrd.name,
            f"the initrd of {len(initrd.data):,} bytes does not fit: the kernel leaves {room:,} bytes below {top:#x}."
            " Give the machine more memory (--memory)",
        )
    return Segment(gpa, initrd.data, len(initrd.data))


def write_segments(memory: GuestMemory, segments: Iterable[Segment]) -> None:
    """Write segments and zero what is behind their data."""
    for segment in segments:
        memory.write(segment.gpa, segment.data)
        memory.clear(segment.gpa + len(segment.data), segment.memory_size - len(segment.data))
