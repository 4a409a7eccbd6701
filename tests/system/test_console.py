"""The guest's console on a terminal and on plain streams, in real and in virtual time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import paravirt as pv

from .pseudo_terminal import PseudoTerminal
from .support import BuildGuest

PAGE = b"".join(b"line %d of a page\n" % number for number in range(200))


@pytest.fixture
def image(guest_image: BuildGuest) -> Path:
    return guest_image("terminal")


@pytest.mark.parametrize("way", ["poll", "interrupt"])
def test_typing(image: Path, way: str) -> None:
    """Keys go to the guest one by one, Ctrl-C too; the end is the guest's, and the terminal as before."""
    with PseudoTerminal(["run", image, "--", "echo", way]) as user:
        user.expect(b"ready")
        user.press(b"hello")
        user.expect(b"hello")
        user.press(b"\x03\x01\x01.")
        user.expect(b"\x03\x01.")
        user.press(b"q")
        user.expect(b"done")
        assert user.wait() == 1


@pytest.mark.parametrize("way", ["poll", "interrupt"])
def test_a_pasted_page_arrives_whole(image: Path, way: str) -> None:
    """However much longer than the FIFO it is."""
    with PseudoTerminal(["run", image, "--", "echo", way]) as user:
        user.expect(b"ready\r\n")
        user.press(PAGE[:4000] + b"q")
        assert user.wait() == 1
        assert PAGE[:4000] in user.seen.replace(b"\r\n", b"\n")


def test_typed_ahead(image: Path) -> None:
    """Keys wait for a guest that does not listen yet."""
    with PseudoTerminal(["run", image, "--", "echo", "interrupt"]) as user:
        user.press(b"early")
        user.expect(b"ready")
        user.expect(b"early")
        user.press(b"q")
        assert user.wait() == 1


def test_commands(image: Path) -> None:
    """Help, where the vCPUs are, a break; and Ctrl-A X ends with status 0, as in QEMU."""
    with PseudoTerminal(["run", image, "--", "echo", "interrupt"]) as user:
        user.expect(b"ready")
        user.press(b"\x01h")
        user.expect(b"Ctrl-A X")
        user.press(b"\x01c")
        user.expect(b"cpu0 halted at 0x")
        user.press(b"\x01b")
        user.expect(b"<break>")
        user.press(b"\x01x")
        user.expect(b"paravirt: terminated")
        assert user.wait() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_ended_by_a_signal(image: Path, signum: signal.Signals) -> None:
    """The terminal is restored, and the status says which signal it was."""
    with PseudoTerminal(["run", image, "--", "echo", "poll"]) as user:
        user.expect(b"ready")
        user.process.send_signal(signum)
        assert user.wait() == (130 if signum == signal.SIGINT else -signum)


def test_a_terminal_that_goes(image: Path) -> None:
    """Closing its window ends the guest."""
    with PseudoTerminal(["run", image, "--", "echo", "interrupt"]) as user:
        user.expect(b"ready")
        assert user.hang_up() == -signal.SIGHUP


def test_stopped_and_continued(image: Path) -> None:
    """While stopped the terminal is the shell's; afterwards keys go to the guest again."""
    with PseudoTerminal(["run", image, "--", "echo", "interrupt"]) as user:
        user.expect(b"ready")
        user.process.send_signal(signal.SIGTSTP)
        os.waitid(os.P_PID, user.process.pid, os.WSTOPPED | os.WNOWAIT)
        user.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        user.press(b"back\x03")
        user.expect(b"back\x03")
        user.press(b"q")
        assert user.wait() == 1


def run(image: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "paravirt", "run", str(image), *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("way", ["poll", "interrupt"])
def test_piped(image: Path, way: str) -> None:
    """What is piped is the guest's input, all of it, and the output is unchanged."""
    done = run(image, "--", "echo", way, input=PAGE + b"q")
    assert done.stdout == b"ready\n" + PAGE + b"done\n"
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_end_of_a_pipe_is_no_end(image: Path) -> None:
    """A guest that waits for more is halted for ever, as one that never had input."""
    done = run(image, "--", "echo", "interrupt", input=b"x")
    assert done.stdout == b"ready\nx"
    assert done.stderr.startswith(b"paravirt: the guest is halted and nothing can wake it\n")


def test_input_is_left_to_others(image: Path) -> None:
    """A guest that does not listen leaves a shared stdin to the next command."""
    script = f'"{sys.executable}" -m paravirt run "{image}" -- sleep 1 >/dev/null; cat'
    done = subprocess.run(["sh", "-c", script], input=b"for cat", capture_output=True, timeout=120, check=False)
    assert done.stdout == b"for cat"


@pytest.mark.parametrize("stdin", ["<&-", "< /dev/null"])
def test_no_input(image: Path, stdin: str) -> None:
    """A closed stdin, an empty one: the guest runs without input."""
    command = f'"{sys.executable}" -m paravirt run "{image}" {stdin} -- echo interrupt'
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, check=False)
    assert done.stdout == b"ready\n"
    assert done.stderr.startswith(b"paravirt: the guest is halted and nothing can wake it\n")


def test_input_from_a_file_is_reproducible(image: Path, tmp_path: Path) -> None:
    """It is there from the beginning, so when it arrives depends on the guest alone."""
    (tmp_path / "input").write_bytes(PAGE + b"q")
    hashes = set()
    for _ in range(2):
        with (tmp_path / "input").open("rb") as file, pv.Machine(cpus=2) as machine:
            machine.console.read_from(file.fileno())
            machine.boot(image, args=["echo", "interrupt"])
            machine.run()
            hashes.add((machine.now_ns, machine.state_hash()))
    assert len(hashes) == 1


def sleep(image: Path, realtime: bool) -> tuple[float, float, float, int]:
    """Wall time, CPU time, guest time in s, and the date it began with, of a guest that sleeps for 0.6 s."""
    with pv.Machine(realtime=realtime) as machine:
        machine.boot(image, args=["sleep", "600"])
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        result = machine.run()
        used = resource.getrusage(resource.RUSAGE_SELF)
        assert result.ok
        cpu_s = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
        return result.wall_s, cpu_s, result.virtual_ns / 1e9, machine.start_unix_ns


def test_real_time(image: Path) -> None:
    """Sleeping takes as long for the host, which sleeps too; virtual time is the same as without waiting."""
    wall_s, cpu_s, virtual_s, start_ns = sleep(image, realtime=True)
    assert wall_s >= 0.5
    assert cpu_s < 0.5 * wall_s
    assert abs(start_ns / 1e9 - time.time()) < 600
    assert virtual_s == sleep(image, realtime=False)[2]


def test_waiting_for_keys_is_sleep(image: Path) -> None:
    """No timer and no input: the host sleeps, also in virtual time, and `timeout` ends it."""
    for realtime in (True, False):
        reader, writer = os.pipe()
        with pv.Machine(realtime=realtime) as machine:
            machine.console.read_from(reader)
            machine.boot(image, args=["echo", "interrupt"])
            cpu = time.process_time()
            result = machine.run(timeout=1)
            assert result.reason is pv.StopReason.TIMEOUT
            assert time.process_time() - cpu < 0.5
        os.close(reader)
        os.close(writer)
