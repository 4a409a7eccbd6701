"""The command line: statuses, streams, and one clear line for everything that goes wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from paravirt.interfaces import INTERFACES

from .support import BuildGuest

COMMAND = (sys.executable, "-m", "paravirt")
EM_ARM = 40


def paravirt(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )


def expect_error(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Nothing on stdout, one line on stderr, status 2."""
    assert done.stderr == f"paravirt: error: {message}\n"
    assert done.stdout == ""
    assert done.returncode == 2


# -- what goes well


def test_version() -> None:
    done = paravirt("--version")
    assert re.fullmatch(r"paravirt \d+\.\d+\.\d+\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["build", "--help"], ["cpu", "--help"], []])
def test_help(arguments: Sequence[str]) -> None:
    done = paravirt(*arguments)
    assert "Usage: paravirt" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["cpu"], ["run", "--cpu", "help"], ["run", "kernel.elf", "--cpu", "help"]])
def test_models_and_features(arguments: Sequence[str]) -> None:
    """All models and features, wherever one asks."""
    done = paravirt(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  EPYC-Rome       AMD Zen 2, 2019; also zen2, znver2\n" in done.stdout
    assert re.search(r"^  .* smep .*\n(.*\n)+Features with a name that are not implemented:", done.stdout, re.MULTILINE)


def test_what_a_cpu_is() -> None:
    """Its signature, and all features, the switched ones too."""
    done = paravirt("cpu", "zen2,-smap", "--host", "intel")
    assert "  AuthenticAMD, family 23, model 49, stepping 0\n" in done.stdout
    features = set(done.stdout.partition("Features:\n")[2].partition("\n\n")[0].split())
    assert "smep" in features
    assert "smap" not in features


def test_output_and_status(guest_image: BuildGuest) -> None:
    """The guest's output is stdout, all of it and nothing else; the status is that of isa-debug-exit."""
    done = paravirt("run", guest_image("policy"))
    lines = ["vmcall: result -1000, text unchanged", "vmmcall: result -1000, text changed"]
    assert done.stdout.splitlines() == lines
    assert done.stderr == ""
    assert done.returncode == 1


def test_arguments(guest_image: BuildGuest) -> None:
    """Words behind -- are the kernel's, also those that look like options."""
    done = paravirt("run", guest_image("arguments"), "--cpus", "2", "--", "--cpus", "7", "x")
    assert done.stdout == "arguments-64.elf\n--cpus\n7\nx\n"
    assert done.returncode == 4 << 1 | 1


def test_trace_and_statistics(guest_image: BuildGuest, tmp_path: Path) -> None:
    """A line for each event of the kinds asked for, and figures at the end, all on stderr or in a file."""
    trace = tmp_path / "trace"
    options = ("--trace", "hypercall,fixup", "--trace-file", str(trace), "--stats")
    done = paravirt("run", guest_image("policy"), "--host", "amd", *options)
    lines = trace.read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["fixup", "hypercall", "hypercall"]
    assert "0f 01 c1 -> 0f 01 d9" in lines[0]
    assert re.search(r"^instructions +[\d,]+$", done.stderr, re.MULTILINE)
    assert re.search(r"^fix-ups +1$", done.stderr, re.MULTILINE)


def test_json(guest_image: BuildGuest) -> None:
    """The result for programs."""
    report = json.loads(paravirt("run", guest_image("policy"), "--host", "amd", "--json").stderr)
    assert (report["reason"], report["status"], report["debug_exit"]) == ("debug-exit", 1, 0)
    assert (report["engine"], report["host"]) == ("soft", "amd")
    assert report["instructions"] > 1000
    (fixup,) = report["fixups"]
    assert (fixup["found"], fixup["replaced"], fixup["action"]) == ("0f01c1", "0f01d9", "patch")


def test_interface_of_ones_own(guest_image: BuildGuest, tmp_path: Path) -> None:
    """A class in a file is an interface too, beside KVM or alone."""
    file = tmp_path / "own.py"
    file.write_text(
        "import paravirt as pv\n"
        "class Sum(pv.Interface):\n"
        "    signature = b'SUMSUMSUMSUM'\n"
        "    @pv.hypercall(0x100)\n"
        "    def sum(self, vcpu: pv.Vcpu, a: int, b: int, c: int, d: int) -> int:\n"
        "        return a + 2 * b + 3 * c + 4 * d\n"
    )
    done = paravirt("run", guest_image("policy"), "--interface", "kvm", "--interface", f"{file}:Sum")
    assert done.stdout.startswith("vmcall: result 1506")


def expect_end(done: subprocess.CompletedProcess[str], status: int, end: str, place: str) -> None:
    """One line that says why the run ended (a pattern), and one for each vCPU that says where it is."""
    assert done.returncode == status
    assert re.fullmatch(rf"paravirt: {end}\n  cpu0 {place} at 0x[0-9a-f]+ <\w+(\+0x[0-9a-f]+)?>, cpl 0\n", done.stderr)


def test_limits(guest_image: BuildGuest) -> None:
    """A guest that never ends is ended, with timeout(1)'s status."""
    done = paravirt("run", guest_image("forever"), "--max-instructions", "1000000")
    expect_end(done, 124, "stopped after 1,000,000 instructions", "running")
    done = paravirt("run", guest_image("forever"), "--timeout", "0.2")
    expect_end(done, 124, r"stopped after \d+\.\d s", "running")


def test_halted(guest_image: BuildGuest) -> None:
    """HLT with interrupts off and nothing to wake it is an end."""
    done = paravirt("run", guest_image("forever"), "--", "halt")
    expect_end(done, 0, "the guest is halted and nothing can wake it", "halted")


def test_triple_fault(guest_image: BuildGuest) -> None:
    """The CPU's state and the way to it."""
    done = paravirt("run", guest_image("forever"), "--", "triple-fault")
    assert done.returncode == 122
    lines = done.stderr.splitlines()
    assert re.match(r"paravirt: triple fault on cpu0 at 0x[0-9a-f]+ <\w+", lines[0])
    assert any(line.strip().startswith("rip ") for line in lines)
    assert any(re.search(r"cr0 [0-9a-f]+  cr2 ", line) for line in lines)
    assert any(re.search(r"<triple_fault(\+0x[0-9a-f]+)?>: \d+ instructions", line) for line in lines)


# -- what goes wrong


def elf32(machine: int, entry: int = 0x100000) -> bytes:
    """A multiboot ELF file with one segment at 1 MiB, for any architecture."""
    segment = struct.pack("<IIi", 0x1BADB002, 0, -0x1BADB002) + b"\xf4" * 4
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, entry, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    program = struct.pack("<IIIIIIII", 1, 84, 0x100000, 0x100000, len(segment), len(segment), 5, 1)
    return header + program + segment


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, world\n", "no kernel: neither a Linux bzImage, a multiboot image nor an ELF file"),
        (b"\x7fELF\x01\x01", "truncated within its ELF header"),
        (elf32(EM_ARM), "an ELF file for ARM, not for x86"),
        (
            elf32(3).replace(b"\x02\xb0\xad\x1b", bytes(4)),
            "an ELF file with neither a multiboot header in its first 8192 bytes nor a PVH note",
        ),
        (elf32(3, entry=0x200000), "entry point 0x200000 is in none of its segments"),
        (elf32(3)[:-3], "truncated: segment 0 ends at 0x64 in the file, which has 0x61 bytes"),
    ],
)
def test_bad_image(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(content)
    expect_error(paravirt("run", path), f"{str(path)!r}: {message}")


def test_image_too_large_for_memory(guest_image: BuildGuest) -> None:
    path = guest_image("policy")
    done = paravirt("run", path, "--memory", "1M")
    assert re.fullmatch(
        rf"paravirt: error: '{path}': a segment needs memory from 0x1\w+ to 0x\w+, outside the machine's 1 MiB\n",
        done.stderr,
    )
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "0"], "memory '0' is too small; the least is '1M'"),
        (["--memory", "lots"], "memory 'lots' is not a size; write it as '64M' or '1G'"),
        (["--cpus", "0"], "cpus 0 is not a number from 1 to 255"),
        (["--cpus", "1000"], "cpus 1000 is not a number from 1 to 255"),
        (["--host", "cyrix"], "unknown host 'cyrix'; known: intel, amd, lguest"),
        (["--interface", "acme"], f"unknown interface 'acme'; known: {', '.join(sorted(INTERFACES))}"),
        (["--interface", "nothing.py:Class"], "cannot read 'nothing.py': no such file"),
        (["--policy", "pray"], "unknown policy 'pray'; known: patch, emulate, strict, reject"),
        (["--max-instructions", "0"], "max_instructions 0 is not a number from 1 to 9223372036854775807"),
        (["--timeout", "-1"], "timeout -1.0 is not above 0 seconds"),
        (["--cpu", "haswell,+la57,-lm"],
         "cpu feature 'la57' needs 'lm': '+la57' and '-lm' exclude each other"),
        (["--initrd", "/nonexistent"], "no such file or directory: '/nonexistent'"),
        (["--trace-file", "/nonexistent/x", "--trace", "all"], "cannot write the trace to '/nonexistent/x': "
         "no such file or directory"),
    ],
)  # fmt: skip
def test_bad_option(guest_image: BuildGuest, tmp_path: Path, arguments: Sequence[str], message: str) -> None:
    expect_error(paravirt("run", guest_image("policy"), *arguments, cwd=tmp_path), message)


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--no-such-option", "x"], ["run", "x", "--cpus", "many"], ["fly"], ["build"]]
)
def test_bad_usage(arguments: Sequence[str]) -> None:
    """Whatever the parser finds is one line of the same form."""
    done = paravirt(*arguments)
    assert re.fullmatch(r"paravirt: error: [^\n]+\n", done.stderr)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("path", ["/nonexistent", "/"])
