"""The hypervisors' CPUID name space behind 0x40000000: which interface answers where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paravirt.errors import ConfigurationError, PlacementError

if TYPE_CHECKING:
    from paravirt.interfaces.base import CpuidLeaf, Interface

__all__ = ["HYPERVISOR_BASE", "collect_subleaves", "place_interfaces"]

HYPERVISOR_BASE = 0x4000_0000
HYPERVISOR_STEP = 0x100
HYPERVISOR_END = 0x4001_0000
"""Guests scan from the base in these steps up to here (exclusive)."""


def place_interfaces(interfaces: Sequence[Interface]) -> dict[int, CpuidLeaf]:
    """Give each interface its place in the CPUID name space and return all their leaves.

    Those with a fixed place come first; the others fill the free places from 0x40000000 upwards in the order given,
    without gaps, because some guests end their scan at the first. Raises PlacementError if two want the same place.
    """
    taken: dict[int, Interface] = {}
    announced = [interface for interface in interfaces if interface.signature]
    for interface in announced:
        if interface.fixed_base is not None:
            _take_place(taken, interface.fixed_base, interface)
    free = (base for base in range(HYPERVISOR_BASE, HYPERVISOR_END, HYPERVISOR_STEP) if base not in taken)
    for interface in announced:
        if interface.fixed_base is None:
            _take_place(taken, next(free), interface)
    return _collect_leaves(taken)


def _take_place(taken: dict[int, Interface], base: int, interface: Interface) -> None:
    other = taken.get(base)
    if other is not None:
        raise PlacementError(
            f"interfaces {other.name!r} and {interface.name!r} both need CPUID leaf {base:#x}; use one of them",
            resource=f"CPUID leaf {base:#x}",
            interfaces=(other.name, interface.name),
        )
    taken[base] = interface
    interface.place(base)


def _collect_leaves(taken: Mapping[int, Interface]) -> dict[int, CpuidLeaf]:
    leaves: dict[int, CpuidLeaf] = {}
    for base, interface in sorted(taken.items()):
        for leaf, values in interface.cpuid().items():
            if not base <= leaf < base + HYPERVISOR_STEP:
                raise ConfigurationError(
                    f"interface {interface.name!r} answers CPUID leaf {leaf:#x}, outside its block at {base:#x}"
                )
            leaves[leaf] = values
    return leaves


def collect_subleaves(interfaces: Sequence[Interface]) -> dict[tuple[int, int], CpuidLeaf]:
    """Return the subleaves of interfaces that have been placed, by leaf and subleaf."""
    return {
        (interface.base + offset, subleaf): values
        for interface in interfaces
        if interface.signature
        for (offset, subleaf), values in interface.cpuid_subleaves().items()
    }
