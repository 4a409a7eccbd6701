"""The guest CPU's leaves, CPU models, and the hypervisors' name space."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import paravirt as pv
from paravirt.cpuid import CPU_MODELS, FEATURES, IMPLEMENTED, build_cpuid, find_model, parse_cpu, place_interfaces
from paravirt.cpuid.features import ARCH_CAPABILITIES, EDX, needs
from paravirt.host import AMD, INTEL, Host

Leaves = dict[tuple[int, int | None], tuple[int, int, int, int]]


def leaves_of(cpu: str = "default", host: Host = INTEL, cpus: int = 1, tsc_khz: int = 1_000_000) -> Leaves:
    rows = build_cpuid(parse_cpu(cpu, host), cpus=cpus, tsc_khz=tsc_khz)
    return {(leaf, subleaf): (eax, ebx, ecx, edx) for leaf, subleaf, eax, ebx, ecx, edx in rows}


def vendor_of(leaf: tuple[int, int, int, int]) -> str:
    _, ebx, ecx, edx = leaf
    return b"".join(word.to_bytes(4, "little") for word in (ebx, edx, ecx)).decode()


@pytest.mark.parametrize(("host", "vendor"), [(INTEL, "GenuineIntel"), (AMD, "AuthenticAMD")])
def test_vendor_is_the_hosts(host: Host, vendor: str) -> None:
    """Unless told otherwise the guest gets the silicon's vendor; AMD repeats it in 0x80000000."""
    leaves = leaves_of(host=host)
    assert vendor_of(leaves[0, None]) == vendor
    assert vendor_of(leaves[0x8000_0000, None]) == (vendor if host is AMD else "\0" * 12)


def test_other_vendor() -> None:
    """A guest CPU of the other vendor than its host, as after a migration."""
    assert vendor_of(leaves_of("default,vendor=AuthenticAMD")[0, None]) == "AuthenticAMD"


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_each_feature_has_its_bit(name: str) -> None:
    """What is switched off is not announced; what is implemented can be switched on alone."""
    feature = FEATURES[name]

    def is_announced(cpu: str) -> bool:
        if feature.leaf == ARCH_CAPABILITIES:
            bits = parse_cpu(cpu, AMD).arch_capabilities
            return bool(bits >> (feature.bit + (32 if feature.register == EDX else 0)) & 1)
        leaves = leaves_of(cpu, AMD)
        registers = leaves.get((feature.leaf, None)) or leaves.get((feature.leaf, feature.subleaf), (0, 0, 0, 0))
        return bool(registers[feature.register] >> feature.bit & 1)

    if name in IMPLEMENTED:
        assert is_announced(f"qemu64,+{name}")
    assert not is_announced(f"max,-{name}")


@pytest.mark.parametrize(
    ("name", "leaf", "register", "bit"),
    [
        ("fpu", 1, 3, 0),
        ("clflush", 1, 3, 19),
        ("pcid", 1, 2, 17),
        ("x2apic", 1, 2, 21),
        ("tsc-deadline", 1, 2, 24),
        ("rdrand", 1, 2, 30),
        ("fsgsbase", 7, 1, 0),
        ("invpcid", 7, 1, 10),
        ("rdseed", 7, 1, 18),
        ("smap", 7, 1, 20),
        ("clwb", 7, 1, 24),
        ("umip", 7, 2, 2),
        ("pku", 7, 2, 3),
        ("la57", 7, 2, 16),
        ("sse2", 1, 3, 26),
        ("abm", 0x8000_0001, 2, 5),
        ("skinit", 0x8000_0001, 2, 12),
        ("ssbd", 7, 3, 31),
        ("amd-psfd", 0x8000_0008, 1, 28),
        ("ibpb-brtype", 0x8000_0021, 0, 28),
        ("rdctl-no", 0x10A, 0, 0),
        ("rfds-clear", 0x10A, 0, 28),
        ("its-no", 0x10A, 3, 30),
    ],
)
def test_bits_of_the_manuals(name: str, leaf: int, register: int, bit: int) -> None:
    """The rows of the table are counted; these places are from the manuals."""
    assert FEATURES[name] == (name, leaf, register, bit, 0)


