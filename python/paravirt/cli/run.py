"""`paravirt run`: boot a kernel, pass its output through, end with its status."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paravirt.cli import report
from paravirt.cli.cpu import show_and_exit
from paravirt.cli.device_options import make_devices
from paravirt.cli.firmware_option import choose_image, open_debug_console
from paravirt.cli.interface_option import make_interfaces
from paravirt.cli.output import OutputStream
from paravirt.errors import ConfigurationError
from paravirt.result import StopReason

if TYPE_CHECKING:
    from paravirt.machine import Machine
    from paravirt.result import Result

STATUS_INTERRUPTED = 130
"""As a shell reports a command that SIGINT ended: 128 + 2."""


@click.command()
@click.argument("kernel", required=False)
@click.argument("arguments", nargs=-1, metavar="[-- ARGS...]")
@click.option("--host", default="intel", show_default=True, help="What the silicon does: intel, amd or lguest.")
@click.option("-c", "--cpus", default=1, show_default=True, help="Number of vCPUs, 1 to 255.")
@click.option("-m", "--memory", default="128M", show_default=True, help="RAM: 64M, 2G; without a unit MiB.")
@click.option(
    "-i",
    "--interface",
    "interfaces",
    multiple=True,
    help="Paravirtual interface; again for another: kvm, kvm:features=A+B, kvm:without=A, one of your own as "
    "FILE.py:CLASS, or none.  [default: kvm]",
)
@click.option(
    "--policy",
    default="patch",
    show_default=True,
    help="What to do with the other vendor's hypercall: patch, emulate, strict or reject.",
)
@click.option(
    "--cpu",
    default="default",
    show_default=True,
    callback=show_and_exit,
    is_eager=True,
    help="Guest CPU: a model and features, as haswell,-smap; help lists them.",
)
@click.option("--initrd", metavar="FILE", help="An initial RAM disk, or a multiboot kernel's module.")
@click.option("--append", default="", metavar="TEXT", help='The kernel\'s command line, as in "console=ttyS0".')
@click.option("--firmware", metavar="FILE", help="Start this at the reset vector, as a BIOS, instead of a KERNEL.")
@click.option("--debugcon", metavar="FILE", help="Where the debug ports go, 0xE9 and 0x402; - is stderr.")
@click.option(
    "--protocol",
    metavar="NAME",
    help="How the kernel is entered: multiboot, pvh, linux, or flat for raw real-mode code.  [default: by the file]",
)
@click.option(
    "--disk",
    "disks",
    multiple=True,
    metavar="FILE[,MODE]",
    help="A virtio disk from a raw image; MODE readonly, or snapshot to leave the file as it is; again for another.",
)
@click.option("--rng", is_flag=True, help="A virtio entropy device whose bytes depend on the seed.")
@click.option("--real-rng", is_flag=True, help="The same with the host's entropy: no two runs are equal.")
@click.option("--virtio-console", is_flag=True, help="A virtio console (hvc0) beside the serial port.")
@click.option("--symbols", metavar="FILE", help="The kernel's symbols, if its file has none: a System.map or vmlinux.")
@click.option("--reboot", is_flag=True, help="Start the kernel again when it asks for a reset.")
@click.option("--seed", default=0, show_default=True, help="How vCPUs interleave; the same seed gives the same run.")
@click.option(
    "--realtime/--no-realtime",
    default=None,
    help="Whether guest time goes with the wall clock; if not it jumps over idle time.  [default: on a terminal]",
)
@click.option(
    "--start-time",
    type=int,
    metavar="SECONDS",
    help="The guest's date at first, since 1970.  [default: 2026, in real time now]",
)
@click.option("--trace", metavar="KINDS", help="A line for each event: hypercall, fixup, msr, exit, all; with commas.")
@click.option("--trace-file", metavar="FILE", help="Where the trace goes.  [default: stderr]")
@click.option("--stats", is_flag=True, help="At the end: instructions, exits, fix-ups, time.")
@click.option("--json", "as_json", is_flag=True, help="At the end: the result as JSON, on stderr.")
@click.option("--max-instructions", type=int, metavar="N", help="Stop after so many, of all vCPUs together.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Stop after so long.")
@click.option("--gdb", metavar="[HOST:]PORT", help="Wait for gdb there, and run as it wants; without a host, locally.")
def run(
    kernel: str | None,
    arguments: Sequence[str],
    host: str,
    cpus: int,
    memory: str,
    interfaces: Sequence[str],
    policy: str,
    cpu: str,
    initrd: str | None,
    append: str,
    firmware: str | None,
    debugcon: str | None,
    protocol: str | None,
    disks: Sequence[str],
    rng: bool,
    real_rng: bool,
    virtio_console: bool,
    symbols: str | None,
    reboot: bool,
    seed: int,
    realtime: bool | None,
    start_time: int | None,
    trace: str | None,
    trace_file: str | None,
    stats: bool,
    as_json: bool,
    max_instructions: int | None,
    timeout: float | None,
    gdb: str | None,
) -> int:
    """Run KERNEL: a Linux bzImage or vmlinux, or any multiboot or PVH kernel. ARGS go to its command line. Or run
    firmware, which boots from a disk.

    Its serial port is stdout; everything of paravirt's own goes to stderr. The status is the one that the kernel
    writes to isa-debug-exit (port 0xF4), as in QEMU (value << 1) | 1: a test kernel's success is 1. Without that it is
    0; 120 after a crash or kernel panic, 122 after a triple fault, 124 at a limit, 130 after Ctrl-C, 2 if the kernel
    could not be started.

    On a terminal every key is the guest's, but for Ctrl-A X, which ends it, and Ctrl-A H for help.
    """
    from paravirt.cli.interactive import attached_input, is_interactive
    from paravirt.machine import Machine  # Not needed for --help.
    from paravirt.trace import Tracer

    image, protocol = choose_image(kernel, firmware, protocol)
    console = _console_descriptor()
    with _trace_stream(trace_file) as stream, open_debug_console(debugcon) as debug_console:
        machine = Machine(
            host=host,
            cpus=cpus,
            memory=memory,
            interfaces=make_interfaces(interfaces),
            policy=policy,
            cpu=cpu,
            seed=seed,
            realtime=is_interactive() if realtime is None else realtime,
            reboot=reboot,
            start_unix_ns=None if start_time is None else start_time * 10**9,
            devices=make_devices(disks, rng=rng, real_rng=real_rng, virtio_console=virtio_console),
            console=console,
            debug_console=debug_console,
            trace=Tracer(stream, trace) if trace is not None else None,
        )
        with machine:
            machine.boot(image, args=arguments, append=append, initrd=initrd, protocol=protocol, symbols=symbols)
            try:
                with attached_input(machine):
                    result = _run(machine, gdb, max_instructions=max_instructions, timeout=timeout)
            except KeyboardInterrupt:
                sys.stderr.write("paravirt: interrupted\n")
                return STATUS_INTERRUPTED
            sys.stderr.write(report.describe_end(machine, result))
            if result.reason is StopReason.CRASH and not _shows_console():
                sys.stderr.write(report.describe_last_lines(machine))
            sys.stderr.writelines(f"paravirt: {line}\n" for plugged in machine.devices for line in plugged.problems())
            if stats:
                sys.stderr.write(report.describe_statistics(result))
            if as_json:
                import json

                sys.stderr.write(json.dumps(report.result_as_dict(machine, result)) + "\n")
            return result.status


def _run(machine: Machine, gdb: str | None, *, max_instructions: int | None, timeout: float | None) -> Result:
    if gdb is None:
        return machine.run(max_instructions=max_instructions, timeout=timeout)
    if max_instructions is not None or timeout is not None:
        raise ConfigurationError("--gdb goes with no --max-instructions and no --timeout: gdb decides", option="gdb")
    from paravirt.debugger import GdbServer

    with GdbServer(machine, gdb) as server:
        sys.stderr.write(f"paravirt: waiting for gdb: target remote {server.address}\n")
        return server.run()


def _shows_console() -> bool:
    """Whether whoever reads stderr has the guest's console before their eyes: a terminal, or the same file."""
    return os.isatty(1) or os.path.sameopenfile(1, 2)


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
