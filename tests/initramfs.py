"""An initial RAM disk with one program in it, busybox, and a script that is the first process. Needs no privileges."""

from __future__ import annotations

import gzip
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

MAGIC = b"070701"
"""The "new ASCII" format of cpio (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
TRAILER = "TRAILER!!!"

APPLETS = """[ awk bc cat cut date dd devmem dmesg echo free grep gunzip gzip head hwclock insmod ls md5sum mknod mount
nproc poweroff ps reboot sed seq sh sha256sum sleep tail time tr true uname wc"""


@dataclass(frozen=True)
class _Entry:
    """One file: its mode with the type, content, and for a device its numbers."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def _encode(number: int, entry: _Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (
        *(number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0),
        *(*entry.device, len(name), 0),
    )
    header = MAGIC + b"".join(b"%08x" % field for field in fields)
    return _pad(header + name) + _pad(entry.data)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _archive(entries: Sequence[_Entry]) -> bytes:
    numbered = enumerate((*entries, _Entry(TRAILER, 0)), 1)
    return b"".join(_encode(number, entry) for number, entry in numbered)


def write_initramfs(busybox: bytes, init: str, files: Mapping[str, bytes] | None = None) -> bytes:
    """Return a gzip-compressed initramfs. init: a script for busybox's shell. files: more, executable, by path."""
    names = {"bin", "dev", "proc", "sys", "tmp"}
    names |= {str(parent) for path in files or {} for parent in PurePosixPath(path).parents} - {"."}
    directories = [_Entry(name, stat.S_IFDIR | 0o755) for name in sorted(names)]
    devices = [
        _Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        _Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3)),
        _Entry("dev/ttyS0", stat.S_IFCHR | 0o600, device=(4, 64)),
    ]
    programs = [_Entry("bin/busybox", stat.S_IFREG | 0o755, busybox)]
    programs += [_Entry(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox") for applet in APPLETS.split()]
    programs += [_Entry("init", stat.S_IFREG | 0o755, init.encode())]
    programs += [_Entry(path, stat.S_IFREG | 0o755, data) for path, data in (files or {}).items()]
    return gzip.compress(_archive([*directories, *devices, *programs]), mtime=0)
