"""The guest CPU's CPUID leaves, and the hypervisor's name space behind 0x40000000.

Features are rows of one table; what the software CPU implements is one list of their names, and nothing else is ever
announced. Sources: Intel SDM vol. 2 CPUID, AMD APM vol. 3 appendix E.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from paravirt.errors import ConfigurationError, PlacementError, UnknownFeatureError

if TYPE_CHECKING:
    from paravirt.host import Host
    from paravirt.interfaces.base import CpuidLeaf, Interface

__all__ = ["CPU_MODELS", "FEATURES", "IMPLEMENTED", "CpuModel", "build_cpuid", "parse_cpu", "place_interfaces"]

Row = tuple[int, int | None, int, int, int, int]
"""Leaf, subleaf or None for any, EAX, EBX, ECX, EDX: as the engine takes it."""

LAPIC_TIMER_HZ = 1_000_000_000
"""The local APIC timer's clock, before its divider; also the crystal of leaf 0x15, which guests take for it."""


# -- features

EAX, EBX, ECX, EDX = range(4)


class Feature(NamedTuple):
    """One feature bit."""

    name: str
    leaf: int
    register: int
    bit: int


def _row(leaf: int, register: int, names: str) -> list[Feature]:
    """Features of one register, lowest bit first; `.` skips a bit."""
    return [Feature(name, leaf, register, bit) for bit, name in enumerate(names.split()) if name != "."]


FEATURES: Mapping[str, Feature] = {
    feature.name: feature
    for feature in (
        *_row(
            1,
            EDX,
            "fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov pat pse36 pn clflush . ds acpi mmx fxsr"
            " sse sse2 ss ht tm ia64 pbe",
        ),
        *_row(
            1,
            ECX,
            "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid . fma cx16 xtpr pdcm . pcid dca sse4.1"
            " sse4.2 x2apic movbe popcnt tsc-deadline aes xsave . avx f16c rdrand",
        ),
        *_row(
            7,
            EBX,
            "fsgsbase tsc_adjust sgx bmi1 hle avx2 . smep bmi2 erms invpcid rtm . . mpx . avx512f avx512dq rdseed adx"
            " smap avx512ifma . clflushopt clwb . . . avx512cd sha-ni avx512bw avx512vl",
        ),
        *_row(7, ECX, "prefetchwt1 avx512vbmi umip pku . waitpkg . . gfni vaes vpclmulqdq . . . . . la57"),
        Feature("rdpid", 7, ECX, 22),
        Feature("fsrm", 7, EDX, 4),
        Feature("serialize", 7, EDX, 14),
        Feature("spec-ctrl", 7, EDX, 26),
        Feature("arch-capabilities", 7, EDX, 29),
        Feature("arat", 6, EAX, 2),
        *_row(
            0x8000_0001,
            ECX,
            "lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt",
        ),
        Feature("syscall", 0x8000_0001, EDX, 11),
        Feature("nx", 0x8000_0001, EDX, 20),
        Feature("mmxext", 0x8000_0001, EDX, 22),
        Feature("fxsr_opt", 0x8000_0001, EDX, 25),
        Feature("pdpe1gb", 0x8000_0001, EDX, 26),
        Feature("rdtscp", 0x8000_0001, EDX, 27),
        Feature("lm", 0x8000_0001, EDX, 29),
        Feature("invtsc", 0x8000_0007, EDX, 8),
    )
}
"""Every feature that has a name here, whether or not an engine implements it. Names are QEMU's."""

IMPLEMENTED: frozenset[str] = frozenset(
    (
        *("fpu", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "sep", "mtrr", "pge", "mca", "cmov", "pat"),
        *("pse36", "clflush", "monitor", "cx16", "pcid", "x2apic", "movbe", "popcnt", "tsc-deadline", "rdrand"),
        *("fsgsbase", "tsc_adjust", "bmi1", "smep", "bmi2", "erms", "invpcid", "rdseed", "adx", "smap"),
        *("clflushopt", "clwb", "umip", "pku", "la57", "rdpid", "arat", "lahf_lm", "cr8legacy", "abm"),
        *("3dnowprefetch", "syscall", "nx", "pdpe1gb", "rdtscp", "lm", "invtsc"),
    )
)
"""What the software CPU does. Extend it when the CPU learns more."""

_ALIASES = {
    "lzcnt": "abm",
    "sse3": "pni",
    "tsc-adjust": "tsc_adjust",
    "tscdeadline": "tsc-deadline",
    "lahf-lm": "lahf_lm",
}
_AMD_ONLY = frozenset(
    ("cr8legacy", "svm", "cmp_legacy", "sse4a", "misalignsse", "skinit", "osvw", "mmxext", "fxsr_opt")
)
_INTEL_ONLY = frozenset(("tsc-deadline",))
"""Announced by default to CPUs of this vendor only; asked for by name, any CPU has them."""


