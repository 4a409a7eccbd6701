"""What the documentation shows works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paravirt.guest import build_guest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

SENSOR_OUTPUT = "2 + 3 = 5\na bad pointer: -14\n3 samples\n"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=60, check=False)


def test_sensor_script(tmp_path: Path) -> None:
    image = build_guest([EXAMPLES / "sensor.c"], tmp_path / "sensor.elf")
    done = run(EXAMPLES / "sensor.py", image)
    assert done.stdout.startswith(SENSOR_OUTPUT), done.stderr
    assert done.stdout.endswith("samples [0, 1, 4]\n")


def test_sensor_on_the_command_line(tmp_path: Path) -> None:
    image = build_guest([EXAMPLES / "sensor.c"], tmp_path / "sensor.elf")
    done = run("-m", "paravirt", "run", image, "--interface", f"{EXAMPLES / 'sensor.py'}:Sensor")
    assert (done.stdout, done.returncode) == (SENSOR_OUTPUT, 1), done.stderr


def test_sensor_is_short() -> None:
    """An interface takes less than fifty lines, script and all."""
    assert len((EXAMPLES / "sensor.py").read_text().splitlines()) < 50
