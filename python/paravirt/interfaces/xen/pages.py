"""Pages of guest-physical memory that are not what the machine's RAM was: those of the hypervisor, which the guest
places where it likes, and holes that it has given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.boot.layout import PCI_MEMORY
from paravirt.errors import ConfigurationError
from paravirt.interfaces.xen.abi import PAGE_SIZE, Errno, XenError

if TYPE_CHECKING:
    from paravirt.machine import Machine
    from paravirt.vcpu import Vcpu

__all__ = ["MovablePage", "PageMap"]

MAX_PAGES_OUTSIDE_RAM = 256
"""How many places without RAM a guest may give to pages of the hypervisor, in all."""
OPEN_BUS = (1 << 64) - 1


class MovablePage:
    """A page of the hypervisor's. It is at one place at most; while it is at none, or outside RAM, its content is kept
    here."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._content = bytearray(PAGE_SIZE)
        self.gpa: int | None = None
        self._in_ram = False

    @property
    def ram_gpa(self) -> int | None:
        """Where in RAM it is, if it is there."""
        return self.gpa if self._in_ram else None

    def read(self, offset: int, length: int) -> bytes:
        """Return a part of it."""
        if self.gpa is not None and self._in_ram:
            return self._machine.memory.read(self.gpa + offset, length)
        return bytes(self._content[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        """Set a part of it."""
        if self.gpa is not None and self._in_ram:
            self._machine.memory.write(self.gpa + offset, data)
        else:
            end = min(offset + len(data), PAGE_SIZE)
            self._content[offset:end] = data[: end - offset]

    def read_int(self, offset: int, size: int) -> int:
        """Return a number in it."""
        return int.from_bytes(self.read(offset, size), "little")

    def write_int(self, offset: int, size: int, value: int) -> None:
        """Set a number in it."""
        self.write(offset, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def place(self, gpa: int | None, *, in_ram: bool = False) -> None:
        """Move it; None hides it."""
        content = self.read(0, PAGE_SIZE)
        if self.gpa is not None and self._in_ram:
            self._machine.memory.clear(self.gpa, PAGE_SIZE)
        self.gpa, self._in_ram = gpa, in_ram
        self.write(0, content)


class PageMap:
    """What is at each guest frame number.

    The machine's RAM cannot be taken out of it, so a page that the guest has given back reads as zeros, and is none of
    its own until it is populated again.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._holes: set[int] = set()
        """Frames whose RAM is gone."""
        self._special: dict[int, MovablePage] = {}
        self._outside: set[int] = set()
        """Frames outside RAM for which accesses come to us. They do so for ever; what is there changes."""

    def reset(self) -> None:
        """All RAM is there again, and nothing else."""
        self._holes.clear()
        self._special.clear()

    @property
    def num_pages(self) -> int:
        """How many pages the guest has."""
        return self._machine.memory.size // PAGE_SIZE - len(self._holes)

    @property
    def max_frame(self) -> int:
        """The highest frame number of RAM."""
        base, length = self._machine.memory.ranges()[-1]
        return (base + length) // PAGE_SIZE - 1

    def is_own(self, frame: int) -> bool:
        """Whether ordinary RAM of the guest's is there."""
        return self._is_ram(frame) and frame not in self._holes

    def release(self, frame: int) -> bool:
        """Take a page of RAM away. False if there is none."""
        if not self.is_own(frame):
            return False
        self._machine.memory.clear(frame * PAGE_SIZE, PAGE_SIZE)
        self._holes.add(frame)
        return True

    def populate(self, frame: int) -> bool:
        """Put a page of zeros where one was taken away. False if none was."""
        if frame not in self._holes or frame in self._special:
            return False
        self._holes.discard(frame)
        self._machine.memory.clear(frame * PAGE_SIZE, PAGE_SIZE)
        return True

    def move(self, source: int, frame: int) -> None:
        """Move a page of RAM."""
        if not self.is_own(source):
            raise XenError(Errno.EACCES)
        if not self._is_ram(frame):
            raise XenError(Errno.ENOMEM)
        content = self._machine.memory.read(source * PAGE_SIZE, PAGE_SIZE)
        self.release(source)
        self._evict(frame)
        self._holes.discard(frame)
        self._machine.memory.write(frame * PAGE_SIZE, content)

    def place(self, page: MovablePage, frame: int) -> None:
        """Put a page of the hypervisor's somewhere; what is there is taken away."""
        is_ram = self._is_ram(frame)
        if not is_ram and frame not in self._outside:
            self._serve(frame)
        self._evict(frame)
        self._unhook(page)
        page.place(frame * PAGE_SIZE, in_ram=is_ram)
        if is_ram:
            self._holes.add(frame)
        self._special[frame] = page

    def remove(self, frame: int) -> None:
        """Take away whatever is there."""
        if frame not in self._special and not self.is_own(frame):
            raise XenError(Errno.ENOENT)
        self._evict(frame)
        self.release(frame)

    def _evict(self, frame: int) -> None:
        page = self._special.get(frame)
        if page is not None:
            self._unhook(page)

    def _unhook(self, page: MovablePage) -> None:
        """Hide a page; where it was, there is nothing."""
        if page.gpa is None:
            return
        del self._special[page.gpa // PAGE_SIZE]
        page.place(None)

    def _is_ram(self, frame: int) -> bool:
        gpa = frame * PAGE_SIZE
        return any(base <= gpa < base + length for base, length in self._machine.memory.ranges())

    def _serve(self, frame: int) -> None:
        if PCI_MEMORY <= frame * PAGE_SIZE < 1 << 32:
            raise XenError(Errno.EINVAL)  # Devices are there, and must be after a reset.
        if len(self._outside) >= MAX_PAGES_OUTSIDE_RAM:
            raise XenError(Errno.ENOMEM)
        try:
            self._machine.serve_mmio(frame * PAGE_SIZE, PAGE_SIZE, read=self._read, write=self._write)
        except ConfigurationError:  # Somebody else is there, or nothing can be.
            raise XenError(Errno.EINVAL) from None
        self._outside.add(frame)

    def _read(self, vcpu: Vcpu, gpa: int, size: int) -> int:
        page = self._special.get(gpa // PAGE_SIZE)
        return OPEN_BUS if page is None else page.read_int(gpa % PAGE_SIZE, size)

    def _write(self, vcpu: Vcpu, gpa: int, size: int, value: int) -> None:
        page = self._special.get(gpa // PAGE_SIZE)
        if page is not None:
            page.write_int(gpa % PAGE_SIZE, size, value)
