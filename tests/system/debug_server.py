"""A machine under gdb, for tests."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paravirt as pv
from paravirt.debugger import GdbServer, parse_address

TIMEOUT_S = 120


class DebugServer:
    """A machine that waits for gdb in a thread of its own. append: for the kernel; other options are Machine's."""

    def __init__(self, image: Path, *arguments: str, append: str = "", **options: Any) -> None:
        self.machine = pv.Machine(**options)
        self.machine.boot(image, args=arguments, append=append)
        self.server = GdbServer(self.machine, "0")
        self.results: list[pv.Result] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self.results.append(self.server.run())

    @property
    def port(self) -> int:
        """Where it listens."""
        return parse_address(self.server.address)[1]

    def join(self) -> pv.Result:
        """Wait for the end of the run."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the server still runs"
        return self.results[0]

    def close(self) -> None:
        """End the run, and all else."""
        while self._thread.is_alive():
            self.machine.stop()
            self._thread.join(0.05)
        self.server.close()
        self.machine.close()


Serve = Callable[..., DebugServer]


def gdb(image: Path | None, port: int, *commands: str) -> str:
    """Connect stock gdb, let it do commands; returns what it says."""
    arguments = ["gdb", "-nx", "-q", "-batch", "-ex", "set pagination off", "-ex", f"target remote 127.0.0.1:{port}"]
    for command in commands:
        arguments += ["-ex", command]
    if image is not None:
        arguments.append(str(image))
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
    )
    return done.stdout + done.stderr
