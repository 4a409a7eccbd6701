"""What can be plugged in: what is refused and why, what it does to files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import paravirt as pv
from paravirt.devices import parse_disk


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def plug(*devices: pv.Device | str) -> pv.Machine:
    return pv.Machine(memory="4M", devices=devices)


def refused(text: str) -> pytest.RaisesExc[pv.ConfigurationError]:
    return pytest.raises(pv.ConfigurationError, match=f"^{re.escape(text)}$")


# -- what a disk may be


def test_missing_file(tmp_path: Path) -> None:
    path = str(tmp_path / "none.img")
    with refused(f"disk {path!r} cannot be opened: no such file or directory"):
        plug(pv.Disk(path))


def test_not_a_file(tmp_path: Path) -> None:
    """A directory cannot be written, and is no disk for reading either; a FIFO is not waited for."""
    with refused(f"disk {str(tmp_path)!r} is neither a file nor a block device"):
        plug(pv.Disk(tmp_path, readonly=True))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with refused(f"disk {str(fifo)!r} is neither a file nor a block device"):
        plug(pv.Disk(fifo))
    with refused("disk 'a\\x00b' is not the name of a file"):
        plug(pv.Disk("a\0b"))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "is empty; `truncate -s 64M FILE` makes a disk of it"),
        (1000, "has 1000 bytes, not a whole number of 512-byte sectors; `truncate -s %512 FILE` makes it longer"),
    ],
)
def test_size(tmp_path: Path, size: int, text: str) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with refused(f"disk {str(path)!r} {text}"):
        plug(pv.Disk(path))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everything")
def test_not_writable(image: Path) -> None:
    image.chmod(0o444)
    with refused(f"disk {str(image)!r} cannot be opened: permission denied; readonly or snapshot would do"):
        plug(pv.Disk(image))
    plug(pv.Disk(image, snapshot=True)).close()


def test_modes_exclude_each_other(image: Path) -> None:
    with refused(f"disk {str(image)!r} is either readonly or a snapshot"):
        pv.Disk(image, readonly=True, snapshot=True)


def test_limit_is_a_size(image: Path) -> None:
    with pytest.raises(pv.ConfigurationError, match="cannot have a snapshot limit of 'much'"):
        pv.Disk(image, snapshot_limit="much")


# -- locks


def test_one_writer(image: Path) -> None:
    """A file that is written belongs to one machine until that is closed."""
    first = plug(pv.Disk(image))
    text = f"disk {str(image)!r} is in use by another machine; with snapshot or readonly for all, several can"
    for device in (pv.Disk(image), pv.Disk(image, readonly=True)):
        with refused(text):
            plug(device)
    first.close()
    plug(pv.Disk(image)).close()


def test_many_readers(image: Path) -> None:
    machines = [plug(pv.Disk(image, snapshot=True)), plug(pv.Disk(image, readonly=True))]
    with pytest.raises(pv.ConfigurationError, match="in use"):
        plug(pv.Disk(image))
    for machine in machines:
        machine.close()


def test_failure_gives_back(image: Path) -> None:
    """A machine that cannot be made leaves no lock behind."""
    with pytest.raises(pv.ConfigurationError):
        plug(pv.Disk(image), pv.Disk("/none"))
    plug(pv.Disk(image)).close()


# -- the bus


def test_order_and_number(image: Path) -> None:
    """Devices take slots in their order; there are 29."""
    machine = plug("debug-exit", pv.Disk(image, readonly=True), pv.Entropy(), pv.VirtioConsole())
    assert [plugged.slot for plugged in machine.devices] == [2, 3, 4]
    assert repr(machine.devices[1]) == "<Entropy() in PCI slot 3>"
    assert [plugged.problems() for plugged in machine.devices] == [[], [], []]
    with refused("cannot add Entropy(): all PCI slots are taken"):
        plug(*[pv.Entropy()] * 30)


def test_one_console() -> None:
    with refused("cannot add VirtioConsole(): the machine has a virtio console already"):
        plug(pv.VirtioConsole(), pv.VirtioConsole())


def test_one_name_is_a_list_too() -> None:
    with pytest.raises(pv.ConfigurationError, match="unknown device 'gpu'"):
        pv.Machine(memory="4M", devices="gpu")


# -- the option


@pytest.mark.parametrize(
    ("text", "path", "readonly", "snapshot", "id"),
    [
        ("a.img", "a.img", False, False, "a.img"),
        ("/x/a.img,readonly", "/x/a.img", True, False, "a.img"),
        ("a.img,snapshot,id=root", "a.img", False, True, "root"),
        ("a,b.img,snapshot", "a,b.img", False, True, "a,b.img"),
        ("a,snapshot=no", "a,snapshot=no", False, False, "a,snapshot=no"),
    ],
)
def test_parse_disk(text: str, path: str, readonly: bool, snapshot: bool, id: str) -> None:
    disk = parse_disk(text)
    assert (disk.path, disk.readonly, disk.snapshot, disk.id) == (path, readonly, snapshot, id)


def test_parse_limit() -> None:
    assert parse_disk("a,snapshot,limit=2M").snapshot_limit == 2 << 20
    with refused("disk ',readonly' names no file"):
        parse_disk(",readonly")
