"""A user and a debugger at a distribution's Linux."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import pytest

import paravirt as pv

from ..initramfs import write_initramfs
from .debug_server import Serve, gdb
from .pseudo_terminal import PseudoTerminal

SHELL_INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
while true; do busybox setsid busybox cttyhack sh; done
"""
PAGE = b"".join(b"line %04d of what was pasted in one go\r" % number for number in range(500))
PROMPT = b"/ # "
COMPLAINTS = "unstable|lockup|stall|WARNING|overrun"


@pytest.mark.slow
def test_a_shell_to_work_with(linux: Path, busybox: bytes, tmp_path: Path) -> None:
    """Keys, Ctrl-C for the program there, a pasted page, SysRq by a break, sleeping in real time; and Ctrl-A X."""
    initrd = tmp_path / "initrd.gz"
    initrd.write_bytes(write_initramfs(busybox, SHELL_INIT))
    options = ("--initrd", initrd, "--append", "console=ttyS0 quiet", "-m", "256M", "-c", "2")
    with PseudoTerminal(["run", linux, *options]) as user:
        user.expect(PROMPT)

        user.press(b"echo $((6 * 7)) | tee /dev/null\r")
        user.expect(b"42\r")
        user.expect(PROMPT)

        user.press(b"sh -c 'echo sle''eps; sleep 1000'\r")
        user.expect(b"sleeps")
        user.press(b"\x03")
        user.expect(PROMPT)

        user.press(b"cat > /tmp/page\r")
        user.expect(b"/tmp/page")
        paste = threading.Thread(target=user.press, args=(PAGE + b"\x04",))
        paste.start()
        user.expect(b"line 0499 of")
        user.expect(PROMPT)
        paste.join()
        user.press(b"md5sum < /tmp/page\r")
        user.expect(hashlib.md5(PAGE.replace(b"\r", b"\n")).hexdigest().encode())
        user.expect(PROMPT)

        user.press(b"\x01bh")
        user.expect(b"sysrq: HELP")

        user.press(f"dmesg | grep -cE '{COMPLAINTS}'\r".encode())
        user.expect(b"\n0\r")
        user.press(b"\x01x")
        assert user.wait() == 0


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed (apt-get install gdb)")
@pytest.mark.slow
def test_gdb(linux: Path, serve: Serve) -> None:
    """Before the kernel has built its page tables, behind that, and when the other CPU has come."""
    server = serve(linux, cpus=2, memory="256M", append="console=ttyS0 nokaslr")
    symbols = server.machine.symbols
    said = gdb(
        None,
        server.port,
        "print $cr0 & 0x80000001",
        f"hbreak *{symbols['start_kernel']:#x}",
        "continue",
        "print $cr0 & 0x80000001",
        "x/s (char *)" + hex(symbols["linux_banner"]),
        "stepi",
        "info threads",
        f"break *{symbols['kernel_init']:#x}",
        "continue",
        "monitor info",
        "kill",
    )
    assert "$1 = 1\n" in said
    assert "hit Breakpoint 1" in said
    assert "$2 = 2147483649\n" in said
    assert '"Linux version ' in said
    assert "(cpu1 waiting to be started)" in said
    assert "<kernel_init>" in said
    assert server.join().reason is pv.StopReason.STOPPED