def test_nothing_is_speculated_on() -> None:
    """The default CPU, and levels of instructions, say so in their vendor's words; models say what silicon says."""
    for name in ("default", "x86-64-v1", "x86-64-v3"):
        intel, amd = parse_cpu(name, INTEL), parse_cpu(name, AMD)
        assert {"rdctl-no", "mds-no", "gds-no", "its-no", "ibrs-all", "bhi-ctrl"} <= intel.features
        assert {"btc-no", "srso-no", "auto-ibrs", "amd-no-ssb", "lfence-always-serializing"} <= amd.features
        assert intel.arch_capabilities & 1
        assert not amd.arch_capabilities
        assert not {"btc-no", "ibpb"} & intel.features
        assert not {"spec-ctrl", "arch-capabilities"} & amd.features
    for name, has, lacks in (
        ("Penryn", "", "spec-ctrl"),
        ("Nehalem", "spec-ctrl", "md-clear"),
        ("Skylake-Server", "md-clear", "arch-capabilities"),
        ("Icelake-Server", "mds-no", "gds-no"),
        ("EPYC", "ibpb", "ibrs"),
        ("EPYC-Milan", "btc-no", "srso-no"),
    ):
        features = parse_cpu(name, INTEL).features
        assert set(has.split()) <= features
        assert lacks not in features
    assert not parse_cpu("default,-arch-capabilities", INTEL).arch_capabilities


@pytest.mark.parametrize("text", ["Haswell-noTSX-IBRS", "EPYC-IBPB", "Skylake-Server-v5", "EPYC-Rome-v2", "X86-64-V2"])
def test_variants_that_qemu_has(text: str) -> None:
    """They name the model; microcode is part of it."""
    assert text.lower().startswith(find_model(text)[0].lower())


def test_amd_mirrors_basic_features() -> None:
    """0x80000001 EDX repeats what AMD says it repeats, and has no SEP or CLFLUSH there."""
    edx = leaves_of(host=AMD)[0x8000_0001, None][3]
    assert edx & 1
    assert edx >> 11 & 1, "SYSCALL's own bit"
    assert not edx >> 19 & 1
    assert not leaves_of(host=INTEL)[0x8000_0001, None][3] & 1


def test_address_widths() -> None:
    """Physical as asked for, linear by LA57."""
    assert leaves_of("default,phys-bits=36")[0x8000_0008, None][0] == 57 << 8 | 36
    assert leaves_of("default,-la57")[0x8000_0008, None][0] & 0xFF00 == 48 << 8


@pytest.mark.parametrize("tsc_khz", [1_000_000, 2_400_001, 1_500_000])
def test_frequencies(tsc_khz: int) -> None:
    """Leaf 0x15 gives the TSC exactly, and a crystal that is the timer's clock."""
    denominator, numerator, crystal_hz, _ = leaves_of(tsc_khz=tsc_khz)[0x15, None]
    assert crystal_hz * numerator == denominator * tsc_khz * 1000
    assert crystal_hz == 10**9


@pytest.mark.parametrize(("cpus", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (255, 8)])
def test_topology(cpus: int, bits: int) -> None:
    """Every vCPU is a core of one package."""
    leaves = leaves_of(cpus=cpus)
    assert leaves[0xB, 0] == (0, 1, 0x100, 0)
    assert leaves[0xB, 1] == (bits, cpus, 0x201, 0)
    assert bool(leaves[1, None][3] >> 28 & 1) == (cpus > 1)


@pytest.mark.parametrize(
    ("cpu", "message"),
    [
        (
            "i9",
            "unknown cpu model 'i9'; known: default, max, host, x86-64-v1, x86-64-v2, x86-64-v3, qemu64, Penryn, "
            "Nehalem, Westmere, SandyBridge, IvyBridge, Haswell, Broadwell, Skylake-Client, Skylake-Server, "
            "Icelake-Server, Opteron_G1, EPYC, EPYC-Rome, EPYC-Milan",
        ),
        ("default,+sse9", "unknown cpu feature 'sse9'; `paravirt cpu` lists them"),
        (
            "default,+vmx",
            f"the software CPU does not implement 'vmx'; it implements {', '.join(sorted(IMPLEMENTED))}",
        ),
        ("default,+la57,-lm", "cpu feature 'la57' needs 'lm': '+la57' and '-lm' exclude each other"),
        (f"default,model-id={'x' * 48}", f"cpu model-id '{'x' * 48}' is longer than 47 bytes"),
        ("default,phys-bits=99", "cpu phys-bits='99' is not a number from 32 to 52"),
        ("default,vendor=Acme", "cpu vendor 'Acme' is not 12 characters long"),
        ("default,colour=blue", "unknown cpu option 'colour=blue'; write '+colour' or '-colour'"),
    ],
)
def test_bad_cpus(cpu: str, message: str) -> None:
    """Each is refused in one line."""
    with pytest.raises(pv.ConfigurationError, match=f"^{re.escape(message)}$"):
        parse_cpu(cpu, INTEL)


