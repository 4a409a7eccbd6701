"""Where a Linux kernel and a busybox are, for tests that boot Linux."""

from __future__ import annotations

import lzma
import os
import re
from pathlib import Path

KERNEL_VARIABLE, BUSYBOX_VARIABLE = "PARAVIRT_LINUX_KERNEL", "PARAVIRT_BUSYBOX"
REQUIRED_VARIABLE = "PARAVIRT_REQUIRE_LINUX"
"""Set where their absence is a failure, as in continuous integration."""

KERNEL_PATTERNS = ("vmlinuz-*-cloud-amd64", "vmlinuz-*-amd64")
BUSYBOX_PLACES = ("/bin/busybox", "/usr/bin/busybox", "/usr/bin/busybox-static")

HOW_TO_GET_THEM = (
    "on Debian: apt-get install linux-image-cloud-amd64 busybox-static; elsewhere name a bzImage and a static busybox"
    f" by {KERNEL_VARIABLE} and {BUSYBOX_VARIABLE}"
)


class LinuxFilesMissing(Exception):
    """There is no kernel or no busybox; the text says how to get them."""


def find_kernel() -> Path:
    """Return a bzImage: what the variable names, or the newest that is installed, a cloud kernel if there is one."""
    named = os.environ.get(KERNEL_VARIABLE)
    if named:
        return Path(named)
    for pattern in KERNEL_PATTERNS:
        for path in sorted(Path("/boot").glob(pattern), key=_version, reverse=True):
            if os.access(path, os.R_OK):
                return path
    raise LinuxFilesMissing(f"no Linux kernel that can be read; {HOW_TO_GET_THEM}")


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def find_busybox() -> Path:
    """Return a statically linked busybox."""
    places = filter(None, (os.environ.get(BUSYBOX_VARIABLE), *BUSYBOX_PLACES))
    for path in map(Path, places):
        # The name of a dynamic linker is a program header's content, near the start of the file.
        if path.is_file() and b"/ld-" not in path.read_bytes()[:4096]:
            return path
    raise LinuxFilesMissing(f"no statically linked busybox; {HOW_TO_GET_THEM}")


def read_module(kernel: Path, name: str) -> bytes:
    """Return one of the kernel's modules, from `lib/modules` beside the directory that the kernel is in."""
    version = kernel.name.removeprefix("vmlinuz-")
    for root in (kernel.parent.parent, kernel.parent.parent / "usr"):
        for path in (root / "lib" / "modules" / version).rglob(f"{name}.ko*"):
            data = path.read_bytes()
            return lzma.decompress(data) if path.suffix == ".xz" else data
    raise LinuxFilesMissing(f"no module {name} of {kernel}, in lib/modules/{version} beside it; {HOW_TO_GET_THEM}")