# -- models


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A guest CPU: vendor string of leaf 0, signature, features by name, widths of addresses in bits."""

    name: str
    vendor: str
    family: int
    model: int
    stepping: int
    features: frozenset[str]
    phys_bits: int = 46

    @property
    def is_amd(self) -> bool:
        """Whether AMD's leaves are those that count."""
        return self.vendor in ("AuthenticAMD", "HygonGenuine")

    @property
    def virt_bits(self) -> int:
        """Bits of a linear address."""
        return 57 if "la57" in self.features else 48

    @property
    def signature(self) -> int:
        """Leaf 1 EAX: stepping, model and family with their extensions."""
        family = min(self.family, 15)
        extended_family = self.family - family
        model, extended_model = self.model & 15, self.model >> 4
        return extended_family << 20 | extended_model << 16 | family << 8 | model << 4 | self.stepping


_BASIC = (
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm "
    "arat invtsc"
)
_QEMU64 = f"{_BASIC} pni cx16 lahf_lm"
_OPTERON_G1 = f"{_BASIC} pni"
_IVY_BRIDGE = (
    f"{_QEMU64} pclmulqdq ssse3 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx f16c rdrand fsgsbase smep erms "
    "rdtscp"
)
_SKYLAKE_SERVER = (
    f"{_IVY_BRIDGE} fma pcid movbe bmi1 avx2 bmi2 invpcid rdseed adx smap clflushopt clwb abm 3dnowprefetch pdpe1gb "
    "pku avx512f avx512dq avx512cd avx512bw avx512vl"
)
_EPYC = (
    f"{_QEMU64} pclmulqdq monitor fma ssse3 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand fsgsbase bmi1 avx2 "
    "smep bmi2 rdseed adx smap clflushopt sha-ni cr8legacy abm sse4a misalignsse 3dnowprefetch osvw mmxext fxsr_opt "
    "pdpe1gb rdtscp"
)


class _ModelRow(NamedTuple):
    """A model as the table has it. vendor None: the host's. features None: everything implemented."""

    vendor: str | None
    family: int
    model: int
    stepping: int
    features: str | None


CPU_MODELS: Mapping[str, _ModelRow] = {
    "default": _ModelRow(None, 0, 0, 0, None),
    "max": _ModelRow(None, 0, 0, 0, None),
    "host": _ModelRow(None, 0, 0, 0, None),
    "qemu64": _ModelRow(None, 15, 107, 1, _QEMU64),
    "Opteron_G1": _ModelRow("AuthenticAMD", 15, 5, 1, _OPTERON_G1),
    "EPYC": _ModelRow("AuthenticAMD", 23, 1, 2, _EPYC),
    "IvyBridge": _ModelRow("GenuineIntel", 6, 58, 9, _IVY_BRIDGE),
    "Skylake-Server": _ModelRow("GenuineIntel", 6, 85, 4, _SKYLAKE_SERVER),
}
"""CPU models by QEMU's names. Of a model's features those are announced that the software CPU implements."""

_VENDOR_DEFAULTS = {False: (6, 85, 4), True: (23, 49, 0)}
"""Family, model, stepping of a CPU without a name, by whether it is AMD's."""


def parse_cpu(text: str, host: Host) -> CpuModel:
    """Return the guest CPU that `--cpu` text describes: a model, then `+feature`, `-feature`, `feature=on|off`,
    `vendor=`, `phys-bits=`, `family=`, `model=`, `stepping=`.

    Raises UnknownFeatureError for a name that does not exist or that the software CPU does not implement, and
    ConfigurationError for a value that does not fit.
    """
    name, *options = (part.strip() for part in text.split(","))
    row = CPU_MODELS.get(name)
    if row is None:
        raise UnknownFeatureError(f"unknown cpu model {name!r}; known: {', '.join(CPU_MODELS)}", name)
    settings = _Settings(options)
    vendor = settings.take_text("vendor") or row.vendor or host.vendor
    if len(vendor.encode()) != 12:
        raise ConfigurationError(f"cpu vendor {vendor!r} is not 12 characters long", option="cpu", value=vendor)
    model = CpuModel(name, vendor, row.family, row.model, row.stepping, frozenset())
    if not row.family:
        family, number, stepping = _VENDOR_DEFAULTS[model.is_amd]
        model = replace(model, family=family, model=number, stepping=stepping)
    features = (
        IMPLEMENTED - _foreign_features(model) if row.features is None else IMPLEMENTED & set(row.features.split())
    )
    settings.take_text("host-phys-bits")  # QEMU's; the software CPU has no width of its own to pass on.
    model = replace(
        model,
        phys_bits=settings.take_number("phys-bits", model.phys_bits, 32, 52),
        family=settings.take_number("family", model.family, 0, 270),
        model=settings.take_number("model", model.model, 0, 255),
        stepping=settings.take_number("stepping", model.stepping, 0, 15),
    )
    return replace(model, features=settings.apply_features(features))


