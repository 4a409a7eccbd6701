"""CPU features: where each has its bit, what it needs, and which of them the software CPU implements.

Sources: Intel SDM vol. 2 CPUID, AMD APM vol. 3 appendix E. Names are QEMU's, which are mostly Linux's too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

__all__ = [
    "ALIASES",
    "AMD_ONLY",
    "ARCH_CAPABILITIES",
    "EAX",
    "EBX",
    "ECX",
    "EDX",
    "FEATURES",
    "HIDDEN_BY_HYPERVISORS",
    "IMPLEMENTED",
    "INTEL_ONLY",
    "ON_REQUEST",
    "Feature",
    "needed_by",
    "needs",
]

EAX, EBX, ECX, EDX = range(4)
ARCH_CAPABILITIES = 0x10A
"""The MSR that enumerates as CPUID does; features that have their bits there have it for a leaf, read by RDMSR."""


class Feature(NamedTuple):
    """One feature bit: register 0 to 3 is EAX, EBX, ECX, EDX."""

    name: str
    leaf: int
    register: int
    bit: int
    subleaf: int = 0


def _row(leaf: int, register: int, names: str, subleaf: int = 0) -> Iterator[Feature]:
    """Features of one register. A name has the bit behind the one before it; a number says the next name's bit."""
    bit = 0
    for word in names.split():
        if word.isdecimal():
            bit = int(word)
        else:
            yield Feature(word, leaf, register, bit, subleaf)
            bit += 1


FEATURES: Mapping[str, Feature] = {
    feature.name: feature
    for row in (
        _row(
            1,
            EDX,
            "fpu vme de pse tsc msr pae mce cx8 apic 11 sep mtrr pge mca cmov pat pse36 pn clflush 21 ds acpi mmx fxsr"
            " sse sse2 ss ht tm ia64 pbe",
        ),
        _row(
            1,
            ECX,
            "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid 12 fma cx16 xtpr pdcm 17 pcid dca sse4.1"
            " sse4.2 x2apic movbe popcnt tsc-deadline aes xsave 28 avx f16c rdrand",
        ),
        _row(6, EAX, "2 arat"),
        _row(
            7,
            EBX,
            "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm 13 zero-fcs-fds mpx"
            " 16 avx512f avx512dq rdseed adx smap avx512ifma 23 clflushopt clwb intel-pt avx512pf avx512er avx512cd"
            " sha-ni avx512bw avx512vl",
        ),
        _row(
            7,
            ECX,
            "prefetchwt1 avx512vbmi umip pku 5 waitpkg avx512vbmi2 cet-ss gfni vaes vpclmulqdq avx512vnni"
            " avx512bitalg 14 avx512-vpopcntdq 16 la57 22 rdpid 25 cldemote 27 movdiri movdir64b 31 pks",
        ),
        _row(
            7,
            EDX,
            "4 fsrm 10 md-clear 14 serialize 20 cet-ibt 26 spec-ctrl stibp flush-l1d arch-capabilities 31 ssbd",
        ),
        _row(7, EDX, "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no", subleaf=2),
        _row(7, EAX, "sha512 sm3 sm4 4 avx-vnni avx512-bf16 10 fzrm fsrs fsrc 26 lam", subleaf=1),
        # Version 2 of the architectural counters; the rest of the leaf follows from it.
        _row(0xA, EAX, "1 pmu"),
        _row(0xD, EAX, "xsaveopt xsavec xgetbv1 xsaves", subleaf=1),
        _row(
            0x8000_0001,
            ECX,
            "lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt"
            " 15 lwp fma4 21 tbm topoext perfctr_core",
        ),
        _row(0x8000_0001, EDX, "11 syscall 20 nx 22 mmxext 25 fxsr_opt pdpe1gb rdtscp 29 lm 3dnowext 3dnow"),
        _row(0x8000_0007, EDX, "8 invtsc"),
        _row(
            0x8000_0008,
            EBX,
            "clzero 2 xsaveerptr 4 rdpru 9 wbnoinvd 12 ibpb 14 ibrs amd-stibp 17 stibp-always-on 19 ibrs-same-mode"
            " 24 amd-ssbd virt-ssbd amd-no-ssb 28 amd-psfd btc-no ibpb-ret",
        ),
        _row(
            0x8000_0021,
            EAX,
            "no-nested-data-bp 2 lfence-always-serializing 5 verw-clear null-sel-clr-base 8 auto-ibrs 27 sbpb"
            " ibpb-brtype srso-no srso-user-kernel-no",
        ),
        _row(0x8000_0021, ECX, "1 tsa-sq-no tsa-l1-no"),
        _row(
            ARCH_CAPABILITIES,
            EAX,
            "rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no 13 sbdr-ssdp-no"
            " fbsdp-no psdp-no 17 fb-clear 19 rrsba bhi-no 24 pbrsb-no 26 gds-no rfds-no rfds-clear",
        ),
        _row(ARCH_CAPABILITIES, EDX, "30 its-no"),
    )
    for feature in row
}
"""Every feature that has a name here, whether or not an engine implements it."""

