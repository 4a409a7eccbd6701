"""CPU models by name: what a guest CPU is, before anybody has switched features on or off.

A named model shows what the silicon of that name shows, of the features that the software CPU implements; `paravirt cpu
NAME` tells what it lacks. Family, model and stepping, features and caches are from the vendors' manuals; names are
those of QEMU and GCC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from paravirt.cpuid.caches import Caches, caches
from paravirt.cpuid.features import (
    AMD_ONLY,
    ARCH_CAPABILITIES,
    EDX,
    FEATURES,
    IMPLEMENTED,
    INTEL_ONLY,
    ON_REQUEST,
)
from paravirt.errors import UnknownFeatureError

__all__ = ["ALIASES", "CPU_MODELS", "CpuModel", "ModelRow", "find_model"]


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A guest CPU: vendor string of leaf 0, signature, features by name, and what else its leaves tell.

    phys_bits: width of physical addresses. basic_leaves and extended_leaves: the highest leaf of each range; features
    that have their bits further up raise it.
    """

    name: str
    vendor: str
    family: int
    model: int
    stepping: int
    features: frozenset[str]
    brand: str
    caches: Caches
    basic_leaves: int
    extended_leaves: int
    phys_bits: int = 46

    @property
    def is_amd(self) -> bool:
        """Whether AMD's leaves are those that count."""
        return is_amd(self.vendor)

    @property
    def virt_bits(self) -> int:
        """Bits of a linear address."""
        return 57 if "la57" in self.features else 48

    @property
    def arch_capabilities(self) -> int:
        """What IA32_ARCH_CAPABILITIES reads as."""
        features = (FEATURES[name] for name in self.features)
        bits = (feature for feature in features if feature.leaf == ARCH_CAPABILITIES)
        return sum(1 << (feature.bit + (32 if feature.register == EDX else 0)) for feature in bits)

    @property
    def signature(self) -> int:
        """Leaf 1 EAX: stepping, model and family with their extensions."""
        family = min(self.family, 15)
        extended_family = self.family - family
        model, extended_model = self.model & 15, self.model >> 4
        return extended_family << 20 | extended_model << 16 | family << 8 | model << 4 | self.stepping


def is_amd(vendor: str) -> bool:
    """Whether a vendor's CPUs have AMD's leaves."""
    return vendor in (AMD, "HygonGenuine")


class ModelRow(NamedTuple):
    """A model as the table has it.

    vendor None: the host's, and with it signature, caches and leaves. features None: everything that is implemented and
    that CPUs of the vendor have.
    """

    summary: str
    vendor: str | None
    signature: tuple[int, int, int]
    features: str | None
    caches: Caches
    basic_leaves: int
    extended_leaves: int

    def default_features(self, vendor: str) -> frozenset[str]:
        """The features that a CPU of this model and vendor announces."""
        wanted = IMPLEMENTED if self.features is None else IMPLEMENTED & set(self.features.split())
        foreign = INTEL_ONLY if is_amd(vendor) else AMD_ONLY
        return wanted - ON_REQUEST - (foreign if self.vendor is None else frozenset())

    @property
    def left_out(self) -> frozenset[str]:
        """The features that the silicon has and the software CPU does not implement."""
        return frozenset() if self.features is None else frozenset(self.features.split()) - IMPLEMENTED


INTEL, AMD = "GenuineIntel", "AuthenticAMD"

# -- features, generation by generation: each line adds to the one that it names; with what microcode brought later

_V1 = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm "
    "arat invtsc"
)
"""The x86-64 psABI's baseline, what kernels of it cannot do without, and time that does not stop: ours never does."""
_SAFE = (
    "spec-ctrl stibp ssbd flush-l1d md-clear arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry ssb-no mds-no "
    "pschange-mc-no taa-no sbdr-ssdp-no fbsdp-no psdp-no fb-clear bhi-no pbrsb-no gds-no rfds-no rfds-clear its-no "
    "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no "
    "ibpb ibrs amd-stibp stibp-always-on ibrs-same-mode amd-ssbd amd-no-ssb amd-psfd btc-no ibpb-ret verw-clear "
    "auto-ibrs sbpb ibpb-brtype srso-no srso-user-kernel-no tsa-sq-no tsa-l1-no lfence-always-serializing "
    "null-sel-clr-base"
)
"""That nothing is speculated on, in either vendor's words: a level of instructions says nothing against it."""
_V2 = f"{_V1} pni ssse3 sse4.1 sse4.2 popcnt cx16 lahf_lm x2apic"
_V3 = f"{_V2} xsave avx f16c fma avx2 bmi1 bmi2 abm movbe"
_QEMU64 = f"{_V1} pni cx16 lahf_lm"