def _foreign_features(model: CpuModel) -> frozenset[str]:
    return _INTEL_ONLY if model.is_amd else _AMD_ONLY


class _Settings:
    """The options behind a model's name: each must be taken by somebody."""

    def __init__(self, options: Iterable[str]) -> None:
        self._values: dict[str, str] = {}
        self._switches: dict[str, bool] = {}
        for option in options:
            key, equals, value = option.partition("=")
            if option[:1] in ("+", "-"):
                self._switches[option[1:]] = option[0] == "+"
            elif (equals and key in _OPTIONS) or key == "host-phys-bits":
                self._values[key] = value
            elif not equals or value in ("on", "off"):
                self._switches[key] = value != "off"
            else:
                raise UnknownFeatureError(f"unknown cpu option {option!r}; write '+{key}' or '-{key}'", key)

    def take_text(self, key: str) -> str | None:
        return self._values.pop(key, None)

    def take_number(self, key: str, default: int, least: int, most: int) -> int:
        text = self.take_text(key)
        if text is None:
            return default
        try:
            number = int(text, 0)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ConfigurationError(
                f"cpu {key}={text!r} is not a number from {least} to {most}", option="cpu", value=text
            )
        return number

    def apply_features(self, features: frozenset[str]) -> frozenset[str]:
        chosen = set(features)
        for name, wanted in self._switches.items():
            name = _ALIASES.get(name, name)
            if name not in FEATURES:
                raise UnknownFeatureError(f"unknown cpu feature {name!r}", name)
            if not wanted:
                chosen.discard(name)
            elif name not in IMPLEMENTED:
                raise UnknownFeatureError(f"the software CPU does not implement {name!r}; leave it out", name)
            else:
                chosen.add(name)
        return frozenset(chosen)


_OPTIONS = frozenset(("vendor", "phys-bits", "family", "model", "stepping"))


# -- leaves


