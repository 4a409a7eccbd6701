"""Fixtures for tests of whole guests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paravirt as pv
from paravirt.guest import build_guest

from ..linux_files import REQUIRED_VARIABLE, LinuxFilesMissing, find_busybox, find_kernel, read_module
from .debug_server import DebugServer, Serve
from .support import GUESTS, MAX_INSTRUCTIONS, BuildGuest, GuestRun, RunGuest, SumInterface


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> BuildGuest:
    """Compile tests/guests/NAME.c, once for each width; returns the image's path."""
    directory = tmp_path_factory.mktemp("guests")

    def image(name: str, bits: int = 64) -> Path:
        path = directory / f"{name}-{bits}.elf"
        return path if path.exists() else build_guest([GUESTS / f"{name}.c"], path, bits=bits, flags=["-Werror"])

    return image


@pytest.fixture
def run_guest(guest_image: BuildGuest) -> RunGuest:
    """Run tests/guests/NAME.c with arguments until it ends; options are those of Machine."""

    def run(name: str, *arguments: str, bits: int = 64, **options: Any) -> GuestRun:
        options.setdefault("interfaces", [SumInterface()])
        machine = pv.Machine(**options)
        machine.boot(guest_image(name, bits), args=arguments)
        result = machine.run(max_instructions=MAX_INSTRUCTIONS)
        return GuestRun(machine, result, machine.console.text)

    return run


def _required(path: Path | LinuxFilesMissing) -> Path:
    if isinstance(path, Path):
        return path
    if os.environ.get(REQUIRED_VARIABLE):
        pytest.fail(str(path))
    pytest.skip(str(path))


@pytest.fixture(scope="session")
def linux() -> Path:
    """A distribution's kernel."""
    try:
        return find_kernel()
    except LinuxFilesMissing as error:
        return _required(error)


@pytest.fixture(scope="session")
def busybox() -> bytes:
    """A static busybox, for a guest's userland."""
    try:
        return find_busybox().read_bytes()
    except LinuxFilesMissing as error:
        return _required(error).read_bytes()


@pytest.fixture(scope="session")
def linux_module(linux: Path) -> Callable[[str], bytes]:
    """A function that returns one of the kernel's modules by its name."""

    def module(name: str) -> bytes:
        try:
            return read_module(linux, name)
        except LinuxFilesMissing as error:
            return _required(error).read_bytes()

    return module


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Let machines wait for gdb until the test's end: `serve(image, *arguments, **options)`."""
    servers: list[DebugServer] = []

    def start(image: Path, *arguments: str, **options: Any) -> DebugServer:
        servers.append(DebugServer(image, *arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(params=["intel", "amd"])
def host(request: pytest.FixtureRequest) -> str:
    """Both kinds of silicon with virtualization."""
    return str(request.param)


@pytest.fixture(params=[64, 32])
def bits(request: pytest.FixtureRequest) -> int:
    """Both widths of guest code."""
    return int(request.param)


@pytest.fixture
def foreign(host: str) -> str:
    """The instruction that is foreign to the host."""
    return {"intel": "vmmcall", "amd": "vmcall"}[host]