def test_unreadable_kernel(path: str) -> None:
    reason = {"/nonexistent": "no such file or directory", "/": "is a directory"}[path]
    expect_error(paravirt("run", path), f"{reason}: {path!r}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_kernel(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.touch(mode=0)
    expect_error(paravirt("run", path), f"permission denied: {str(path)!r}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_trace_of_msrs(guest_image: BuildGuest) -> None:
    """Those that the CPU core owns too: the guest enters long mode."""
    trace = paravirt("run", guest_image("policy"), "--trace", "msr").stderr
    assert re.search(r" cpu0 msr +read 0xc0000080 -> 0x0$", trace, re.MULTILINE)
    assert re.search(r" cpu0 msr +write 0xc0000080 <- 0x101$", trace, re.MULTILINE)


def test_full_disk_for_a_trace(guest_image: BuildGuest) -> None:
    """The trace cannot be written: one line, not the guest's success."""
    done = paravirt("run", guest_image("policy"), "--trace", "all", "--trace-file", "/dev/full")
    assert done.stderr == "paravirt: error: cannot write the trace to '/dev/full': no space left on device\n"
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("redirect", [">/dev/full", ">&-", "| true"])
@pytest.mark.parametrize("command", ["run", "help"])
def test_stdout_that_takes_nothing(guest_image: BuildGuest, command: str, redirect: str) -> None:
    """A full disk, a closed stdout, a reader that has gone: never a traceback, never a hang."""
    arguments = f"run {guest_image('policy')}" if command == "run" else "--help"
    script = f"set -o pipefail; {' '.join(COMMAND)} {arguments} {redirect}"
    done = subprocess.run(
        ["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    assert re.fullmatch(r"(paravirt: error: [^\n]+\n)?", done.stderr), done.stderr
    if command == "run" and redirect != "| true":
        assert done.returncode == 2


def test_interrupt_leaves_the_terminal_as_it_was(guest_image: BuildGuest) -> None:
    """Ctrl-C in the middle: at once, status 130, and the terminal's settings are what they were."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [*COMMAND, "run", str(guest_image("forever"))]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell that runs the tests in the background has them ignore SIGINT, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            output = b""
            while b"running" not in output:
                output += os.read(ours, 100)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, b"paravirt: interrupted\n")
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


# -- build


def test_build_says_what_the_compiler_says(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text("int main(void) { return nothing; }\n")
    done = paravirt("build", source, "-o", tmp_path / "bad.elf")
    assert "bad.c:1:" in done.stderr
    assert re.search(r"^paravirt: error: the compiler '\w+' refused the guest$", done.stderr, re.MULTILINE)
    assert done.returncode == 2


def test_build_without_a_source(tmp_path: Path) -> None:
    expect_error(paravirt("build", tmp_path / "none.c"), f"cannot read {str(tmp_path / 'none.c')!r}: no such file")


def test_build_names_the_image_after_the_source(tmp_path: Path) -> None:
    (tmp_path / "tiny.c").write_text("int main(void) { return 3; }\n")
    assert paravirt("build", "tiny.c", cwd=tmp_path).returncode == 0
    assert paravirt("run", "tiny.elf", cwd=tmp_path).returncode == 7
    assert paravirt("build", "--m32", "tiny.c", "-o", "narrow.elf", cwd=tmp_path).returncode == 0
    assert paravirt("run", "narrow.elf", cwd=tmp_path).returncode == 7


def test_build_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.c").write_text("int main(void) { return 3; }\n")
    monkeypatch.setenv("CC", "no-such-compiler")
    expect_error(paravirt("build", tmp_path / "tiny.c"), "there is no compiler 'no-such-compiler'")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    expect_error(
        paravirt("build", tmp_path / "tiny.c"),
        "there is no C compiler: none of cc, gcc, clang is in PATH; install one or set CC",
    )


def test_build_with_a_compiler_for_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that refuses everything, as one for ARM does -m64."""
    (tmp_path / "tiny.c").write_text("int main(void) { return 3; }\n")
    compiler = tmp_path / "arm-cc"
    compiler.write_text("#!/bin/sh\necho 'unrecognized option -m64' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    expect_error(
        paravirt("build", tmp_path / "tiny.c"),
        f"the compiler {str(compiler)!r} cannot make x86 code with -m64; set CC to one that can",
    )