class _Leaves:
    """A CPUID table under construction."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int | None], list[int]] = {}

    def set(self, leaf: int, values: Sequence[int], subleaf: int | None = None) -> None:
        self._rows[leaf, subleaf] = list(values)

    def set_bit(self, feature: Feature) -> None:
        for (leaf, subleaf), values in self._rows.items():
            if leaf == feature.leaf and subleaf in (None, 0):
                values[feature.register] |= 1 << feature.bit

    def rows(self) -> list[Row]:
        return [
            (leaf, subleaf, values[0], values[1], values[2], values[3])
            for (leaf, subleaf), values in sorted(self._rows.items(), key=lambda item: (item[0][0], item[0][1] or 0))
        ]


def build_cpuid(
    model: CpuModel, *, cpus: int, tsc_khz: int, hypervisor: Mapping[int, CpuidLeaf] | None = None
) -> list[Row]:
    """Return the whole CPUID table of a machine's CPUs.

    cpus: number of vCPUs, each shown as a core of one package. hypervisor: the interfaces' leaves; None or empty: no
    hypervisor is announced. APIC ids and bits that change at run time are the engine's.
    """
    leaves = _Leaves()
    _add_basic_leaves(leaves, model, cpus, tsc_khz)
    _add_extended_leaves(leaves, model, cpus)
    for name in model.features:
        leaves.set_bit(FEATURES[name])
    if cpus > 1:
        leaves.set_bit(FEATURES["ht"])
        if model.is_amd:
            leaves.set_bit(FEATURES["cmp_legacy"])
    if hypervisor is not None and hypervisor:
        leaves.set_bit(Feature("hypervisor", 1, ECX, 31))
        for leaf, values in hypervisor.items():
            leaves.set(leaf, values)
    return leaves.rows()


def _add_basic_leaves(leaves: _Leaves, model: CpuModel, cpus: int, tsc_khz: int) -> None:
    ebx, edx, ecx = _words(model.vendor.encode())
    max_leaf = 0xD if model.is_amd else 0x16
    for leaf in range(max_leaf + 1):
        leaves.set(leaf, (0, 0, 0, 0))
    leaves.set(0, (max_leaf, ebx, ecx, edx))
    logical_cpus = min(cpus, 255)
    leaves.set(1, (model.signature, logical_cpus << 16 | CACHE_LINE // 8 << 8, 0, 0))
    if "monitor" in model.features:
        # One line is watched; MWAIT extensions are enumerated and interrupts break it even when masked.
        leaves.set(5, (CACHE_LINE, CACHE_LINE, 3, 0))
    leaves.set(7, (0, 0, 0, 0), 0)
    if "x2apic" in model.features:
        _add_topology(leaves, cpus)
    if not model.is_amd:
        _add_intel_leaves(leaves, cpus, tsc_khz)


CACHE_LINE = 64


def _add_topology(leaves: _Leaves, cpus: int) -> None:
    """Leaf 0xB: one thread a core, all cores in one package. The engine fills in EDX, the x2APIC id."""
    leaves.set(0xB, (0, 1, 0x100, 0), 0)
    leaves.set(0xB, (_id_bits(cpus), cpus, 0x201, 0), 1)


def _id_bits(cpus: int) -> int:
    return (cpus - 1).bit_length()


def _add_intel_leaves(leaves: _Leaves, cpus: int, tsc_khz: int) -> None:
    leaves.set(2, (0x00FE_FF01, 0, 0, 0))  # Caches: see leaf 4. TLBs: see leaf 0x18, which is not there.
    for subleaf, cache in enumerate(_INTEL_CACHES):
        leaves.set(4, cache.deterministic(cpus), subleaf)
    leaves.set(4, (0, 0, 0, 0), len(_INTEL_CACHES))
    # TSC = crystal * EBX / EAX. Guests take the crystal for the clock of the local APIC timer as well.
    tsc_hz = tsc_khz * 1000
    divisor = math.gcd(tsc_hz, LAPIC_TIMER_HZ)
    leaves.set(0x15, (LAPIC_TIMER_HZ // divisor, tsc_hz // divisor & 0xFFFF_FFFF, LAPIC_TIMER_HZ, 0))
    mhz = min(max(tsc_khz // 1000, 1), 0xFFFF)
    leaves.set(0x16, (mhz, mhz, 100, 0))


class _Cache(NamedTuple):
    """A cache: type (1 data, 2 instruction, 3 unified), level, ways, sets, and whether all cores share it."""

    type: int
    level: int
    ways: int
    sets: int
    shared: bool

    def deterministic(self, cpus: int) -> CpuidLeaf:
        """As leaf 4 tells it. Self-initialising; the numbers in it are counts less one."""
        max_id = (1 << _id_bits(cpus)) - 1
        sharing = max_id if self.shared else 0
        eax = min(max_id, 63) << 26 | min(sharing, 0xFFF) << 14 | 1 << 8 | self.level << 5 | self.type
        return eax, (self.ways - 1) << 22 | (CACHE_LINE - 1), self.sets - 1, 0


_INTEL_CACHES = (
    _Cache(1, 1, 8, 64, shared=False),
    _Cache(2, 1, 8, 64, shared=False),
    _Cache(3, 2, 16, 1024, shared=False),
    _Cache(3, 3, 16, 16384, shared=True),
)

BRAND = b"paravirt virtual CPU"
L2_UNIFIED_1_MIB = 0x0400_8040
"""Leaf 0x80000006 ECX: 1024 KiB, 16 ways, lines of 64 bytes."""


def _add_extended_leaves(leaves: _Leaves, model: CpuModel, cpus: int) -> None:
    for leaf in range(0x8000_0000, 0x8000_0009):
        leaves.set(leaf, (0, 0, 0, 0))
    ebx, edx, ecx = _words(model.vendor.encode()) if model.is_amd else (0, 0, 0)
    leaves.set(0x8000_0000, (0x8000_0008, ebx, ecx, edx))
    leaves.set(0x8000_0001, (model.signature if model.is_amd else 0, 0, 0, 0))
    brand = BRAND.ljust(48, b"\0")
    for index in range(3):
        part = brand[index * 16 : index * 16 + 16]
        leaves.set(0x8000_0002 + index, [int.from_bytes(part[i : i + 4], "little") for i in range(0, 16, 4)])
    leaves.set(0x8000_0006, (0, 0, L2_UNIFIED_1_MIB, 0))
    cores = (_id_bits(cpus) << 12 | (cpus - 1) & 0xFF) if model.is_amd else 0
    leaves.set(0x8000_0008, (model.virt_bits << 8 | model.phys_bits, 0, cores, 0))
    if model.is_amd:
        _mirror_basic_features(leaves, model)


def _mirror_basic_features(leaves: _Leaves, model: CpuModel) -> None:
    """AMD repeats bits 0–9, 12–17, 23 and 24 of leaf 1 EDX in 0x80000001 EDX."""
    for name in model.features:
        feature = FEATURES[name]
        if (feature.leaf, feature.register) == (1, EDX) and feature.bit in _MIRRORED_BITS:
            leaves.set_bit(feature._replace(leaf=0x8000_0001))


_MIRRORED_BITS = frozenset((*range(10), *range(12, 18), 23, 24))


def _words(text: bytes) -> tuple[int, int, int]:
    first, second, third = (int.from_bytes(text[i : i + 4], "little") for i in (0, 4, 8))
    return first, second, third


# -- the hypervisor's name space

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
