"""Caches, as leaf 4 and 0x8000001D, and AMD's older leaves 0x80000005 and 0x80000006 tell them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CACHE_LINE", "Cache", "Caches", "caches"]

CACHE_LINE = 64
DATA, INSTRUCTION, UNIFIED = 1, 2, 3
"""Types of a cache in leaf 4."""

_ASSOCIATIVITY = {1: 1, 2: 2, 4: 4, 6: 5, 8: 6, 16: 8, 32: 10, 48: 11, 64: 12, 96: 13, 128: 14}
"""Codes of ways in leaf 0x80000006 (APM vol. 3 appendix E.4.5)."""
_FROM_LEAF_8000001D = 9
"""Its code for any other number."""


class Cache(NamedTuple):
    """A cache: type (1 data, 2 instruction, 3 unified), level, ways, size, and whether all cores share it."""

    type: int
    level: int
    ways: int
    kib: int

    @property
    def sets(self) -> int:
        """Sets, as its size and ways make them."""
        return self.kib * 1024 // (self.ways * CACHE_LINE)

    @property
    def is_shared(self) -> bool:
        """Whether the cores of a package share it."""
        return self.level == 3

    def deterministic(self, core_bits: int) -> tuple[int, int, int, int]:
        """As leaf 0x8000001D tells it, and leaf 4 without its count of cores. It initialises itself; the numbers in it
        are counts less one."""
        sharing = (1 << core_bits) - 1 if self.is_shared else 0
        eax = min(sharing, 0xFFF) << 14 | 1 << 8 | self.level << 5 | self.type
        return eax, (self.ways - 1) << 22 | (CACHE_LINE - 1), self.sets - 1, 0

    def legacy_level1(self) -> int:
        """As leaf 0x80000005 tells a first-level cache: KiB, ways, lines for each tag, bytes of a line."""
        return self.kib << 24 | self.ways << 16 | 1 << 8 | CACHE_LINE

    def legacy_level2(self) -> int:
        """As leaf 0x80000006 ECX tells a second-level cache."""
        return self.kib << 16 | self._ways_code() << 12 | 1 << 8 | CACHE_LINE

    def legacy_level3(self) -> int:
        """As leaf 0x80000006 EDX tells a third-level cache: its size counts half MiB."""
        return self.kib // 512 << 18 | self._ways_code() << 12 | 1 << 8 | CACHE_LINE

    def _ways_code(self) -> int:
        return _ASSOCIATIVITY.get(self.ways, _FROM_LEAF_8000001D)


Caches = tuple[Cache, ...]
"""Level 1 data, level 1 instruction, level 2, and level 3 if there is one."""


def caches(data: tuple[int, int], instruction: tuple[int, int], *unified: tuple[int, int]) -> Caches:
    """Return a CPU's caches, each given by its KiB and ways: level 1 data and instruction, then level 2 and 3."""
    first = (Cache(DATA, 1, data[1], data[0]), Cache(INSTRUCTION, 1, instruction[1], instruction[0]))
    return first + tuple(Cache(UNIFIED, level, ways, kib) for level, (kib, ways) in enumerate(unified, 2))
