"""ACPI and multiprocessor tables, read as a guest reads them; AML against the specification's examples."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import cast

import pytest

from paravirt import _native
from paravirt.boot import acpi, aml, layout, mptable
from paravirt.boot.acpi_blob import AcpiBlob, Pointer
from paravirt.memory import GuestMemory

from .fakes import FakeMemory

MIB = 1 << 20


def written_tables(cpus: int) -> bytes:
    """The region that the tables are in."""
    memory = GuestMemory(cast("_native.Memory", FakeMemory(4 * MIB)))
    acpi.write_tables(memory, range(cpus))
    return memory.read(layout.ACPI_TABLES, layout.ACPI_TABLES_END - layout.ACPI_TABLES)


def tables_by_signature(block: bytes) -> dict[bytes, bytes]:
    """Follow the pointers as a guest does, checking each sum."""
    rsdt_at, length, xsdt_at = struct.unpack("<IIQ", block[16:32])
    assert block[:8] == b"RSD PTR "
    assert sum(block[:20]) % 256 == sum(block[:length]) % 256 == 0

    def table(address: int) -> bytes:
        start = address - layout.ACPI_TABLES
        (size,) = struct.unpack("<I", block[start + 4 : start + 8])
        content = block[start : start + size]
        assert content[:4] == b"FACS" or sum(content) % 256 == 0
        return content

    xsdt, rsdt = table(xsdt_at), table(rsdt_at)
    pointers = [address for (address,) in struct.iter_unpack("<Q", xsdt[36:])]
    assert pointers == [address for (address,) in struct.iter_unpack("<I", rsdt[36:])]
    found = {content[:4]: content for content in map(table, pointers)}
    fadt = found[b"FACP"]
    facs_at, dsdt_at = struct.unpack("<II", fadt[36:44])
    assert struct.unpack("<QQ", fadt[132:148]) == (0, dsdt_at)
    assert facs_at % 64 == 0
    return found | {b"FACS": table(facs_at), b"DSDT": table(dsdt_at)}


@pytest.mark.parametrize("cpus", [1, 3, 255])
def test_tables(cpus: int) -> None:
    """Every sum is right, every CPU is told, the PM timer is where test kernels read it."""
    tables = tables_by_signature(written_tables(cpus))
    assert len(tables[b"FACP"]) == 276
    assert struct.unpack("<I", tables[b"FACP"][76:80]) == (0x608,)
    madt, at, apic_ids = tables[b"APIC"], 44, []
    while at < len(madt):
        kind, size = madt[at], madt[at + 1]
        if kind == 0:
            apic_ids.append(madt[at + 3])
        at += size
    assert apic_ids == list(range(cpus))
    assert b"_S5_" in tables[b"DSDT"]
    assert tables[b"DSDT"].count(b"ACPI0007") == cpus


def test_the_compiler_reads_the_dsdt(tmp_path: Path) -> None:
    """What ACPICA's disassembler reads are the names and numbers that were meant."""
    iasl = shutil.which("iasl")
    if iasl is None:
        pytest.skip("needs iasl: install the package acpica-tools")
    (tmp_path / "dsdt.aml").write_bytes(tables_by_signature(written_tables(2))[b"DSDT"])
    subprocess.run([iasl, "-d", "dsdt.aml"], cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "dsdt.dsl").read_text()
    for expected in (
        "Name (\\_S5, Package (0x04)",
        'Name (_HID, EisaId ("PNP0A03")',
        "IRQNoFlags ()",
        "0xE0000000,         // Range Minimum",
        "0xFEBFFFFF,         // Range Maximum",
        "Device (C001)",
    ):
        assert expected in text
    compiled = subprocess.run([iasl, "-ve", "dsdt.dsl"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr


# -- AML


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0x100, "0b0001"),
        (0x1_0000, "0c00000100"),
        (1 << 32, "0e0000000001000000"),
    ],
)
def test_integers(value: int, code: str) -> None:
    """Section 20.2.3: the shortest form."""
    assert aml.integer(value) == bytes.fromhex(code)


def test_ids() -> None:
    """Section 19.6.38: the specification's EISAID("PNP0A03") is 0x030AD041."""
    assert aml.eisa_id("PNP0A03") == b"\x0c\x41\xd0\x0a\x03"


@pytest.mark.parametrize(
    ("path", "code"),
    [("A", b"A___"), (r"\_SB", rb"\_SB_"), ("^A.B2", b"^.A___B2__"), ("A.B.C", b"/\x03A___B___C___")],
)
def test_names(path: str, code: bytes) -> None:
    """Section 20.2.2."""
    assert aml.name(path, 0) == b"\x08" + code + b"\0"


@pytest.mark.parametrize(("size", "length"), [(58, "3f"), (59, "4104"), (0xFF9, "4fff"), (0x1000, "870001")])
def test_package_length(size: int, length: str) -> None:
    """Section 20.2.4: it counts itself and the name, and its low nibble comes first."""
    code = aml.scope("A", b"\0" * size)
    assert code.startswith(b"\x10" + bytes.fromhex(length) + b"A___")


def test_what_cannot_be_said_is_refused() -> None:
    """Mistakes of the caller, in one line each."""
    with pytest.raises(ValueError, match="does not fit"):
        aml.integer(1 << 64)
    with pytest.raises(ValueError, match="is not an ACPI name"):
        aml.name("TOOLONG", 0)
    with pytest.raises(ValueError, match="at most 255"):
        aml.package(*[0] * 256)
    with pytest.raises(ValueError, match="too long"):
        aml.scope("A", bytes(1 << 28))


def test_a_block_can_be_placed_anywhere() -> None:
    """Pointers move with it, sums stay right."""
    blob = AcpiBlob()
    one = blob.add(b"ONE_", 1, b"body")
    two = blob.add(b"TWO_", 1, bytes(8), [Pointer(36, 8, one)])
    for gpa in (0xE0000, 0x7FFE_0000):
        block = blob.placed(gpa)
        assert struct.unpack_from("<Q", block, two + 36) == (gpa + one,)
        for offset, length in blob.tables:
            assert sum(block[offset : offset + length]) % 256 == 0


# -- multiprocessor tables


@pytest.mark.parametrize("cpus", [1, 4, 255])
def test_mp_table(cpus: int) -> None:
    """Sums and counts are right, one processor boots, every interrupt has one pin."""
    block = mptable.build_mp_table(0xF0000, range(cpus))
    assert len(block) <= layout.MP_TABLE_END - layout.MP_TABLE
    assert block[:4] == b"_MP_"
    assert sum(block[:16]) % 256 == 0
    table = block[struct.unpack_from("<I", block, 4)[0] - 0xF0000 :]
    length, count = struct.unpack_from("<H", table, 4)[0], struct.unpack_from("<H", table, 34)[0]
    assert length == len(table)
    assert sum(table) % 256 == 0
    entries, at = [], 44
    while at < length:
        size = 20 if table[at] == 0 else 8
        entries.append(table[at : at + size])
        at += size
    assert len(entries) == count
    assert [entry[1] for entry in entries if entry[0] == 0] == list(range(cpus))
    assert sum(entry[3] & 2 for entry in entries if entry[0] == 0) == 2
    lines = {(entry[4], entry[5]): entry[7] for entry in entries if entry[0] == 3}
    assert lines[1, 0] == 2
    assert lines[1, 4] == 4
    # Power management in slot 1 is special; INTA# of slot 2 is PIRQB#, of slot 3 PIRQC#.
    assert [lines[0, slot << 2] for slot in (1, 2, 3)] == [9, 10, 11]
