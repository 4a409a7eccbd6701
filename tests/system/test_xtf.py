"""The HVM images of the Xen Test Framework, if a build of it is at hand, on both kinds of host.

PARAVIRT_XTF names its directory. docs/xen.md says how to make it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import paravirt as pv
from paravirt.interfaces.base import Interface
from paravirt.interfaces.hyperv import HyperV
from paravirt.interfaces.xen import Xen

DIRECTORY = os.environ.get("PARAVIRT_XTF", "")
IMAGES = (
    sorted(path for path in Path(DIRECTORY, "tests").glob("*/test-hvm*") if "." not in path.name) if DIRECTORY else []
)
TIMEOUT_S = 900
"""One of them (xsa-269) jumps a billion times."""

LEFT_OUT = {
    "test-hvm64-xsa-261": "needs an IOAPIC with 48 pins",
    "test-hvm32-xsa-186": "needs new RAM below 4 GiB, where devices are",
    "test-hvm32-xsa-472-1": "puts Hyper-V's reference TSC page where no RAM is, and expects no #GP",
}
SKIPS_ITSELF = {
    "argo": "no Argo",
    "nested-svm": "no nested virtualization",
    "nested-vmx": "no nested virtualization",
}


def _subject(path: Path) -> str:
    """`test-hvm64-xsa-122` is about xsa-122."""
    return path.name.split("-", 2)[2]


def _configuration(path: Path) -> str:
    """What the tool stack would be told; of variants the first."""
    return next(iter(sorted(path.parent.glob(f"{path.name}*.cfg")))).read_text()


@pytest.mark.skipif(not IMAGES, reason="PARAVIRT_XTF names no build of the Xen Test Framework; docs/xen.md says how")
@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
@pytest.mark.parametrize("host", ["intel", "amd"])
def test_image(path: Path, host: str) -> None:
    """It ends with success, or skips itself for a reason that is known."""
    subject = _subject(path)
    if path.name in LEFT_OUT:
        pytest.skip(LEFT_OUT[path.name])
    configuration = _configuration(path)
    cpus = re.findall(r"^vcpus *= *(\d+)", configuration, re.MULTILINE)
    interfaces: list[Interface] = [Xen(fep=True)]
    if "viridian" in configuration:
        interfaces.insert(0, HyperV())
    machine = pv.Machine(host=host, cpus=int(cpus[-1]), interfaces=interfaces)
    with machine:
        machine.boot(path)
        result = machine.run(timeout=TIMEOUT_S)
        verdict = re.findall(r"^Test result: (\w+)", machine.console.text, re.MULTILINE)
        assert verdict == ["SKIP" if subject in SKIPS_ITSELF else "SUCCESS"], machine.console.text
        assert result.reason == pv.StopReason.POWER_OFF
