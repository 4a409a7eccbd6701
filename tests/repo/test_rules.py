"""Rules of the house: what one could forget to keep in step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import paravirt
from paravirt import _native
from paravirt.cpuid import ALIASES, CPU_MODELS
from paravirt.guest import GUEST_DIR

ROOT = Path(__file__).parent.parent.parent

LAYERS = ["x86defs", "guestmem", "vcpu", "softfloat", "softcpu", "virtio", "board", "gdb", "native", "hostcheck"]
"""A crate may use only those before it; docs/design.md has the same list."""


def test_version_is_one() -> None:
    """Cargo.toml, the package and the native module agree."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert cargo["workspace"]["package"]["version"] == paravirt.__version__ == _native.VERSION


def test_stub_matches_native_module(tmp_path: Path) -> None:
    """Every name, parameter and default of _native.pyi is so in the module, and the other way round."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "paravirt._native"],
        env={**os.environ, "MYPYPATH": str(ROOT / "python"), "MYPY_CACHE_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_exports() -> None:
    """`paravirt.__all__` has no duplicates, and everything in it exists and is documented."""
    names = paravirt.__all__
    assert len(names) == len(set(names))
    for name in names:
        value = getattr(paravirt, name)
        documented = getattr(value, "__doc__", None) or not callable(value)
        assert documented, f"paravirt.{name} has no docstring"


@pytest.mark.parametrize("crate", LAYERS)
def test_layers(crate: str) -> None:
    """A crate depends only on crates that stand before it."""
    manifest = tomllib.loads((ROOT / "crates" / crate / "Cargo.toml").read_text())
    used = {name for table in ("dependencies", "build-dependencies") for name in manifest.get(table, {})}
    above = set(LAYERS[LAYERS.index(crate) :])
    assert not used & above


def test_all_crates_have_a_layer() -> None:
    """A new crate takes its place in the list, and docs/design.md tells it."""
    assert {path.name for path in (ROOT / "crates").iterdir() if path.is_dir()} == set(LAYERS)
    design = (ROOT / "docs" / "design.md").read_text()
    places = [design.index(f"{crate}/") for crate in LAYERS]
    assert places == sorted(places)


@pytest.mark.parametrize("crate", [crate for crate in LAYERS if crate not in {"guestmem", "native", "hostcheck"}])
def test_unsafe_is_forbidden(crate: str) -> None:
    """Raw pointers have one home, the binding another; what runs code on the host itself is a test."""
    assert "#![forbid(unsafe_code)]" in (ROOT / "crates" / crate / "src" / "lib.rs").read_text()


def test_core_knows_no_hypervisor() -> None:
    """Rust has no policy: no crate below the binding names a hypervisor's interface in its code."""
    names = re.compile(r"kvmkvmkvm|xenvmm|microsoft hv|vmwarevmware", re.IGNORECASE)
    for path in (ROOT / "crates").rglob("*.rs"):
        assert not names.search(path.read_text()), path


def test_guest_kit_is_complete() -> None:
    """What `paravirt build` needs stands beside the package."""
    assert {path.name for path in GUEST_DIR.iterdir() if path.suffix in {".h", ".S", ".c", ".ld"}} == {
        "guest.ld",
        "internal.h",
        "paravirt.h",
        "paravirt_kvm.h",
        "runtime.c",
        "start.S",
    }


def test_package_is_typed() -> None:
    """Type checkers of users look for the marker."""
    assert (Path(paravirt.__file__).parent / "py.typed").exists()


def test_models_are_documented() -> None:
    """docs/cpu-models.md has a row for each model, with its other names."""
    rows = [line for line in (ROOT / "docs" / "cpu-models.md").read_text().splitlines() if line.startswith("| `")]
    first = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    also = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[2])}
    assert first == set(CPU_MODELS)
    assert also == set(ALIASES)


CHANGE = re.compile(r"(added|changed|fixed|removed|security)-[a-z0-9-]+\.md")


def test_changelog() -> None:
    """Versions of CHANGELOG.md have dates, newest first, and the sections that Keep a Changelog knows."""
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    dates = [re.fullmatch(r"\d+\.\d+\.\d+ - (\d{4}-\d{2}-\d{2})", heading) for heading in headings[1:]]
    assert all(dates)
    days = [match[1] for match in dates if match]
    assert days == sorted(days, reverse=True)
    sections = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert sections <= {"Added", "Changed", "Fixed", "Removed", "Security"}


def test_change_fragments() -> None:
    """A change is one file: its kind and subject in the name, sentences inside."""
    for path in (ROOT / "changes").iterdir():
        if path.name == "README.md":
            continue
        assert CHANGE.fullmatch(path.name), path.name
        assert path.read_text().strip().endswith("."), path.name
