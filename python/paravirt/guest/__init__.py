"""The guest kit: what test kernels include, and how they are compiled.

`paravirt.h` says what a guest can use. `start.S`, `runtime.c` and `guest.ld` are compiled and linked with the guest's
own sources by the system's C compiler; nothing else is needed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from paravirt.errors import BuildError

__all__ = ["GUEST_DIR", "build_guest"]

GUEST_DIR = Path(__file__).parent
"""Where `paravirt.h` and the start-up code are."""

COMPILERS = ("cc", "gcc", "clang")

# No floating point or SSE: interrupts do not save their registers, and not every guest CPU announces them.
# No red zone: interrupts at CPL 0 stay on the stack. No aliasing rules: kernels look at memory in all ways.
_COMPILE_FLAGS = (
    "-std=gnu11",
    "-O2",
    "-g",
    "-Wall",
    "-ffreestanding",
    "-fno-pic",
    "-fno-pie",
    "-fno-stack-protector",
    "-fno-strict-aliasing",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mgeneral-regs-only",
    "-mno-red-zone",
)
_LINK_FLAGS = (
    "-no-pie",
    "-static",
    "-nostdlib",
    f"-Wl,-T,{GUEST_DIR / 'guest.ld'}",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
)


def build_guest(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    bits: int = 64,
    flags: Sequence[str] = (),
    compiler: str | None = None,
) -> Path:
    """Compile and link a test kernel to a multiboot image, and return the image's path.

    sources: C or assembly files. bits: 64, or 32 for protected mode with PAE paging. flags: further flags for the
    compiler, such as `-DNAME=1`. compiler: the command; by default the environment's `CC`, else the first of cc, gcc
    and clang that exists. Warnings of the compiler are written to stderr.

    Raises BuildError if there is no compiler, if it cannot make x86 code, or if it refuses the sources.
    """
    for source in sources:
        if not Path(source).is_file():
            raise BuildError(f"cannot read {str(source)!r}: no such file")
    command = _find_compiler(compiler)
    machine = "-m64" if bits == 64 else "-m32"
    kit = [GUEST_DIR / "start.S", GUEST_DIR / "runtime.c"]
    arguments = [machine, *_COMPILE_FLAGS, f"-I{GUEST_DIR}", *flags, *sources, *kit, *_LINK_FLAGS, "-o", output]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        _check_target(command, machine)
        raise BuildError(f"the compiler {command[0]!r} refused the guest", output=done.stderr)
    sys.stderr.write(done.stderr)
    return Path(output)


def _find_compiler(compiler: str | None) -> list[str]:
    asked = compiler or os.environ.get("CC")
    if asked:
        command = shlex.split(asked)
        if not command or not shutil.which(command[0]):
            raise BuildError(f"there is no compiler {asked!r}")
        return command
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError(f"there is no C compiler: none of {', '.join(COMPILERS)} is in PATH; install one or set CC")


def _check_target(command: list[str], machine: str) -> None:
    """Say so if the compiler makes code for another architecture, which its own messages hardly tell."""
    probe = [*command, machine, "-dM", "-E", "-x", "c", os.devnull]
    macros = subprocess.run(probe, capture_output=True, text=True, errors="replace", check=False).stdout
    if "__x86_64__" not in macros and "__i386__" not in macros:
        raise BuildError(f"the compiler {command[0]!r} cannot make x86 code with {machine}; set CC to one that can")
