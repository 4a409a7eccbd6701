"""`paravirt build`: compile a guest with the guest kit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from paravirt.errors import BuildError
from paravirt.guest import build_guest


def build(
    sources: Annotated[list[Path], typer.Argument(help="C or assembly files.", metavar="SOURCE...")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The image; by default the first source's name with .elf.")
    ] = None,
    m32: Annotated[bool, typer.Option("--m32", help="32-bit protected mode instead of 64-bit mode.")] = False,
    flags: Annotated[
        list[str] | None, typer.Option("-f", "--flag", help="Pass a flag to the compiler, as --flag=-DN=1.")
    ] = None,
) -> None:
    """Compile a test kernel, written against paravirt.h, to a multiboot image.

    The system's C compiler does it: $CC, or cc, gcc or clang.
    """
    image = output or Path(sources[0].name).with_suffix(".elf")
    try:
        build_guest(sources, image, bits=32 if m32 else 64, flags=flags or ())
    except BuildError as error:
        sys.stderr.write(error.output)
        raise
