"""A flat binary: bytes at an address, entered in real mode at the first of them, registers as after reset."""

from __future__ import annotations

from paravirt.boot.image import Kernel, KernelFile, RealModeEntry, Segment, check_fits, write_segments
from paravirt.errors import ConfigurationError
from paravirt.memory import GuestMemory
from paravirt.symbols import SymbolTable

__all__ = ["FlatKernel"]


class FlatKernel(Kernel):
    """Raw code for real mode. address: below 1 MiB, since real mode must reach it."""

    DEFAULT_ADDRESS = 0x7C00
    """Where a BIOS puts a boot sector."""

    def __init__(self, file: KernelFile, address: int) -> None:
        if not 0 <= address < 1 << 20:
            raise ConfigurationError(
                f"load address {address:#x} is not below 1 MiB, where real mode reaches",
                option="address",
                value=address,
            )
        self._file = file
        self._address = address

    def symbols(self) -> SymbolTable:
        """Return no symbols: there are none."""
        return SymbolTable()

    def load(self, memory: GuestMemory) -> RealModeEntry:
        """Write the code. Raises ImageError if it does not fit."""
        segment = Segment(self._address, self._file.data, len(self._file.data))
        check_fits(self._file.name, [segment], memory)
        write_segments(memory, [segment])
        if self._address < 1 << 16:
            return RealModeEntry(0, self._address)
        return RealModeEntry(self._address >> 4, self._address & 15)
