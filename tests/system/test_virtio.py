"""Linux's own drivers with our disks, entropy and console: what they read and write is what the host sees."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import paravirt as pv

from ..initramfs import write_initramfs

TIMEOUT_S = 240

MODULES = (
    *(["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"]),
    *(["virtio_blk", "virtio-rng", "virtio_console"]),
)
"""In an order in which each finds what it needs."""

INIT = f"""\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
for module in {" ".join(MODULES)}; do insmod /tmp/$module.ko; done
cat /sys/bus/pci/devices/*/uevent | grep PCI_ID | cut -d = -f 2 | tr '\\n' ' '; echo
grep -c PCI-MSI.*virtio /proc/interrupts
# Disk a: a file system that the host has made.
busybox mkdir /mnt
mount -t ext4 /dev/vda /mnt && cat /mnt/from-host.txt
dd if=/dev/zero of=/mnt/large bs=1M count=4 2>/dev/null
echo 'written by the guest' > /mnt/from-guest.txt
busybox umount /mnt && echo 'a is unmounted'
# Disk b: a snapshot.
echo "b says $(head -c 16 /dev/vdb), its name is $(cat /sys/block/vdb/serial)"
echo 'overwritten-------' | dd of=/dev/vdb bs=16 count=1 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
echo "b says $(head -c 16 /dev/vdb) now"
# Disk c: read-only.
echo "c is $(cat /sys/block/vdc/ro)"
echo x 2>/dev/null > /dev/vdc || echo 'c cannot be written'
echo "entropy $(dd if=/dev/hwrng bs=32 count=1 2>/dev/null | sha256sum | cut -c 1-16)"
dmesg | grep -E 'WARNING|BUG:|Oops|I/O error|virtio.*(fail|error)' && echo 'dmesg has complaints'
# The console: what was sent before anybody could read it.
head -n 1 < /dev/hvc0 | tr a-z A-Z > /dev/hvc0
poweroff -f
"""

EXPECTED = (
    "8086:1237 8086:7000 8086:7113 1AF4:1042 1AF4:1042 1AF4:1042 1AF4:1044 1AF4:1043",
    "from the host",
    "a is unmounted",
    "b says untouched-------, its name is second",
    "b says overwritten----- now",
    "c is 1",
    "c cannot be written",
    "HELLO FROM THE HOST",
)


@pytest.fixture(scope="module")
def initrd(busybox: bytes, linux_module: Callable[[str], bytes]) -> bytes:
    return write_initramfs(busybox, INIT, {f"tmp/{name}.ko": linux_module(name) for name in MODULES})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system with one file in it."""
    if shutil.which("mkfs.ext4") is None or shutil.which("debugfs") is None:
        pytest.skip("no mkfs.ext4; on Debian: apt-get install e2fsprogs")
    directory = tmp_path_factory.mktemp("image")
    content = directory / "content"
    content.mkdir()
    (content / "from-host.txt").write_text("from the host\n")
    path = directory / "ext4.img"
    path.write_bytes(bytes(16 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", content, path], check=True, capture_output=True)
    return path


def _read_file(image: Path, name: str) -> str:
    command = ["debugfs", "-R", f"cat {name}", str(image)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Run:
    """One boot with disks of its own."""

    def __init__(self, directory: Path, linux: Path, initrd: bytes, image: Path, host: str) -> None:
        self.disk = directory / "a.img"
        self.others = directory / "b.img"
        shutil.copy(image, self.disk)
        self.others.write_bytes(b"untouched-------" * 4096)
        devices = [
            pv.Disk(self.disk),
            pv.Disk(self.others, snapshot=True, id="second"),
            pv.Disk(self.others, readonly=True),
            pv.Entropy(),
            pv.VirtioConsole(),
        ]
        with pv.Machine(host=host, cpus=2, memory="256M", seed=7, devices=devices) as machine:
            machine.boot(linux, append="console=ttyS0 quiet", initrd=initrd)
            machine.console.send("hello from the host\n")
            result = machine.run(timeout=TIMEOUT_S)
            self.text = machine.console.text
            assert result.reason is pv.StopReason.POWER_OFF, self.text[-4000:]
            self.state = machine.state_hash()
            self.problems = [line for plugged in machine.devices for line in plugged.problems()]


@pytest.mark.slow
def test_drivers(tmp_path: Path, linux: Path, initrd: bytes, image: Path, host: str) -> None:
    """A file system on a disk, a snapshot, a read-only disk, entropy and input, with two CPUs and messages."""
    run = Run(tmp_path, linux, initrd, image, host)
    assert [line for line in EXPECTED if line not in run.text] == [], run.text[-4000:]
    assert "dmesg has complaints" not in run.text, run.text
    assert run.problems == []
    assert _read_file(run.disk, "from-guest.txt") == "written by the guest\n"
    assert subprocess.run(["e2fsck", "-fn", run.disk], capture_output=True, check=False).returncode == 0
    assert run.others.read_bytes() == b"untouched-------" * 4096


@pytest.mark.slow
def test_equal_runs(tmp_path: Path, linux: Path, initrd: bytes, image: Path) -> None:
    """The same seed and disk content give the same run, to the last bit of the machine and of the disk."""
    directories = [tmp_path / name for name in ("first", "second")]
    for directory in directories:
        directory.mkdir()
    first, second = (Run(directory, linux, initrd, image, "amd") for directory in directories)
    assert first.text == second.text
    assert first.state == second.state
    assert first.disk.read_bytes() == second.disk.read_bytes()
