"""Stock gdb on a guest: breakpoints, steps, registers, threads, memory; and clients that are no gdb."""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import paravirt as pv
from paravirt.debugger import GdbServer, parse_address

from .debug_server import TIMEOUT_S, Serve, gdb
from .pseudo_terminal import PseudoTerminal
from .support import BuildGuest

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed (apt-get install gdb)")


@pytest.fixture
def image(guest_image: BuildGuest) -> Path:
    return guest_image("debuggee")


@needs_gdb
def test_breakpoints_registers_memory(image: Path, serve: Serve) -> None:
    """Software and hardware breakpoints stop alike; what gdb reads is so, and what it writes the guest sees."""
    server = serve(image)
    said = gdb(
        image,
        server.port,
        "break visit",
        "continue",
        "print number",
        "backtrace",
        "delete",
        "hbreak visit",
        "continue",
        "print $rdi",
        "set var visited = 1000",
        "finish",
        "delete",
        "continue",
    )
    assert re.search(r"Breakpoint 1, visit \(number=.*1\)", said)
    assert re.search(r"\$1 = 1\n", said)
    assert re.search(r"#1 +\S+ in main", said)
    assert re.search(r"Breakpoint 2, visit \(number=.*2\)", said)
    assert re.search(r"\$2 = 2\n", said)
    assert "Value returned is $3 = 3006" in said
    assert "exited with code 01" in said
    assert server.join().debug_exit == 0
    assert server.machine.console.text.startswith("visited 1014 sum ")


@needs_gdb
def test_steps(image: Path, serve: Serve) -> None:
    """By instruction and by line; the target description has what a kernel developer wants."""
    server = serve(image)
    said = gdb(
        image,
        server.port,
        "break visit",
        "continue",
        "stepi",
        "nexti",
        "print $cr0 & 0x80000001",
        "print $efer & 0x500",
        "print $cs",
        "print $eflags",
        "print $gs_base",
        "set $xmm3.v2_int64[0] = 77",
        "print $xmm3.v2_int64[0]",
        "print $st0",
        "p $mxcsr",
        "monitor info",
        "monitor nonsense",
        "kill",
    )
    assert "$1 = 2147483649\n" in said
    assert "$2 = 1280\n" in said
    assert re.search(r"\$4 = \[.*\]", said)
    assert "$6 = 77\n" in said
    assert re.search(r"^  cpu0 running at 0x[0-9a-f]+ <visit\+0x[0-9a-f]+>, cpl 0$", said, re.MULTILINE)
    assert "unknown command 'nonsense'" in said
    assert server.join().reason is pv.StopReason.STOPPED


@needs_gdb
def test_threads(image: Path, serve: Serve) -> None:
    """vCPUs are threads with their own registers, and a step of one lets the others have their turns."""
    server = serve(image, cpus=2)
    said = gdb(
        image,
        server.port,
        "break work",
        "continue",
        "info threads",
        "stepi 20",
        "continue",
        "info threads",
        "thread apply all print $rsp",
        "delete",
        "continue",
    )
    stops = re.findall(r"Thread (\d) hit Breakpoint 1", said)
    assert sorted(stops) == ["1", "2"]
    assert "Thread 1.1 (cpu0 running)" in said
    assert "Thread 1.2 (cpu1 running)" in said
    stacks = re.findall(r"^\$\d+ = .*(0x[0-9a-f]+)", said, re.MULTILINE)
    assert len(set(stacks)) == 2
    assert server.join().ok
    assert "visited 15 sum 105" in server.machine.console.text


@needs_gdb
def test_time_stands_still(image: Path, serve: Serve) -> None:
    """A guest that was debugged did what it does otherwise, to the nanosecond, on one vCPU and on more."""
    for cpus in (1, 2):
        alone = pv.Machine(cpus=cpus)
        alone.boot(image)
        alone.run()
        server = serve(image, cpus=cpus)
        gdb(image, server.port, "break visit", "continue", "continue", "stepi 3", "delete", "continue")
        server.join()
        assert server.machine.console.text == alone.console.text
        assert server.machine.now_ns == alone.now_ns


