"""Leaf 0xD: which state XSAVE manages, and where each component has its place in the area.

The engine takes the places from here. Sizes that depend on XCR0 and IA32_XSS (EBX of subleaves 0 and 1) are its own.
Sources: SDM vol. 1 sections 13.2 and 13.5, APM vol. 3 appendix E.4.11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from paravirt.cpuid.models import CpuModel

if TYPE_CHECKING:
    from paravirt.cpuid.leaves import Leaves

__all__ = ["add_xstate"]

LEAF = 0xD
X87, SSE = 0, 1
LEGACY_AREA, HEADER = 512, 64


class _Component(NamedTuple):
    """A component behind the header: its bit in XCR0, its feature, bytes, and each vendor's offset of it."""

    number: int
    feature: str
    size: int
    intel_offset: int
    amd_offset: int


_COMPONENTS = (
    _Component(2, "avx", 256, 576, 576),
    # Intel left room for MPX and AVX-512; AMD's first CPU with protection keys had neither.
    _Component(9, "pku", 8, 2688, 832),
)


def add_xstate(leaves: Leaves, model: CpuModel) -> None:
    """Fill in leaf 0xD, if there is XSAVE: without it, it stays zeros."""
    if "xsave" not in model.features:
        return
    xcr0 = 1 << X87 | 1 << SSE
    size = LEGACY_AREA + HEADER
    for component in _COMPONENTS:
        if component.feature in model.features:
            offset = component.amd_offset if model.is_amd else component.intel_offset
            leaves.set(LEAF, (component.size, offset, 0, 0), component.number)
            xcr0 |= 1 << component.number
            size = max(size, offset + component.size)
    leaves.set(LEAF, (xcr0, LEGACY_AREA + HEADER, size, 0), 0)
    leaves.set(LEAF, (0, 0, 0, 0), 1)
