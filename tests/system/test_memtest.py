"""memtest86+ finds the processors and the memory, and nothing wrong with it.

Only the beginning of a pass: what a whole one takes is in docs/firmware.md. PARAVIRT_MEMTEST86 names the directory of
the two images, /boot by default.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import paravirt as pv

DIRECTORY = Path(os.environ.get("PARAVIRT_MEMTEST86", "/boot"))
MAX_INSTRUCTIONS = 600_000_000
"""It waits for two seconds of the guest's time and clears the screen before it says anything."""


@pytest.mark.parametrize(("name", "cpus", "host"), [("x64", 2, "amd"), ("ia32", 1, "intel")])
def test_memtest86(name: str, cpus: int, host: str) -> None:
    """It measures clock and caches, starts the other processors by ACPI's tables, and tests without an error."""
    image = DIRECTORY / f"memtest86+{name}.bin"
    if not image.exists():
        pytest.skip(f"needs {image}: install the package memtest86+, or name its directory in PARAVIRT_MEMTEST86")
    machine = pv.Machine(host=host, cpus=cpus, memory="64M", interfaces=[])
    machine.boot(image, append="console=ttyS0,115200")
    machine.run(max_instructions=MAX_INSTRUCTIONS)
    text = machine.console.text
    assert "CLK/Temp: 1000MHz" in text
    assert f"{cpus} Cores {cpus} Threads" in text
    assert "[Address test, walking ones, no cache]" in text
    assert "Errors: 0" in text
    assert "Errors: 1" not in text
