"""Names for addresses: what an ELF's symbol table says, for logs and breakpoints."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

__all__ = ["SymbolTable"]


class SymbolTable:
    """Symbols by name and by address.

    symbols: (name, address, size in bytes or 0 if unknown). Of several symbols at one address the first is told.
    """

    def __init__(self, symbols: Iterable[tuple[str, int, int]] = ()) -> None:
        self._by_name: dict[str, int] = {}
        by_address: dict[int, tuple[str, int]] = {}
        for name, address, size in symbols:
            self._by_name.setdefault(name, address)
            known = by_address.get(address)
            if known is None or (known[1] == 0 and size):
                by_address[address] = (name, size)
        self._addresses = sorted(by_address)
        self._entries = [by_address[address] for address in self._addresses]

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> int:
        """The address of a symbol. Raises KeyError."""
        return self._by_name[name]

    def moved(self, distance: int) -> SymbolTable:
        """Return the symbols of a kernel that has moved itself that many bytes upwards."""
        moved = SymbolTable()
        moved._by_name = {name: address + distance for name, address in self._by_name.items()}
        moved._addresses = [address + distance for address in self._addresses]
        moved._entries = self._entries
        return moved

    def find(self, address: int) -> str | None:
        """Return `"name"` or `"name+0x12"` for an address inside a symbol; None if it is in none.

        A symbol of unknown size (assembly code, a System.map) reaches to the next symbol, within reason.
        """
        position = bisect_right(self._addresses, address) - 1
        if position < 0:
            return None
        name, size = self._entries[position]
        offset = address - self._addresses[position]
        is_last = position == len(self._addresses) - 1
        if offset >= (size or (LAST_UNSIZED_REACH if is_last else UNSIZED_REACH)):
            return None
        return f"{name}+{offset:#x}" if offset else name

    def __repr__(self) -> str:
        return f"<SymbolTable {len(self)} symbols>"


UNSIZED_REACH = 1 << 16
"""How far, in bytes, a symbol reaches at most if its size is unknown."""
LAST_UNSIZED_REACH = 4096
"""The same for the last, which ends at no other."""
