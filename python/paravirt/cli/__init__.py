"""The command `paravirt`. One file per command: it parses, calls the API and prints.

By click, not by something larger on top of it: half of what the start of an empty kernel may take is Python's imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from paravirt._version import __version__
from paravirt.cli.build import build
from paravirt.cli.cpu import cpu
from paravirt.cli.output import OutputError
from paravirt.cli.run import run
from paravirt.errors import ParavirtError

__all__ = ["main"]

STATUS_USAGE = 2
STATUS_INTERRUPTED = 130
"""As a shell reports a command that SIGINT ended: 128 + 2."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="paravirt %(version)s")
def app() -> None:
    """Run x86 kernels under the paravirtual interface and on the CPU vendor of your choice.

    No virtualization hardware and no privileges are needed: guests run on a software CPU. Hypercalls made with the
    other vendor's instruction are repaired while the guest runs.

    \b
    paravirt build hello.c
    paravirt run hello.elf --host amd --trace hypercall,fixup
    """


app.add_command(run)
app.add_command(build)
app.add_command(cpu)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(_status_of(arguments))


def _status_of(arguments: Sequence[str] | None) -> int:
    try:
        status = app.main(args=arguments, prog_name="paravirt", standalone_mode=False)
        _flush_stdout()
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stdout.write(error.format_message() + "\n")
        return STATUS_USAGE
    except click.ClickException as error:
        return _fail(error.format_message())
    except ParavirtError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(_describe_os_error(error))
    except (click.Abort, KeyboardInterrupt):
        return STATUS_INTERRUPTED
    return status if isinstance(status, int) else 0


def _flush_stdout() -> None:
    """Write what is buffered. Raises OutputError, and gives up stdout: Python would try once more at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise OutputError(f"cannot write to stdout: {(error.strerror or str(error)).lower()}") from error


def _describe_os_error(error: OSError) -> str:
    text = (error.strerror or str(error)).lower()
    return f"{text}: {error.filename!r}" if error.filename else text


def _fail(message: str) -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"paravirt: error: {line}\n")
    return STATUS_USAGE