_PENRYN = f"{_QEMU64} ssse3 sse4.1"
_NEHALEM = f"{_PENRYN} sse4.2 popcnt spec-ctrl stibp ssbd flush-l1d"
_WESTMERE = f"{_NEHALEM} aes pclmulqdq"
_SANDY_BRIDGE = f"{_WESTMERE} md-clear x2apic tsc-deadline xsave xsaveopt avx rdtscp"
_IVY_BRIDGE = f"{_SANDY_BRIDGE} f16c rdrand fsgsbase smep erms"
_HASWELL = f"{_IVY_BRIDGE} fma pcid movbe tsc_adjust bmi1 avx2 bmi2 invpcid abm"
_BROADWELL = f"{_HASWELL} rdseed adx smap 3dnowprefetch"
_SKYLAKE = f"{_BROADWELL} clflushopt xsavec xgetbv1 xsaves pdpe1gb"
_SKYLAKE_SERVER = f"{_SKYLAKE} clwb pku avx512f avx512dq avx512cd avx512bw avx512vl"
_ICE_LAKE_SERVER = (
    f"{_SKYLAKE_SERVER} sha-ni umip la57 rdpid gfni vaes vpclmulqdq fsrm arch-capabilities rdctl-no ibrs-all "
    "skip-l1dfl-vmentry mds-no pschange-mc-no taa-no fb-clear"
)

_OPTERON_G1 = f"{_V1} pni mmxext"
_ZEN = (
    f"{_QEMU64} pclmulqdq monitor fma ssse3 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand fsgsbase bmi1 avx2 "
    "smep bmi2 rdseed adx smap clflushopt sha-ni xsaveopt xsavec xgetbv1 xsaves cr8legacy abm sse4a misalignsse "
    "3dnowprefetch osvw topoext perfctr_core mmxext fxsr_opt pdpe1gb rdtscp clzero ibpb"
)
_ZEN2 = f"{_ZEN} x2apic umip clwb rdpid xsaveerptr rdpru wbnoinvd ibrs amd-stibp stibp-always-on amd-ssbd"
_ZEN3 = (
    f"{_ZEN2} pcid invpcid erms fsrm pku vaes vpclmulqdq amd-psfd ibrs-same-mode ibpb-ret btc-no sbpb ibpb-brtype "
    "verw-clear lfence-always-serializing null-sel-clr-base"
)

# -- caches: KiB and ways of level 1 data, level 1 instruction, level 2, level 3

_CORE2_CACHES = caches((32, 8), (32, 8), (6144, 24))
_NEHALEM_CACHES = caches((32, 8), (32, 4), (256, 8), (8192, 16))
_SANDY_BRIDGE_CACHES = caches((32, 8), (32, 8), (256, 8), (8192, 16))
_SKYLAKE_CACHES = caches((32, 8), (32, 8), (256, 4), (8192, 16))
_SKYLAKE_SERVER_CACHES = caches((32, 8), (32, 8), (1024, 16), (16384, 16))
_ICE_LAKE_SERVER_CACHES = caches((48, 12), (32, 8), (1280, 20), (24576, 12))
_K8_CACHES = caches((64, 2), (64, 2), (1024, 16))
_ZEN_CACHES = caches((32, 8), (64, 4), (512, 8), (8192, 16))
_ZEN2_CACHES = caches((32, 8), (32, 8), (512, 8), (16384, 16))
_ZEN3_CACHES = caches((32, 8), (32, 8), (512, 8), (32768, 16))

# -- the table


def _of_host(summary: str, features: str | None, signature: tuple[int, int, int] = (0, 0, 0)) -> ModelRow:
    return ModelRow(summary, None, signature, features, (), 0, 0)


def _intel(
    summary: str, model: int, stepping: int, features: str, caches: Caches, leaves: int, family: int = 6
) -> ModelRow:
    return ModelRow(summary, INTEL, (family, model, stepping), features, caches, leaves, 0x8000_0008)


def _amd(
    summary: str, family: int, model: int, stepping: int, features: str, caches: Caches, leaves: int, extended: int
) -> ModelRow:
    return ModelRow(summary, AMD, (family, model, stepping), features, caches, leaves, extended)