IMPLEMENTED: frozenset[str] = frozenset(
    (
        *(
            "fpu",
            "vme",
            "de",
            "pse",
            "tsc",
            "msr",
            "pae",
            "mce",
            "cx8",
            "apic",
            "sep",
            "mtrr",
            "pge",
            "mca",
            "cmov",
            "pat",
        ),
        *("pse36", "clflush", "monitor", "cx16", "pcid", "x2apic", "movbe", "popcnt", "tsc-deadline", "rdrand"),
        *("fsgsbase", "tsc_adjust", "bmi1", "smep", "bmi2", "erms", "invpcid", "rdseed", "adx", "smap"),
        *("clflushopt", "clwb", "umip", "pku", "la57", "rdpid", "arat", "lahf_lm", "cr8legacy", "abm"),
        *("mmx", "mmxext", "sse", "sse2", "pni", "ssse3", "sse4.1", "sse4.2", "aes", "pclmulqdq", "sha-ni", "gfni"),
        *("avx", "f16c", "fma", "avx2", "vaes", "vpclmulqdq"),
        *("fxsr", "fxsr_opt", "xsave", "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xsaveerptr"),
        *("3dnowprefetch", "topoext", "syscall", "nx", "pdpe1gb", "rdtscp", "lm", "invtsc", "lam", "pks"),
        *("sse4a", "misalignsse", "pmu", "perfctr_core", "lfence-always-serializing"),
        # Controls of speculation: all are there, and there is nothing that they could change.
        *("spec-ctrl", "stibp", "ssbd", "flush-l1d", "md-clear", "arch-capabilities", "rdctl-no", "ibrs-all"),
        *("skip-l1dfl-vmentry", "ssb-no", "mds-no", "pschange-mc-no", "taa-no", "sbdr-ssdp-no", "fbsdp-no", "psdp-no"),
        *("fb-clear", "bhi-no", "pbrsb-no", "gds-no", "rfds-no", "rfds-clear", "its-no"),
        *("ibpb", "ibrs", "amd-stibp", "stibp-always-on", "ibrs-same-mode", "amd-ssbd", "virt-ssbd", "amd-no-ssb"),
        *("amd-psfd", "btc-no", "ibpb-ret", "verw-clear", "auto-ibrs", "sbpb", "ibpb-brtype", "srso-no"),
        *("srso-user-kernel-no", "tsa-sq-no", "tsa-l1-no", "intel-psfd", "ipred-ctrl", "rrsba-ctrl", "ddpd-u"),
        *("bhi-ctrl", "mcdt-no", "null-sel-clr-base"),
    )
)
"""What the software CPU does, and nothing else is ever announced. Extend it when the CPU learns more."""

ALIASES: Mapping[str, str] = {
    "lzcnt": "abm",
    "sse3": "pni",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "sha": "sha-ni",
    "sha_ni": "sha-ni",
    "aes-ni": "aes",
    "tsc-adjust": "tsc_adjust",
    "tscdeadline": "tsc-deadline",
    "lahf-lm": "lahf_lm",
    "cmp-legacy": "cmp_legacy",
    "fxsr-opt": "fxsr_opt",
    "perfctr-core": "perfctr_core",
}
"""Other names that are in use."""