def test_switching_off_what_is_not_there() -> None:
    """Command lines made for QEMU switch off features that we do not have: that is no error."""
    assert parse_cpu("max,-svm,-avx512f", INTEL).features == parse_cpu("max", INTEL).features


def test_switching_follows_what_features_need() -> None:
    """A feature brings what it needs, and takes away what needs it; nothing that is implemented lacks something."""
    assert needs(IMPLEMENTED) <= IMPLEMENTED
    bare = parse_cpu("qemu64,-pae", INTEL).features
    assert not bare & {"pae", "lm", "nx", "lahf_lm"}
    assert {"la57", "lm", "pae"} <= parse_cpu("qemu64,-pae,pae=on,+la57", INTEL).features


@pytest.mark.parametrize("name", CPU_MODELS)
def test_models(name: str) -> None:
    """Each has what its features need, its leaves hold all features, and its brand says which it is."""
    row = CPU_MODELS[name]
    silicon = frozenset((row.features or "").split())
    assert needs(silicon) <= silicon
    assert silicon <= set(FEATURES)
    for host in (INTEL, AMD):
        model = parse_cpu(name, host)
        leaves = leaves_of(name, host)
        assert model.vendor == (row.vendor or host.vendor)
        for range_start in (0, 0x8000_0000):
            last = leaves[range_start, None][0]
            assert last == max(leaf for leaf, _ in leaves if leaf & 0x8000_0000 == range_start)
        assert model.brand == ("paravirt virtual CPU" if row.vendor is None else f"{name} (paravirt virtual CPU)")
        assert leaves_of(name, host)[1, None][0] == model.signature


@pytest.mark.parametrize(
    ("text", "name", "signature"),
    [
        ("haswell", "Haswell", 0x306C4),
        ("skylake", "Skylake-Client", 0x506E3),
        ("zen2", "EPYC-Rome", 0x830F10),
        ("znver3", "EPYC-Milan", 0xA00F11),
        ("NEHALEM", "Nehalem", 0x106A3),
        ("x86-64", "x86-64-v1", 0x50654),
    ],
)
def test_names_of_models(text: str, name: str, signature: int) -> None:
    """GCC's names mean QEMU's models, whatever the case. Leaf 1 EAX is that of the silicon."""
    model = parse_cpu(text, INTEL)
    assert (model.name, model.signature) == (name, signature)


def test_caches() -> None:
    """The same caches in leaf 4 of Intel, and in all of AMD's leaves: sizes by ways, sets and lines."""

    def sizes(leaves: Leaves, leaf: int) -> list[int]:
        rows = [leaves[leaf, subleaf] for subleaf in range(4)]
        return [((ebx >> 22) + 1) * 64 * (ecx + 1) >> 10 for _, ebx, ecx, _ in rows]

    assert sizes(leaves_of("skylake-server"), 4) == [32, 32, 1024, 16384]
    zen = leaves_of("zen2", AMD, cpus=4)
    assert sizes(zen, 0x8000_001D) == [32, 32, 512, 16384]
    assert [zen[0x8000_001D, level][0] for level in range(4)] == [0x121, 0x122, 0x143, 0xC163]
    assert zen[0x8000_0005, None][2:] == (0x2008_0140, 0x2008_0140)
    assert zen[0x8000_0006, None][2:] == (0x0200_6140, 32 << 18 | 8 << 12 | 0x140)
    assert (0x8000_001D, 0) not in leaves_of("zen2,-topoext", AMD)


