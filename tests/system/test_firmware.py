"""SeaBIOS as firmware: it comes up from the reset vector, in real mode, and finds the board."""

from __future__ import annotations

from pathlib import Path

import pytest

import paravirt as pv

SEABIOS = Path("/usr/share/seabios")
MAX_INSTRUCTIONS = 50_000_000
"""Some eight times what it takes."""


def image(name: str) -> Path:
    path = SEABIOS / name
    if not path.exists():
        pytest.skip(f"needs {path}: install the package seabios")
    return path


@pytest.mark.parametrize(("name", "cpus"), [("bios-256k.bin", 1), ("bios-256k.bin", 4), ("bios.bin", 2)])
def test_seabios_looks_for_something_to_boot(name: str, cpus: int, host: str) -> None:
    """It greets on both consoles, starts all processors, takes our tables, and resets when nothing can be booted."""
    machine = pv.Machine(host=host, cpus=cpus)
    machine.boot(image(name), protocol="firmware")
    result = machine.run(max_instructions=MAX_INSTRUCTIONS)
    log = machine.debug_console.text
    assert "SeaBIOS (version" in machine.console.text
    assert "No bootable device." in machine.console.text
    assert f"Found {cpus} cpu(s) max supported {cpus} cpu(s)" in log
    assert "PS2 keyboard initialized" in log
    assert "ACPI: parse DSDT" in log or name == "bios.bin", "the smaller build does not look into it"
    assert "WARNING" not in log
    assert result.reason == pv.StopReason.RESET


def test_a_hard_reset_starts_it_again(host: str) -> None:
    """With `reboot` the second start is as the first: the image is back where it was copied over, and greets again."""
    machine = pv.Machine(host=host, reboot=True)
    machine.boot(image("bios-256k.bin"), protocol="firmware")
    machine.run(max_instructions=10_000_000)
    assert machine.console.text.count("SeaBIOS (version") == 2


def test_runs_are_the_same() -> None:
    """Firmware, too, is a function of its input."""
    hashes = set()
    for _ in range(2):
        machine = pv.Machine(cpus=2)
        machine.boot(image("bios-256k.bin"), protocol="firmware")
        machine.run(max_instructions=5_000_000)
        hashes.add(machine.state_hash())
    assert len(hashes) == 1