@needs_gdb
def test_interrupt_and_detach(image: Path, serve: Serve) -> None:
    """gdb stops a guest that runs for ever, lets it go, and comes back."""
    server = serve(image, "loop")
    for _ in range(2):
        said = gdb(
            image,
            server.port,
            "set var $turn = 0",
            "python import threading, os",
            "python threading.Timer(1, lambda: os.kill(os.getpid(), 2)).start()",
            "continue",
            "print visited > 0",
            "detach",
        )
        assert "received signal SIGINT" in said
        assert "$1 = 1\n" in said
    assert gdb(image, server.port, "kill")
    assert server.join().reason is pv.StopReason.STOPPED


@needs_gdb
def test_a_guest_that_died_can_be_looked_at(guest_image: BuildGuest, serve: Serve) -> None:
    """After a triple fault, before it is over; the status is the same as without gdb."""
    image = guest_image("forever")
    server = serve(image, "triple-fault")
    said = gdb(image, server.port, "continue", "backtrace 1", "continue")
    assert "received signal SIGSEGV" in said
    assert re.search(r"#0 .*(triple_fault|main)", said)
    assert "exited with code 0172" in said
    assert server.join().reason is pv.StopReason.TRIPLE_FAULT


def test_command_line(image: Path) -> None:
    """It waits, says where, and is killed by gdb's `k`."""
    command = [sys.executable, "-m", "paravirt", "run", str(image), "--gdb", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().rpartition(" ")[2].strip()
        host, port = parse_address(address)
        assert host == "127.0.0.1"
        with socket.create_connection((host, port)) as connection:
            connection.sendall(b"$k#6b")
            assert process.wait(TIMEOUT_S) == 0


def test_ended_while_waiting(image: Path) -> None:
    """The user need not wait for gdb."""
    with PseudoTerminal(["run", image, "--gdb", "0"]) as user:
        user.expect(b"waiting for gdb: target remote 127.0.0.1:")
        user.press(b"\x01x")
        user.expect(b"terminated")
        assert user.wait() == 0


@pytest.mark.parametrize("address", ["", "x", "1:2:x", "99999", "-1", "localhost:"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(pv.ConfigurationError, match="is not PORT or HOST:PORT"):
        parse_address(address)


def test_addresses() -> None:
    """The loopback unless one says otherwise."""
    assert parse_address("1234") == ("127.0.0.1", 1234)
    assert parse_address(":1234") == ("127.0.0.1", 1234)
    assert parse_address("[::1]:1") == ("::1", 1)
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)


def test_a_port_that_is_taken(image: Path, serve: Serve) -> None:
    server = serve(image)
    with pv.Machine() as machine, pytest.raises(pv.ConfigurationError, match="address already in use"):
        GdbServer(machine, str(server.port))


def test_clients_that_are_no_gdb(image: Path, serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    """Noise, endless packets, and those that go at once: the server waits for the next, and the guest is untouched."""
    server = serve(image)
    noise = random.Random(1)
    before = server.machine.state_hash()
    for data in (
        b"",
        b"POST / HTTP/1.1\r\n\r\n+$k#6b",
        b"$" + b"A" * 100_000,
        b"$m0,ffffffffffffffff#" + b"00",
        *(b"$" + noise.randbytes(200) + b"#00" for _ in range(20)),
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except OSError:
                pass  # It was hung up on.
    assert server.machine.state_hash() == before
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"+$?#3f")
        time.sleep(0.2)
        assert b"T05" in connection.recv(4096)
        with socket.create_connection(("127.0.0.1", server.port)) as second:
            assert second.recv(10) == b"", "one gdb at a time"
        connection.sendall(b"+$vCont;c#a8")
        assert server.join().debug_exit == 0
    assert "does not speak its protocol" in capfd.readouterr().err
