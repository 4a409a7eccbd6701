"""kvm-unit-tests, if a build of them is at hand, on both kinds of host.

PARAVIRT_KVM_UNIT_TESTS names the directory of a build for x86_64, PARAVIRT_KVM_UNIT_TESTS_I386 of one for i386: the one
that holds x86/*.flat and x86/unittests.cfg. docs/kvm-unit-tests.md says how to make them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from .unittests_cfg import UnitTest, read_unittests

BUILDS = {"x86_64": "PARAVIRT_KVM_UNIT_TESTS", "i386": "PARAVIRT_KVM_UNIT_TESTS_I386"}

EXPECTED = {
    "access",
    "cmpxchg8b",
    "debug",
    "emulator",
    "eventinj",
    "hypercall",
    "hyperv_clock",
    "hyperv_connections",
    "hyperv_stimer",
    "hyperv_stimer_direct",
    "hyperv_synic",
    "idt_test",
    "ioapic",
    "kvmclock_test",
    "la57",
    "lam",
    "memory",
    "msr",
    "msr64",
    "pcid-asymmetric",
    "pcid-disabled",
    "pcid-enabled",
    "pks",
    "pku",
    "pmu",
    "rdpru",
    "realmode",
    "rmap_chain",
    "s3",
    "setjmp",
    "sieve",
    "smap",
    "smptest",
    "smptest3",
    "syscall",
    "taskswitch",
    "taskswitch2",
    "tsc",
    "tsc_adjust",
    "tscdeadline_latency",
    "umip",
    "vmexit_cpuid",
    "vmexit_cr0_wp",
    "vmexit_cr4_pge",
    "vmexit_inl_pmtimer",
    "vmexit_ipi",
    "vmexit_ipi_halt",
    "vmexit_mov_from_cr8",
    "vmexit_mov_to_cr8",
    "vmexit_ple_round_robin",
    "vmexit_tscdeadline",
    "vmexit_tscdeadline_immed",
    "vmexit_vmcall",
    "vmware_backdoors",
    "x2apic",
    "xapic",
    "xsave",
}
"""What must pass."""

SKIPPING = {
    "asyncpf": "asynchronous page faults are not offered: no page of a guest is ever away",
    "cet": "CET is not announced",
    "pmu_lbr": "there is no record of branches",
    "pmu_pebs": "there is no event-based sampling",
    "tsx-ctrl": "TSX is not announced",
}
"""What must skip itself, and why. The rest of the suite wants nested virtualization or an IOMMU."""

INTERFACES = {"vmware_backdoors": ("kvm", "vmware-backdoor")}
"""Those that a test wants; KVM alone unless it is here."""

INTEL_ONLY = {
    "pks": "AMD's CPUs have no protection keys for supervisor pages",
    "pmu": "AMD's CPUs do not say which events they count, so the test wants all of them",
}
"""What is not run on an AMD host, and why."""

ONLY_I386 = {"cmpxchg8b", "taskswitch", "taskswitch2"}
STATUS_PASS, STATUS_SKIP = 1, 77
TIMEOUT_S = 900


@dataclass(frozen=True)
class Case:
    """A test of one build on one host."""

    arch: str
    test: UnitTest
    host: str

    def __str__(self) -> str:
        return f"{self.arch}-{self.test.name}-{self.host}"


def _tests(arch: str) -> list[UnitTest]:
    directory = os.environ.get(BUILDS[arch])
    if not directory:
        return []
    tests = list(read_unittests(Path(directory) / "x86" / "unittests.cfg"))
    if "tscdeadline_latency" not in {test.name for test in tests}:
        # It is built, but its section was dropped as it measures more than it tests.
        cpu = "-cpu qemu64,+x2apic,+tsc-deadline"
        tests.append(UnitTest("tscdeadline_latency", "tscdeadline_latency.flat", qemu_params=cpu, arch="x86_64"))
    return [test for test in tests if test.name in EXPECTED | SKIPPING.keys() and test.arch in ("", arch)]


def _interface_options(test: UnitTest) -> list[str]:
    """Hyper-V's enlightenments are flags of QEMU's CPU, by the names that they have here too."""
    flags = (test.qemu_option("-cpu") or "").replace("-", "_").split(",")
    chosen = [flag.removeprefix("hv_").replace("_", "-") for flag in flags if flag.startswith("hv_")]
    if not chosen:
        return []
    options = [] if "passthrough" in chosen else [f"features={'+'.join(chosen)}"]
    if test.qemu_option("-device") == "hyperv-testdev":
        options.append("testdev")
    return ["--interface", ":".join(filter(None, ("hyperv", ",".join(options))))]


def _cases() -> list[Case]:
    cases = [Case(arch, test, host) for arch in BUILDS for test in _tests(arch) for host in ("intel", "amd")]
    return [case for case in cases if case.host == "intel" or case.test.name not in INTEL_ONLY]


@pytest.mark.skipif(not any(map(os.environ.get, BUILDS.values())), reason=f"{BUILDS['x86_64']} is not set")
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("case", _cases() or [None], ids=str)
def test_kvm_unit_test(case: Case) -> None:
    """The test ends with status 1, success. Skipped counts as failed, unless it must skip itself."""
    image = Path(os.environ[BUILDS[case.arch]]) / "x86" / case.test.file
    if not image.exists():
        pytest.skip(f"{case.test.file} was not built for {case.arch}")
    command = [sys.executable, "-m", "paravirt", "run", str(image), "--host", case.host, "--cpus", str(case.test.smp)]
    command += ["--timeout", str(TIMEOUT_S), "--start-time", str(int(time.time()))]
    for interface in INTERFACES.get(case.test.name, ("kvm",)):
        command += ["--interface", interface]
    for option, ours in (("-cpu", "--cpu"), ("-m", "--memory")):
        if value := case.test.qemu_option(option):
            # What follows QEMU's `host` is about QEMU.
            command += [ours, "host" if value.startswith("host,") else value]
    command += _interface_options(case.test)
    done = subprocess.run(
        [*command, "--", *case.test.arguments()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    wanted = STATUS_SKIP if case.test.name in SKIPPING else STATUS_PASS
    assert done.returncode == wanted, f"{' '.join(command)}\n{done.stdout.decode(errors='replace')[-8000:]}"


@pytest.mark.skipif(not os.environ.get(BUILDS["x86_64"]), reason=f"{BUILDS['x86_64']} is not set")
def test_all_are_there() -> None:
    """What must pass is in unittests.cfg: a name that was changed there would else be no longer run."""
    found = {test.name for arch in BUILDS for test in _tests(arch)}
    missing = EXPECTED - found - (set() if os.environ.get(BUILDS["i386"]) else ONLY_I386)
    assert not missing
