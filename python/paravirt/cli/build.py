"""`paravirt build`: compile a guest with the guest kit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from paravirt.errors import BuildError


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--output", metavar="FILE", help="The image; by default the first source's name with .elf.")
@click.option("--m32", is_flag=True, help="32-bit protected mode instead of 64-bit mode.")
@click.option("-f", "--flag", "flags", multiple=True, help="Pass a flag to the compiler, as --flag=-DN=1.")
def build(sources: Sequence[str], output: str | None, m32: bool, flags: Sequence[str]) -> None:
    """Compile a test kernel, written against paravirt.h, to a multiboot image.

    The system's C compiler does it: $CC, or cc, gcc or clang.
    """
    from paravirt.guest import build_guest  # Not needed by other commands.

    image = Path(output) if output else Path(Path(sources[0]).name).with_suffix(".elf")
    try:
        build_guest(sources, image, bits=32 if m32 else 64, flags=flags)
    except BuildError as error:
        sys.stderr.write(error.output)
        raise
