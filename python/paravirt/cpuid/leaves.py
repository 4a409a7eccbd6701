"""The CPUID table of a machine's CPUs.

Sources: Intel SDM vol. 2 CPUID, AMD APM vol. 3 appendix E. What depends on a vCPU or changes while it runs (APIC ids,
OSXSAVE, OSPKE, the sizes of XSAVE areas) is filled in by the engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paravirt.cpuid.caches import CACHE_LINE, Caches
from paravirt.cpuid.features import ARCH_CAPABILITIES, ECX, EDX, FEATURES, Feature
from paravirt.cpuid.models import CpuModel
from paravirt.cpuid.xstate import add_xstate

if TYPE_CHECKING:
    from paravirt.interfaces.base import CpuidLeaf

__all__ = ["LAPIC_TIMER_HZ", "Leaves", "Row", "build_cpuid"]

Row = tuple[int, int | None, int, int, int, int]
"""Leaf, subleaf or None for any, EAX, EBX, ECX, EDX: as the engine takes it."""

LAPIC_TIMER_HZ = 1_000_000_000
"""The local APIC timer's clock, before its divider; also the crystal of leaf 0x15, which guests take for it."""

BASIC, EXTENDED = 0, 0x8000_0000
"""The first leaf of each range."""
HYPERVISOR = Feature("hypervisor", 1, ECX, 31)


class Leaves:
    """A CPUID table under construction."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int | None], list[int]] = {}

    def set(self, leaf: int, values: Sequence[int], subleaf: int | None = None) -> None:
        """Set a leaf; with a subleaf, one of several."""
        if subleaf is not None:
            self._rows.pop((leaf, None), None)
        self._rows[leaf, subleaf] = list(values)

    def set_bit(self, feature: Feature) -> None:
        """Announce a feature."""
        subleaf = None if (feature.leaf, None) in self._rows else feature.subleaf
        self._rows.setdefault((feature.leaf, subleaf), [0, 0, 0, 0])[feature.register] |= 1 << feature.bit

    def rows(self) -> list[Row]:
        """All leaves, ascending."""
        return [
            (leaf, subleaf, values[0], values[1], values[2], values[3])
            for (leaf, subleaf), values in sorted(self._rows.items(), key=lambda item: (item[0][0], item[0][1] or 0))
        ]


def build_cpuid(
    model: CpuModel,
    *,
    cpus: int,
    tsc_khz: int,
    hypervisor: Mapping[int, CpuidLeaf] | None = None,
    subleaves: Mapping[tuple[int, int], CpuidLeaf] | None = None,
) -> list[Row]:
    """Return the whole CPUID table of a machine's CPUs.

    cpus: number of vCPUs, each shown as a core of one package. hypervisor: the interfaces' leaves; None or empty: no
    hypervisor is announced. subleaves: of those leaves that have some. APIC ids and bits that change at run time are
    the engine's.
    """
    leaves = Leaves()
    _add_basic_leaves(leaves, model, cpus)
    if not model.is_amd:
        _add_intel_leaves(leaves, model, cpus, tsc_khz)
    _add_extended_leaves(leaves, model, cpus)
    if model.is_amd:
        _add_amd_leaves(leaves, model, cpus)
    add_xstate(leaves, model)
    for name in model.features:
        if FEATURES[name].leaf != ARCH_CAPABILITIES:
            leaves.set_bit(FEATURES[name])
    if cpus > 1:
        leaves.set_bit(FEATURES["ht"])
        if model.is_amd:
            leaves.set_bit(FEATURES["cmp_legacy"])
    if hypervisor is not None and hypervisor:
        leaves.set_bit(HYPERVISOR)
        for leaf, values in hypervisor.items():
            leaves.set(leaf, values)
        for (leaf, subleaf), values in (subleaves or {}).items():
            leaves.set(leaf, values, subleaf)
    return leaves.rows()


PERFORMANCE_COUNTERS = (0x0730_0400, 0x78, 0, 0x603)
"""Leaf 0xA: four general counters of 48 bits, seven events of which four (cache references and misses, branches and
those mispredicted) are not there, three fixed counters of 48 bits. Its version is a feature of its own."""


def _highest_leaf(model: CpuModel, least: int, first: int) -> int:
    """The highest leaf of the range that begins with `first`: a feature's own leaves must be within."""
    used = [FEATURES[name].leaf for name in model.features if FEATURES[name].leaf != ARCH_CAPABILITIES]
    if "x2apic" in model.features:
        used.append(0xB)
    if "xsave" in model.features:
        used.append(0xD)
    if "topoext" in model.features:
        used.append(0x8000_001E)
    return max([least, *(leaf for leaf in used if leaf & 0x8000_0000 == first)])


