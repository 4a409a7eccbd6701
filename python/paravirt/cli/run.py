"""`paravirt run`: boot a kernel, pass its output through, end with its status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from paravirt.cli import report
from paravirt.cli.interface_option import make_interfaces
from paravirt.cli.output import OutputStream
from paravirt.errors import ConfigurationError

STATUS_INTERRUPTED = 130
"""As a shell reports a command that SIGINT ended: 128 + 2."""


def run(
    kernel: Annotated[str, typer.Argument(help="A multiboot image, or an ELF file with a multiboot header.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS...]", help="Arguments on the kernel's command line.")
    ] = None,
    host: Annotated[str, typer.Option(help="What the silicon does: intel, amd or lguest.")] = "intel",
    cpus: Annotated[int, typer.Option("-c", "--cpus", help="Number of vCPUs, 1 to 255.")] = 1,
    memory: Annotated[str, typer.Option("-m", "--memory", help="Size of RAM: 64M, 2G; without a unit MiB.")] = "128M",
    interface: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--interface",
            help="Paravirtual interface; again for another. kvm, kvm:features=..., none, or one of your own as "
            "FILE.py:CLASS. [default: kvm]",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="What to do with the other vendor's hypercall: patch, emulate, strict or reject.")
    ] = "patch",
    cpu: Annotated[str, typer.Option(help="Guest CPU: a model and features, as default,+pcid,-smap.")] = "default",
    initrd: Annotated[str | None, typer.Option(help="A file to load as the kernel's first module.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the interleaving of vCPUs; the same seed gives the same run.")] = 0,
    start_time: Annotated[
        int | None,
        typer.Option(
            help="What the guest's clock shows at first, in seconds since 1970. [default: the start of 2026]",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(metavar="KINDS", help="One line for each event: hypercall, fixup, msr, exit, all; with commas."),
    ] = None,
    trace_file: Annotated[str | None, typer.Option(help="Where the trace goes. [default: stderr]")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="At the end: instructions, exits, fix-ups, time.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="At the end: the result as JSON, on stderr.")] = False,
    max_instructions: Annotated[int | None, typer.Option(help="Stop after so many, of all vCPUs together.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
) -> int:
    """Run a kernel.

    Its serial port is stdout; everything of paravirt's own goes to stderr. The status is the one that the kernel
    writes to isa-debug-exit (port 0xF4), as in QEMU (value << 1) | 1: a test kernel's success is 1. Without that it is
    0; 122 after a triple fault, 124 at a limit, 130 after Ctrl-C, 2 if the kernel could not be started.
    """
    from paravirt.machine import DEFAULT_START_UNIX_NS, Machine  # Not needed for --help.
    from paravirt.trace import Tracer

    console = _console_descriptor()
    with _trace_stream(trace_file) as stream:
        machine = Machine(
            host=host,
            cpus=cpus,
            memory=memory,
            interfaces=make_interfaces(interface),
            policy=policy,
            cpu=cpu,
            seed=seed,
            start_unix_ns=DEFAULT_START_UNIX_NS if start_time is None else start_time * 10**9,
            console=console,
            trace=Tracer(stream, trace) if trace is not None else None,
        )
        with machine:
            machine.boot(kernel, args=arguments or [], initrd=initrd)
            try:
                result = machine.run(max_instructions=max_instructions, timeout=timeout)
            except KeyboardInterrupt:
                sys.stderr.write("paravirt: interrupted\n")
                return STATUS_INTERRUPTED
            sys.stderr.write(report.describe_end(machine, result))
            if stats:
                sys.stderr.write(report.describe_statistics(result))
            if as_json:
                sys.stderr.write(json.dumps(report.result_as_dict(machine, result)) + "\n")
            return result.status


def _console_descriptor() -> int:
    """The guest writes to the descriptor itself, past Python's buffer.

    A closed stdout must be noticed before any file is opened: it would get the number 1, and the guest's output.
    """
    if sys.stdout is None:
        raise ConfigurationError("cannot write to stdout: it is closed", option="console")
    sys.stdout.flush()
    return sys.stdout.fileno()


@contextmanager
def _trace_stream(path: str | None) -> Iterator[Any]:
    if path is None:
        yield sys.stderr
        return
    try:
        file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 - OutputStream closes it
    except OSError as error:
        raise ConfigurationError(f"cannot write the trace to {path!r}: {(error.strerror or '').lower()}") from error
    with OutputStream(file, f"the trace to {path!r}") as stream:
        yield stream
