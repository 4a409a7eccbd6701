"""What is measured: paravirt, and QEMU's TCG and Unicorn where they are installed. Each runs the same image."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TIMEOUT_S = 300
STATUS_SUCCESS = 1


@dataclass(frozen=True)
class Sample:
    """One run: how often the loop went round, and wall-clock seconds of the whole process."""

    count: int
    seconds: float


class Engine:
    """Runs `bench NAME COUNT` once."""

    name: str
    cannot: frozenset[str] = frozenset()

    def is_there(self) -> bool:
        raise NotImplementedError

    def run(self, image: Path, loop: str, count: int) -> Sample:
        raise NotImplementedError


def _timed(command: list[str], status: int) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds


class Paravirt(Engine):
    """`paravirt run`, with a hypercall handler in Python."""

    name = "paravirt"

    def is_there(self) -> bool:
        return True

    def run(self, image: Path, loop: str, count: int) -> Sample:
        command = [sys.executable, "-m", "paravirt", "run", str(image)]
        if loop == "hypercall":
            command += ["--interface", f"{HERE / 'interface.py'}:Adder"]
        return Sample(count, _timed([*command, "--", loop, str(count)], STATUS_SUCCESS))


class Qemu(Engine):
    """QEMU's TCG. It has no hypercalls of a guest's own."""

    name = "qemu"
    cannot = frozenset({"hypercall"})
    command = "qemu-system-x86_64"

    def is_there(self) -> bool:
        return shutil.which(self.command) is not None

    def run(self, image: Path, loop: str, count: int) -> Sample:
        command = [self.command, "-accel", "tcg", "-kernel", str(image), "-append", f"{loop} {count}"]
        command += ["-nodefaults", "-display", "none", "-serial", "none", "-no-reboot", "-m", "128", "-cpu", "max"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        return Sample(count, _timed(command, STATUS_SUCCESS))


class Unicorn(Engine):
    """Unicorn: the loop alone, called as a function; a hypercall is a hook in Python too."""

    name = "unicorn"

    def is_there(self) -> bool:
        return importlib.util.find_spec("unicorn") is not None

    def run(self, image: Path, loop: str, count: int) -> Sample:
        command = [sys.executable, str(HERE / "unicorn_loop.py"), str(image), loop, str(count)]
        return Sample(count, _timed(command, 0))


ENGINES: tuple[Engine, ...] = (Paravirt(), Qemu(), Unicorn())