CPU_MODELS: Mapping[str, ModelRow] = {
    "default": _of_host("all that the software CPU implements, of the host's vendor", None),
    "max": _of_host("the same as default", None),
    "host": _of_host("the same as default", None),
    "x86-64-v1": _of_host("the x86-64 psABI's baseline: SSE2", f"{_V1} {_SAFE}"),
    "x86-64-v2": _of_host("its level 2: SSE4.2", f"{_V2} {_SAFE}"),
    "x86-64-v3": _of_host("its level 3: AVX2", f"{_V3} {_SAFE}"),
    "qemu64": _of_host("what QEMU has by default", _QEMU64, (15, 107, 1)),
    "Penryn": _intel("Intel Core 2, 2007", 23, 3, _PENRYN, _CORE2_CACHES, 0xA),
    "Nehalem": _intel("Intel Core i7, 2008", 26, 3, _NEHALEM, _NEHALEM_CACHES, 0xB),
    "Westmere": _intel("Intel Core, 2010", 44, 1, _WESTMERE, _NEHALEM_CACHES, 0xB),
    "SandyBridge": _intel("Intel Core, 2011", 42, 1, _SANDY_BRIDGE, _SANDY_BRIDGE_CACHES, 0xD),
    "IvyBridge": _intel("Intel Core, 2012", 58, 9, _IVY_BRIDGE, _SANDY_BRIDGE_CACHES, 0xD),
    "Haswell": _intel("Intel Core, 2013", 60, 4, _HASWELL, _SANDY_BRIDGE_CACHES, 0xD),
    "Broadwell": _intel("Intel Core, 2014", 61, 2, _BROADWELL, _SANDY_BRIDGE_CACHES, 0x14),
    "Skylake-Client": _intel("Intel Core, 2015", 94, 3, _SKYLAKE, _SKYLAKE_CACHES, 0x16),
    "Skylake-Server": _intel("Intel Xeon, 2017", 85, 4, _SKYLAKE_SERVER, _SKYLAKE_SERVER_CACHES, 0x16),
    "Icelake-Server": _intel("Intel Xeon, 2021", 106, 6, _ICE_LAKE_SERVER, _ICE_LAKE_SERVER_CACHES, 0x1B),
    "Opteron_G1": _amd("AMD Opteron, 2003", 15, 5, 1, _OPTERON_G1, _K8_CACHES, 1, 0x8000_0008),
    "EPYC": _amd("AMD Zen, 2017", 23, 1, 2, _ZEN, _ZEN_CACHES, 0xD, 0x8000_001F),
    "EPYC-Rome": _amd("AMD Zen 2, 2019", 23, 49, 0, _ZEN2, _ZEN2_CACHES, 0x10, 0x8000_0020),
    "EPYC-Milan": _amd("AMD Zen 3, 2021", 25, 1, 1, _ZEN3, _ZEN3_CACHES, 0x10, 0x8000_0021),
}
"""CPU models by QEMU's names."""

ALIASES: Mapping[str, str] = {
    "x86-64": "x86-64-v1",
    "core2": "Penryn",
    "skylake": "Skylake-Client",
    "skylake-avx512": "Skylake-Server",
    "opteron": "Opteron_G1",
    "zen": "EPYC",
    "zen1": "EPYC",
    "znver1": "EPYC",
    "zen2": "EPYC-Rome",
    "znver2": "EPYC-Rome",
    "zen3": "EPYC-Milan",
    "znver3": "EPYC-Milan",
}
"""Their other names, GCC's among them. Upper and lower case are the same in all."""

_VARIANT = re.compile(r"(-notsx)?(-ibrs|-ibpb)?(-v[0-9]+)?$")
_BY_LOWER_NAME = {**{name.lower(): name for name in CPU_MODELS}, **ALIASES}


def find_model(text: str) -> tuple[str, ModelRow]:
    """Return a model's own name and its row. Raises UnknownFeatureError, which lists them.

    QEMU's variants of a model with other microcode, without TSX, or of another version, are the model itself.
    """
    lower = text.lower()
    name = _BY_LOWER_NAME.get(lower) or _BY_LOWER_NAME.get(_VARIANT.sub("", lower))
    if name is None:
        raise UnknownFeatureError(f"unknown cpu model {text!r}; known: {', '.join(CPU_MODELS)}", text)
    return name, CPU_MODELS[name]
