"""What real chips did, instruction by instruction, and a test of the 80386 that runs in place of a BIOS.

PARAVIRT_SINGLESTEP names a directory of SingleStepTests (github.com/SingleStepTests), or several separated by colons:
`v1_real_mode` of the repository 80286, `v1_binary` of the repository 8086, each with the set's metadata.json in it.
PARAVIRT_TEST386 names a ROM image of test386.asm. docs/proof.md says more.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from .moo import read_moo
from .recorded_chips import Chip, Repeater
from .rom386 import LAST_POST, POSTS, run_rom

DIRECTORIES = [Path(name) for name in os.environ.get("PARAVIRT_SINGLESTEP", "").split(":") if name]
CASES_OF_EACH = int(os.environ.get("PARAVIRT_SINGLESTEP_CASES", "0")) or None
FILES = [path for directory in DIRECTORIES for path in sorted(directory.glob("*.MOO.gz"))]
ROM = os.environ.get("PARAVIRT_TEST386")
SHOWN = 5
"""Of a file's differences."""


@pytest.mark.skipif(not FILES, reason="PARAVIRT_SINGLESTEP names no recordings; docs/proof.md says where they are")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name.removesuffix('.MOO.gz')}")
def test_recorded_instruction(host: str, path: Path) -> None:
    """Every recorded instruction that exists today ends as on the chip."""
    chip = Chip.open(path.parent)
    form = path.name.removesuffix(".MOO.gz")
    repeater = Repeater(host, chip)
    wrong = []
    for case in islice(read_moo(path), CASES_OF_EACH):
        if repeater.why_left_out(form, case) is None:
            wrong += [
                f"{case.index} {case.name}: {', '.join(found)}" for found in [repeater.differences(form, case)] if found
            ]
    assert not wrong, f"{len(wrong)} cases differ:\n" + "\n".join(wrong[:SHOWN])


@pytest.mark.skipif(not ROM, reason="PARAVIRT_TEST386 names no ROM image; docs/proof.md says what it is")
def test_80386_rom(host: str) -> None:
    """Test test386.asm comes to its end, and computes what its reference says."""
    assert ROM is not None
    rom = Path(ROM)
    posts, output = run_rom(host, rom.read_bytes())
    assert posts[-1] == LAST_POST, f"stopped in test {posts[-1]:#x}"
    assert posts == [post for post in POSTS if post in posts]
    reference = rom.with_name("test386-EE-reference.txt")
    if output and reference.exists():
        expected = reference.read_text().split("\n")
        different = [
            (a, b)
            for a, b in zip(output.replace("\r", "").split("\n"), expected, strict=False)
            if a.strip() != b.strip()
        ]
        assert not different, f"{len(different)} lines differ, first {different[0]}"
