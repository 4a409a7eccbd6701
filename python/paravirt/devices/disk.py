"""A disk: a raw image that the guest sees as a virtio block device."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from paravirt.devices.base import Device, Plugged
from paravirt.errors import ConfigurationError
from paravirt.memory import parse_memory_size

if TYPE_CHECKING:
    from paravirt._native import Vm

__all__ = ["Disk", "parse_disk"]

SECTOR = 512
ID_BYTES = 20


class Disk(Device):
    """A virtio disk (Linux: `/dev/vda` and so on, in the order of the devices) with the bytes of a raw image.

        vm = pv.Machine(devices=[pv.Disk("root.img"), pv.Disk("tools.squashfs", readonly=True)])

    path: the image, a whole number of 512-byte sectors; or a block device. readonly: the guest is told, and writes
    fail. snapshot: what the guest writes is kept in memory and gone with the machine, and the file stays as it is; up
    to snapshot_limit (bytes, or text such as `"1G"`), beyond which the guest gets I/O errors. id: what the guest reads
    as the disk's serial number, up to 20 bytes; the file's name by default.

    Without either the file is written at once, and is on the host's disk after each flush of the guest. It is locked
    (flock) while the machine has it: one machine may write to it, or several read. What the host cannot do (no space,
    the file has shrunk) is an I/O error for the guest, and told at the end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        snapshot: bool = False,
        snapshot_limit: int | str = "1G",
        id: str | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.readonly = readonly
        self.snapshot = snapshot
        self.id = Path(self.path).name if id is None else id
        try:
            self.snapshot_limit = parse_memory_size(snapshot_limit)
        except ConfigurationError as error:
            raise self._error(f"cannot have a snapshot limit of {snapshot_limit!r}: {error}") from error
        if readonly and snapshot:
            raise self._error("is either readonly or a snapshot")

    def plug(self, vm: Vm, seed: int) -> Plugged:
        """Open and lock the file, and add it. Raises ConfigurationError if it cannot be a disk."""
        fd = self._open()
        try:
            self._check(fd)
            slot = vm.add_disk(
                fd,
                readonly=self.readonly,
                snapshot_bytes=self.snapshot_limit if self.snapshot else None,
                id=self.id.encode()[:ID_BYTES].decode(errors="ignore"),
            )
        except BaseException:
            os.close(fd)
            raise
        return _PluggedDisk(self, slot, vm, fd)

    def _open(self) -> int:
        only_reads = self.readonly or self.snapshot
        try:
            # Without O_NONBLOCK a FIFO would wait for somebody at its other end.
            return os.open(self.path, (os.O_RDONLY if only_reads else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            advice = "" if only_reads or isinstance(error, FileNotFoundError) else "; readonly or snapshot would do"
            raise self._error(f"cannot be opened: {(error.strerror or '').lower()}{advice}") from error
        except ValueError as error:
            raise self._error("is not the name of a file") from error

    def _check(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise self._error("is neither a file nor a block device")
        size = os.lseek(fd, 0, os.SEEK_END)
        if size == 0:
            raise self._error("is empty; `truncate -s 64M FILE` makes a disk of it")
        if size % SECTOR:
            advice = f"`truncate -s %{SECTOR} FILE` makes it longer"
            raise self._error(f"has {size} bytes, not a whole number of {SECTOR}-byte sectors; {advice}")
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if self.readonly or self.snapshot else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._error("is in use by another machine; with snapshot or readonly for all, several can") from error
        except OSError:
            pass  # A file system without locks.

    def _error(self, text: str) -> ConfigurationError:
        return ConfigurationError(f"disk {self.path!r} {text}", option="devices", value=self.path)

    def __repr__(self) -> str:
        mode = ", readonly=True" if self.readonly else ", snapshot=True" if self.snapshot else ""
        return f"Disk({self.path!r}{mode})"


class _PluggedDisk(Plugged):
    def __init__(self, device: Disk, slot: int, vm: Vm, fd: int) -> None:
        super().__init__(device, slot)
        self._name = device.path
        self._vm = vm
        self._fd: int | None = fd

    def problems(self) -> list[str]:
        failures = self._vm.take_disk_failures(self.slot)
        if failures is None:
            return []
        count, reason = failures
        requests = "a request" if count == 1 else f"{count} requests"
        return [f"disk {self._name!r}: {requests} failed, the first with: {reason}"]

    def unplug(self) -> None:
        if self._fd is not None:
            # The board has a duplicate, so that closing ours would not end the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None


def parse_disk(text: str) -> Disk:
    """Return the disk that `FILE`, `FILE,readonly` or `FILE,snapshot` means.

    More words give `id=TEXT` and `limit=SIZE`, the latter of what a snapshot keeps. A file whose name ends so is given
    as `FILE,id=NAME`. Raises ConfigurationError.
    """
    path = text
    options: dict[str, str] = {}
    while "," in path:
        head, word = path.rsplit(",", 1)
        key, _, value = word.partition("=")
        if key not in {"readonly", "snapshot", "id", "limit"} or (key in {"readonly", "snapshot"}) == bool(value):
            break
        options.setdefault(key, value)
        path = head
    if not path:
        raise ConfigurationError(f"disk {text!r} names no file", option="disk", value=text)
    return Disk(
        path,
        readonly="readonly" in options,
        snapshot="snapshot" in options,
        snapshot_limit=options.get("limit", "1G"),
        id=options.get("id"),
    )
