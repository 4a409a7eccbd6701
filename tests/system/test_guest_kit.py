"""The guest kit does what paravirt.h says, at both widths; and its images are what other loaders take."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from .support import BuildGuest, RunGuest


def test_kit(run_guest: RunGuest, host: str, bits: int) -> None:
    """The guest tests/guests/kit.c goes through the header."""
    run = run_guest("kit", "one", bits=bits, host=host, cpus=3).expect_success()
    assert "  -42|-42  |-0042|dead|beef|12345678901234567890|x|text|%\n" in run.console


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed")
def test_kit_in_qemu(guest_image: BuildGuest, bits: int) -> None:
    """The same image, loaded by QEMU: we are not the only ones whom it satisfies."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-kernel", str(guest_image("kit", bits)), "-append", "one"]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-smp", "3", "-cpu", "max"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert "FAIL" not in done.stdout
    assert done.returncode == 1, done.stdout + done.stderr
