"""Reads unittests.cfg of kvm-unit-tests."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_KEY = re.compile(r"(\w+)\s*=\s*(.*)")
_SECTION = re.compile(r"\[(.*)\]")
_QUOTES = '"""'


@dataclass
class UnitTest:
    """One section. Keys that we do not know are kept in `other`."""

    name: str
    file: str = ""
    smp: int = 1
    test_args: str = ""
    qemu_params: str = ""
    arch: str = ""
    timeout: str = ""
    groups: str = ""
    other: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: str) -> None:
        if key == "smp":
            self.smp = int(value)
        elif key in {"extra_params", "qemu_params"}:
            self.qemu_params = value
        elif key in {"file", "test_args", "arch", "timeout", "groups"}:
            setattr(self, key, value)
        else:
            self.other[key] = value

    def arguments(self) -> list[str]:
        """What the test gets. The value is shell text: it may hold quotes and commands in backticks."""
        if not self.test_args:
            return []
        text = f"printf '%s\\n' {self.test_args}"
        done = subprocess.run(["sh", "-f", "-c", text], capture_output=True, text=True, check=True)
        return done.stdout.split()

    def qemu_option(self, name: str) -> str | None:
        """The value of one of QEMU's options, as `-cpu` or `-m`."""
        words = shlex.split(self.qemu_params)
        return words[words.index(name) + 1] if name in words else None


def read_unittests(path: Path) -> Iterator[UnitTest]:
    """Iterate over the sections of a unittests.cfg."""
    test: UnitTest | None = None
    lines = iter(path.read_text().splitlines())
    for line in lines:
        if section := _SECTION.fullmatch(line.strip()):
            if test is not None:
                yield test
            test = UnitTest(section[1])
        elif test is not None and (match := _KEY.match(line)):
            key, value = match.groups()
            if value.startswith(_QUOTES):
                value = _read_quoted(value, lines)
            test.set(key, value.strip())
    if test is not None:
        yield test


def _read_quoted(value: str, lines: Iterator[str]) -> str:
    text = value.removeprefix(_QUOTES)
    while _QUOTES not in text:
        text = text.removesuffix("\\") + " " + next(lines)
    return text.partition(_QUOTES)[0]
