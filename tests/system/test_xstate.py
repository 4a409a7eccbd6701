"""x87, SSE, AVX and PKRU state as operating systems handle it: saved at each switch, or lazily by CR0.TS and #NM."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from paravirt.cpuid import IMPLEMENTED

from .support import BuildGuest, RunGuest

pytestmark = pytest.mark.skipif("sse2" not in IMPLEMENTED, reason="the software CPU does not implement SSE2")


@pytest.mark.parametrize("way", ["fxsave", "xsave", "xsaveopt", "xsavec", "xsaves"])
def test_eager_switches(run_guest: RunGuest, host: str, bits: int, way: str) -> None:
    """Five tasks, each with its own pattern in every register, in any order."""
    run = run_guest("xstate", "eager", way, bits=bits, host=host).expect_success()
    assert run.console.startswith(f"{way}, components {'0, 512' if way == 'fxsave' else '207, '}")


@pytest.mark.parametrize("cpu", ["default", "x86-64-v1", "Nehalem", "SandyBridge", "zen2", "zen3"])
def test_eager_switches_of_models(run_guest: RunGuest, host: str, bits: int, cpu: str) -> None:
    """The best instruction of each model, with the components that it has."""
    best = {
        "x86-64-v1": "fxsave, components 0, 512 bytes\n",
        "Nehalem": "fxsave, components 0, 512 bytes\n",
        "SandyBridge": "xsaveopt, components 7, 832 bytes\n",
        "zen2": "xsaves, components 7, 832 bytes\n",
        "zen3": "xsaves, components 207, 840 bytes\n",
        "default": f"xsaves, components 207, {2696 if host == 'intel' else 840} bytes\n",
    }
    run = run_guest("xstate", "eager", bits=bits, host=host, cpu=cpu).expect_success()
    assert run.console.startswith(best[cpu])


@pytest.mark.parametrize("way", ["fxsave", "xsave", "xsaves"])
def test_lazy_switches(run_guest: RunGuest, host: str, bits: int, way: str) -> None:
    """#NM comes when a task needs its registers, and only then."""
    run_guest("xstate", "lazy", way, bits=bits, host=host).expect_success()


def test_rights(run_guest: RunGuest, host: str, bits: int) -> None:
    """What CPL 3 may, and what CR4 and XCR0 allow."""
    run_guest("xstate", "rights", bits=bits, host=host).expect_success()


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed")
@pytest.mark.parametrize("arguments", ["eager fxsave", "eager xsave", "lazy fxsave", "rights"])
def test_in_qemu(guest_image: BuildGuest, bits: int, arguments: str) -> None:
    """The same guest satisfies another emulator: it asks for nothing that is only ours. (QEMU's XSAVE does not look at
    CR0.TS; SDM vol. 2 says #NM.)"""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-kernel", str(guest_image("xstate", bits)), "-append", arguments]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-cpu", "max"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert "FAIL" not in done.stdout
    assert done.returncode == 1, done.stdout + done.stderr