@pytest.mark.parametrize(
    ("host", "features", "expected"),
    [
        (INTEL, "", {0: (3, 576, 576, 0), 1: (0, 0, 0, 0)}),
        (INTEL, "avx pku", {0: (0x207, 576, 2696, 0), 2: (256, 576, 0, 0), 9: (8, 2688, 0, 0)}),
        (AMD, "avx pku", {0: (0x207, 576, 840, 0), 2: (256, 576, 0, 0), 9: (8, 832, 0, 0)}),
        (AMD, "xsaveopt xsavec xgetbv1 xsaves", {1: (15, 0, 0, 0)}),
    ],
)
def test_xsave_areas(host: Host, features: str, expected: dict[int, tuple[int, int, int, int]]) -> None:
    """Leaf 0xD follows the features, and has the offsets of the vendor's CPUs."""
    model = parse_cpu("qemu64,+xsave", host)
    model = replace(model, features=model.features | set(features.split()))
    leaves = {row[:2]: row[2:] for row in build_cpuid(model, cpus=1, tsc_khz=1_000_000)}
    for subleaf, registers in expected.items():
        assert leaves[0xD, subleaf] == registers


def test_no_xsave_no_areas() -> None:
    """Leaf 0xD exists on newer CPUs, and says nothing."""
    leaves = leaves_of("Haswell,-xsave")
    assert leaves[0xD, None] == (0, 0, 0, 0)
    assert not parse_cpu("Haswell,-xsave", INTEL).features & {"avx", "avx2", "fma", "xsaveopt"}


# -- the name space


class A(pv.Interface):
    signature = b"AAAAAAAAAAAA"


class B(pv.Interface):
    signature = b"BBBB"


class Fixed(pv.Interface):
    signature = b"FIXEDFIXEDFI"
    fixed_base = 0x4000_0000


class OtherFixed(pv.Interface):
    signature = b"OTHEROTHEROT"
    fixed_base = 0x4000_0000


class Nameless(pv.Interface):
    """Has no CPUID leaves."""


def test_placement_in_order_without_gaps() -> None:
    """The first named is at the base, the next 0x100 above; each tells its own highest leaf."""
    a, b = A(), B()
    leaves = place_interfaces([a, Nameless(), b])
    assert (a.base, b.base) == (0x4000_0000, 0x4000_0100)
    assert leaves[0x4000_0000] == (0x4000_0000, 0x4141_4141, 0x4141_4141, 0x4141_4141)
    assert leaves[0x4000_0100] == (0x4000_0100, 0x4242_4242, 0, 0)


def test_fixed_places_come_first() -> None:
    """Who needs a place gets it, and the others go round."""
    a, fixed = A(), Fixed()
    place_interfaces([a, fixed])
    assert (a.base, fixed.base) == (0x4000_0100, 0x4000_0000)


def test_two_for_one_place() -> None:
    """An error that names both."""
    message = "interfaces 'fixed' and 'otherfixed' both need CPUID leaf 0x40000000; use one of them"
    with pytest.raises(pv.PlacementError, match=f"^{message}$") as raised:
        place_interfaces([Fixed(), OtherFixed()])
    assert raised.value.interfaces == ("fixed", "otherfixed")


def test_leaf_outside_the_block() -> None:
    """No interface may answer for another."""

    class Wide(pv.Interface):
        signature = b"WIDE"

        def cpuid_leaves(self) -> dict[int, tuple[int, int, int, int]]:
            return {0x100: (0, 0, 0, 0)}

    message = "interface 'wide' answers CPUID leaf 0x40000100, outside its block at 0x40000000"
    with pytest.raises(pv.ConfigurationError, match=f"^{message}$"):
        place_interfaces([Wide()])


def test_hypervisor_bit() -> None:
    """Set as soon as one interface exists, never without."""
    model = parse_cpu("default", INTEL)
    for hypervisor, expected in ((place_interfaces([A()]), 1), ({}, 0)):
        rows = {row[0]: row for row in build_cpuid(model, cpus=1, tsc_khz=1_000_000, hypervisor=hypervisor)}
        assert rows[1][4] >> 31 == expected


def test_invariant_tsc_under_a_hypervisor() -> None:
    """A hypervisor hides it unless it is asked for by name; bare hardware has it."""
    assert "invtsc" in parse_cpu("default", AMD).features
    assert "invtsc" not in parse_cpu("default", AMD, under_hypervisor=True).features
    assert "invtsc" not in parse_cpu("zen2", AMD, under_hypervisor=True).features
    assert "invtsc" in parse_cpu("zen2,+invtsc", AMD, under_hypervisor=True).features
