"""Programs of a distribution compute the same in a Linux guest as on the computer that runs the tests.

Hashes and ciphers choose the widest instructions that the CPU announces, a compiler and its mathematics library use the
x87 and SSE, compressors are branches and shifts: tests/guests/userland/work.sh prints what comes out.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import paravirt as pv

from ..initramfs import write_initramfs
from ..linux_files import find_busybox
from .support import GUESTS

PROGRAMS = ("openssl", "xz", "bc", "mawk", "perl", "tcc")
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
COMPILER_FILES = (
    *(LIBRARIES / name for name in ("tcc", "crt1.o", "crti.o", "crtn.o", "libc.so", "libm.so", "libc_nonshared.a")),
    *(Path("/lib") / LIBRARIES.name / name for name in ("libc.so.6", "libm.so.6", "libmvec.so.1")),
    Path("/lib") / LIBRARIES.name / "ld-linux-x86-64.so.2",
    *(Path("/usr/include") / name for name in ("features.h", "features-time64.h", "stdc-predef.h")),
    *(Path("/usr/include") / name for name in ("math.h", "stdint.h", "stdio.h", "string.h", "strings.h")),
    *(LIBRARIES.parent.parent / "include" / LIBRARIES.name / name for name in ("bits", "gnu", "sys")),
)
INIT = """\
#!/bin/sh
mount -t proc proc /proc
echo "[work begins]"
sh /work/work.sh /bin/busybox /work 2>&1
echo "[work ends]"
poweroff -f
"""


def files_of(programs: list[Path]) -> Iterator[Path]:
    """The programs, the libraries that they are linked with, and what the compiler reads."""
    yield from programs
    for program in programs:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        yield from map(Path, re.findall(r"/\S+", listed))
    for path in COMPILER_FILES:
        yield from (path for path in path.rglob("*") if path.is_file()) if path.is_dir() else (path,)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """What the guest's file system has, by path."""
    paths = [Path("/usr/bin") / name for name in PROGRAMS]
    missing = [path.name for path in paths if not path.exists()]
    if platform.machine() != "x86_64" or missing:
        pytest.skip(f"no {', '.join(missing)} for x86-64; on Debian: apt-get install bc mawk openssl perl tcc xz-utils")
    found = {str(path).lstrip("/"): path.read_bytes() for path in files_of(paths) if path.exists()}
    work = (GUESTS / "userland").iterdir()
    return found | {f"work/{path.name}": path.read_bytes() for path in work}


@pytest.fixture(scope="module")
def expected(files: dict[str, bytes], busybox: bytes, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the computer itself makes of it."""
    directory = tmp_path_factory.mktemp("work")
    shutil.copytree(GUESTS / "userland", directory, dirs_exist_ok=True)
    program = find_busybox()
    done = subprocess.run(
        [program, "sh", directory / "work.sh", program, directory], capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_same_results(linux: Path, busybox: bytes, files: dict[str, bytes], expected: list[str], host: str) -> None:
    """Line by line."""
    machine = pv.Machine(host=host, cpus=2, memory="512M")
    machine.boot(linux, append="console=ttyS0 quiet", initrd=write_initramfs(busybox, INIT, files))
    assert machine.run(timeout=800).reason is pv.StopReason.POWER_OFF
    text = machine.console.text.replace("\r\n", "\n")
    assert text.partition("[work begins]\n")[2].partition("[work ends]")[0].splitlines() == expected
    assert len(expected) > 30
