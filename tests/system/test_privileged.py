"""Privileged situations, generated, on the software CPU and on QEMU's translator.

Each seed draws page tables, descriptors, gates, task states and frames, and a few instructions that use them; both
processors run the same image, whose records must agree but for what `tests/privileged/compare.py` explains.
PARAVIRT_PRIVILEGED_CASES says how many cases of each kind, PARAVIRT_PRIVILEGED_SEED where to start. Without QEMU the
software CPU is compared with what it did when QEMU last agreed.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.privileged.breakpoints import make_breakpoint_case
from tests.privileged.compare import compare, explain, without_pdptes
from tests.privileged.image import Case, Record, build_monitor
from tests.privileged.paging import MAX_PHYSICAL_BITS, make_keys_case, make_paging_case
from tests.privileged.runner import QEMU, qemu, run_cases, software_cpu
from tests.privileged.segments import make_long_case, make_protected_case
from tests.privileged.syscalls import make_syscall_case
from tests.privileged.virtual import make_virtual_case

NUM_CASES = int(os.environ.get("PARAVIRT_PRIVILEGED_CASES", "300"))
SEED = int(os.environ.get("PARAVIRT_PRIVILEGED_SEED", "1"))
CASES_OF_AN_IMAGE = 2000


class Kind(NamedTuple):
    """Cases that are drawn together. tables: page tables are part of what is compared."""

    make: Callable[[random.Random], Case]
    tables: bool = False
    cpu: str = "default"


KINDS = {
    "paging": Kind(make_paging_case, tables=True),
    "keys": Kind(make_keys_case, tables=True, cpu="default,+pks"),
    "protected": Kind(make_protected_case),
    "long": Kind(make_long_case),
    "virtual": Kind(make_virtual_case),
    "syscall": Kind(make_syscall_case),
    "breakpoint": Kind(make_breakpoint_case),
}
VENDORS = {"intel": "GenuineIntel", "amd": "AuthenticAMD"}
SHOWN = 5
AGREED: dict[tuple[str, str], str] = {
    ("paging", "intel"): "f26930b8eb771903",
    ("keys", "intel"): "3683d9171af95c76",
    ("protected", "intel"): "dc23f657ff8308fd",
    ("long", "intel"): "a22feefcd45957d5",
    ("virtual", "intel"): "e2a408c370304eef",
    ("syscall", "intel"): "e536a3e7ab0920cd",
    ("breakpoint", "intel"): "27b54e3163bf87b0",
    ("paging", "amd"): "f26930b8eb771903",
    ("keys", "amd"): "3683d9171af95c76",
    ("protected", "amd"): "dc23f657ff8308fd",
    ("long", "amd"): "e9d7a6d2d23491f9",
    ("virtual", "amd"): "e2a408c370304eef",
    ("syscall", "amd"): "c7e19c70b4a003a0",
    ("breakpoint", "amd"): "0b0820ba70fb483b",
}
"""Digests of the records of 200 cases."""


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The guest that runs cases."""
    return build_monitor(tmp_path_factory.mktemp("monitor"))


def draw(kind: str, seed: int, count: int) -> list[Case]:
    """Draw the cases of a seed."""
    rng = random.Random(f"{kind} {seed}")
    return [KINDS[kind].make(rng) for _ in range(count)]


def unexplained(host: str, cases: Sequence[Case], ours: Sequence[Record], theirs: Sequence[Record]) -> list[str]:
    """Compare records; return what differs and is not known to be wrong in QEMU."""
    found = []
    for case, our, their in zip(cases, ours, theirs, strict=True):
        difference = without_pdptes(compare(case, our, their, host))
        if difference and explain(difference) is None:
            found.append(difference.describe())
    return found


@pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_as_in_qemu(host: str, kind: str, monitor: bytes, tmp_path: Path) -> None:
    """Both processors end each case in the same way: exception, error code, CR2, registers, low memory."""
    here = software_cpu(host, KINDS[kind].cpu, tmp_path)
    there = qemu(f"max,phys-bits={MAX_PHYSICAL_BITS},vendor={VENDORS[host]}", tmp_path)
    wrong: list[str] = []
    for number, start in enumerate(range(0, NUM_CASES, CASES_OF_AN_IMAGE)):
        cases = draw(kind, SEED + number, min(CASES_OF_AN_IMAGE, NUM_CASES - start))
        small = not KINDS[kind].tables
        ours = run_cases(here, monitor, cases, small=small)
        theirs = run_cases(there, monitor, cases, small=small)
        wrong += [f"seed {SEED + number}: {text}" for text in unexplained(host, cases, ours, theirs)]
    assert not wrong, f"{len(wrong)} of {NUM_CASES} differ:\n" + "\n".join(wrong[:SHOWN])


@pytest.mark.parametrize("kind", KINDS)
def test_as_agreed(host: str, kind: str, monitor: bytes, tmp_path: Path) -> None:
    """The software CPU does what it did when QEMU agreed. Compare with QEMU before changing what is expected."""
    cases = draw(kind, 0, 200)
    here = software_cpu(host, KINDS[kind].cpu, tmp_path)
    records = run_cases(here, monitor, cases, small=not KINDS[kind].tables)
    digest = hashlib.sha256("\n".join(record.describe() for record in records).encode()).hexdigest()[:16]
    assert digest == AGREED[kind, host]