def _add_basic_leaves(leaves: Leaves, model: CpuModel, cpus: int) -> None:
    ebx, edx, ecx = _words(model.vendor.encode())
    highest = _highest_leaf(model, model.basic_leaves, BASIC)
    for leaf in range(highest + 1):
        leaves.set(leaf, (0, 0, 0, 0))
    leaves.set(0, (highest, ebx, ecx, edx))
    logical_cpus = min(cpus, 255)
    leaves.set(1, (model.signature, logical_cpus << 16 | CACHE_LINE // 8 << 8, 0, 0))
    if "monitor" in model.features:
        # One line is watched; MWAIT extensions are enumerated and interrupts break it even when masked.
        leaves.set(5, (CACHE_LINE, CACHE_LINE, 3, 0))
    if highest >= 7:
        subleaves = [FEATURES[name].subleaf for name in model.features if FEATURES[name].leaf == 7]
        leaves.set(7, (max(subleaves, default=0), 0, 0, 0), 0)
    if "pmu" in model.features:
        leaves.set(0xA, PERFORMANCE_COUNTERS)
    if "x2apic" in model.features:
        # One thread a core, all cores in one package. The engine fills in EDX, the x2APIC id.
        leaves.set(0xB, (0, 1, 0x100, 0), 0)
        leaves.set(0xB, (_id_bits(cpus), cpus, 0x201, 0), 1)


def _id_bits(cpus: int) -> int:
    return (cpus - 1).bit_length()


def _add_intel_leaves(leaves: Leaves, model: CpuModel, cpus: int, tsc_khz: int) -> None:
    leaves.set(2, (0x00FE_FF01, 0, 0, 0))  # Caches: see leaf 4. TLBs: see leaf 0x18, which is not there.
    addressable = min((1 << _id_bits(cpus)) - 1, 63)
    _add_deterministic_caches(leaves, 4, model.caches, cpus, addressable << 26)
    if model.basic_leaves < 0x16:
        return
    # TSC = crystal * EBX / EAX. Guests take the crystal for the clock of the local APIC timer as well.
    tsc_hz = tsc_khz * 1000
    divisor = math.gcd(tsc_hz, LAPIC_TIMER_HZ)
    leaves.set(0x15, (LAPIC_TIMER_HZ // divisor, tsc_hz // divisor & 0xFFFF_FFFF, LAPIC_TIMER_HZ, 0))
    mhz = min(max(tsc_khz // 1000, 1), 0xFFFF)
    leaves.set(0x16, (mhz, mhz, 100, 0))


def _add_deterministic_caches(leaves: Leaves, leaf: int, caches: Caches, cpus: int, cores: int) -> None:
    """A subleaf for each cache, and one that ends them. cores: bits that leaf 4 has in EAX besides."""
    for subleaf, cache in enumerate(caches):
        eax, ebx, ecx, edx = cache.deterministic(_id_bits(cpus))
        leaves.set(leaf, (eax | cores, ebx, ecx, edx), subleaf)
    leaves.set(leaf, (0, 0, 0, 0), len(caches))


def _add_extended_leaves(leaves: Leaves, model: CpuModel, cpus: int) -> None:
    highest = _highest_leaf(model, model.extended_leaves, EXTENDED)
    for leaf in range(EXTENDED, highest + 1):
        leaves.set(leaf, (0, 0, 0, 0))
    ebx, edx, ecx = _words(model.vendor.encode()) if model.is_amd else (0, 0, 0)
    leaves.set(0x8000_0000, (highest, ebx, ecx, edx))
    leaves.set(0x8000_0001, (model.signature if model.is_amd else 0, 0, 0, 0))
    brand = model.brand.encode().ljust(48, b"\0")
    for index in range(3):
        part = brand[index * 16 : index * 16 + 16]
        leaves.set(0x8000_0002 + index, [int.from_bytes(part[i : i + 4], "little") for i in range(0, 16, 4)])
    leaves.set(0x8000_0006, (0, 0, model.caches[2].legacy_level2(), 0))
    cores = (_id_bits(cpus) << 12 | (cpus - 1) & 0xFF) if model.is_amd else 0
    leaves.set(0x8000_0008, (model.virt_bits << 8 | model.phys_bits, 0, cores, 0))


FIRST_LEVEL_TLB = 0xFF40
"""Leaf 0x80000005: 64 entries, fully associative; the same for code and data."""


def _add_amd_leaves(leaves: Leaves, model: CpuModel, cpus: int) -> None:
    data, instruction, level2, *level3 = model.caches
    tlb = FIRST_LEVEL_TLB << 16 | FIRST_LEVEL_TLB
    leaves.set(0x8000_0005, (tlb, tlb, data.legacy_level1(), instruction.legacy_level1()))
    leaves.set(0x8000_0006, (0, 0, level2.legacy_level2(), level3[0].legacy_level3() if level3 else 0))
    if "topoext" in model.features:
        _add_deterministic_caches(leaves, 0x8000_001D, model.caches, cpus, 0)
    # AMD repeats bits 0–9, 12–17, 23 and 24 of leaf 1 EDX in 0x80000001 EDX.
    for name in model.features:
        feature = FEATURES[name]
        if (feature.leaf, feature.register) == (1, EDX) and feature.bit in _MIRRORED_BITS:
            leaves.set_bit(feature._replace(leaf=0x8000_0001))


_MIRRORED_BITS = frozenset((*range(10), *range(12, 18), 23, 24))


def _words(text: bytes) -> tuple[int, int, int]:
    first, second, third = (int.from_bytes(text[i : i + 4], "little") for i in (0, 4, 8))
    return first, second, third
