"""`--firmware` and `--debugcon`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from paravirt.errors import ConfigurationError

__all__ = ["choose_image", "open_debug_console"]


def choose_image(kernel: str | None, firmware: str | None, protocol: str | None) -> tuple[str, str | None]:
    """Return the file to boot and its protocol. Raises UsageError unless exactly one of the two files is named."""
    if firmware is None:
        if kernel is None:
            raise click.UsageError("Missing argument 'KERNEL': name a kernel, or give --firmware.")
        return kernel, protocol
    if kernel is not None:
        raise click.UsageError("--firmware boots from a disk and takes no KERNEL: leave one of them out.")
    if protocol not in (None, "firmware"):
        raise click.UsageError(f"--firmware starts at the reset vector and not by --protocol {protocol}.")
    return firmware, "firmware"


@contextmanager
def open_debug_console(path: str | None) -> Iterator[int | None]:
    """Open where the debug ports go: a file, "-" for stderr. None: nowhere. Raises ConfigurationError."""
    if path is None:
        yield None
    elif path == "-":
        sys.stderr.flush()
        yield sys.stderr.fileno()
    else:
        try:
            file = Path(path).open("wb", buffering=0)  # noqa: SIM115 - closed below; an error here is to be told apart
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise ConfigurationError(f"cannot write the debug console to {path!r}: {reason}") from error
        with file:
            yield file.fileno()