AMD_ONLY = frozenset(
    (
        *("cr8legacy", "svm", "cmp_legacy", "sse4a", "misalignsse", "skinit", "osvw", "mmxext", "fxsr_opt", "topoext"),
        *("perfctr_core", "clzero", "xsaveerptr", "rdpru", "wbnoinvd", "no-nested-data-bp"),
        *("lfence-always-serializing", "null-sel-clr-base", "ibpb", "ibrs", "amd-stibp", "amd-ssbd", "virt-ssbd"),
        *("amd-no-ssb", "stibp-always-on", "ibrs-same-mode", "amd-psfd", "btc-no", "ibpb-ret", "verw-clear"),
        *("auto-ibrs", "sbpb", "ibpb-brtype", "srso-no", "srso-user-kernel-no", "tsa-sq-no", "tsa-l1-no"),
    )
)
INTEL_ONLY = frozenset(
    (
        *("tsc-deadline", "lam", "pks", "pmu", "fdp-excptn-only", "zero-fcs-fds", "spec-ctrl", "stibp", "ssbd"),
        *("flush-l1d", "md-clear", "arch-capabilities"),
        *("intel-psfd", "ipred-ctrl", "rrsba-ctrl", "ddpd-u", "bhi-ctrl", "mcdt-no"),
        *(name for name, feature in FEATURES.items() if feature.leaf == ARCH_CAPABILITIES),
    )
)
"""Announced by default to CPUs of this vendor only; asked for by name, any CPU has them."""

ON_REQUEST = frozenset(("pmu", "perfctr_core", "virt-ssbd"))
"""Announced only if asked for by name: performance counters that count instructions and cycles, but not all that guests
look for once they find them, and a register that hypervisors offer where the silicon has none (`amd-ssbd`)."""

HIDDEN_BY_HYPERVISORS = frozenset(("invtsc",))
"""Announced only if asked for by name, where the guest has a hypervisor."""

_NEEDS: Mapping[str, str] = {
    "sse": "fxsr",
    "sse2": "sse",
    "pni": "sse2",
    "ssse3": "pni",
    "sse4.1": "ssse3",
    "sse4.2": "sse4.1",
    "sse4a": "pni",
    "misalignsse": "sse",
    "mmxext": "mmx",
    "fxsr_opt": "fxsr",
    "pclmulqdq": "sse2",
    "aes": "sse2",
    "sha-ni": "sse2",
    "gfni": "sse2",
    "xsave": "fxsr",
    "xsaveopt": "xsave",
    "xsavec": "xsave",
    "xgetbv1": "xsave",
    "xsaves": "xsavec",
    "xsaveerptr": "xsave",
    **dict.fromkeys(("spec-ctrl", "stibp", "ssbd", "flush-l1d", "arch-capabilities"), "msr"),
    **dict.fromkeys(("ibpb", "ibrs", "amd-stibp", "amd-ssbd", "amd-psfd", "virt-ssbd", "sbpb"), "msr"),
    **{name: "arch-capabilities" for name, feature in FEATURES.items() if feature.leaf == ARCH_CAPABILITIES},
    "ibrs-all": "arch-capabilities spec-ctrl",
    **dict.fromkeys(("intel-psfd", "ipred-ctrl", "rrsba-ctrl", "ddpd-u", "bhi-ctrl"), "spec-ctrl"),
    "auto-ibrs": "ibrs",
    "stibp-always-on": "amd-stibp",
    "ibrs-same-mode": "ibrs",
    "ibpb-ret": "ibpb",
    "ibpb-brtype": "ibpb",
    "avx": "xsave sse4.2",
    "f16c": "avx",
    "fma": "avx",
    "avx2": "avx",
    "vaes": "avx aes",
    "vpclmulqdq": "avx pclmulqdq",
    "avx512f": "avx2 fma f16c",
    "avx512dq": "avx512f",
    "avx512cd": "avx512f",
    "avx512bw": "avx512f",
    "avx512vl": "avx512f",
    "lm": "pae",
    "nx": "pae",
    "lahf_lm": "lm",
    "pdpe1gb": "lm",
    "la57": "lm",
    "pcid": "lm",
    "fsgsbase": "lm",
    "lam": "lm",
    "pku": "lm",
    "pks": "lm",
    "tsc-deadline": "apic tsc",
    "x2apic": "apic msr",
    "arat": "apic",
    "tsc_adjust": "tsc msr",
    "rdtscp": "tsc msr",
    "invtsc": "tsc",
    "pmu": "msr",
    "perfctr_core": "msr",
    "mca": "mce msr",
    "mtrr": "msr",
    "pat": "msr",
    "sep": "msr",
}
"""What makes no sense, or does not work, without what else: SDM vol. 1 sections 11.6.2, 13.1 to 13.3 and 14.3, APM
vol. 3 appendix D; for features of long mode, the mode."""


def needs(names: Iterable[str]) -> frozenset[str]:
    """These features, and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_NEEDS.get(name, "").split())
    return frozenset(found)


def needed_by(name: str) -> frozenset[str]:
    """The features that cannot be without this one, and itself."""
    return frozenset(feature for feature in FEATURES if name in needs((feature,)))
