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


BOOT_SECTOR = bytes.fromhex(
    "31c0 8ed8 8ec0"  # xor ax, ax; mov ds, ax; mov es, ax
    "b80102 b90200 b600 bb007e cd13"  # int 0x13: read a sector, the second, of the disk in DL to 0:7e00
    "7216"  # jc fail
    "be007e"  # mov si, 0x7e00
    "ac 84c0 7409"  # next: lodsb; test al, al; jz done
    "b40e bb0700 cd10"  # int 0x10: print it
    "ebf2"  # jmp next
    "b000 e6f4 f4"  # done: out 0xf4, 0; hlt
    "b001 e6f4 f4"  # fail: out 0xf4, 1; hlt
)


def test_it_boots_from_a_disk(tmp_path: Path, host: str) -> None:
    """The boot sector of a virtio disk reads the next one and prints it, by firmware's drivers for disk and display.

    SeaBIOS sends a character to the serial port once it knows that the next one does not replace it.
    """
    disk = tmp_path / "disk.img"
    sectors = BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + b"Hello from the disk!\0".ljust(512, b"\0")
    disk.write_bytes(sectors.ljust(1 << 20, b"\0"))
    machine = pv.Machine(host=host, devices=[pv.Disk(disk, readonly=True), "debug-exit", "debugcon"])
    machine.boot(image("bios-256k.bin"), protocol="firmware")
    result = machine.run(max_instructions=MAX_INSTRUCTIONS)
    assert "Hello from the disk" in machine.console.text, machine.debug_console.text
    assert result.debug_exit == 0


def test_runs_are_the_same() -> None:
    """Firmware, too, is a function of its input."""
    hashes = set()
    for _ in range(2):
        machine = pv.Machine(cpus=2)
        machine.boot(image("bios-256k.bin"), protocol="firmware")
        machine.run(max_instructions=5_000_000)
        hashes.add(machine.state_hash())
    assert len(hashes) == 1
