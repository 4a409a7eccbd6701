"""Engines: what executes vCPUs.

An engine is a `Vm` driven by exits: it runs guest code until something above it must be decided, and takes the answer
with the next run. There is one today, the software CPU; a machine never falls back from one engine to another.
"""

from __future__ import annotations

from dataclasses import dataclass

from paravirt import _native
from paravirt._version import __version__
from paravirt.errors import ConfigurationError, EngineError

__all__ = ["SOFT", "Engine", "find_engine"]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine by name, as results tell it."""

    name: str
    description: str

    def create_vm(
        self, *, cpus: int, memory_bytes: int, host: str, seed: int, tsc_khz: int, start_unix_ns: int
    ) -> _native.Vm:
        """Make a machine's vCPUs, memory and board. Raises EngineError if the host has no room for it."""
        _check_native_version()
        try:
            return _native.Vm(
                cpus=cpus,
                memory_bytes=memory_bytes,
                host=host,
                seed=seed,
                tsc_khz=tsc_khz,
                start_unix_ns=start_unix_ns,
            )
        except _native.HostError as error:
            raise EngineError(f"the host cannot give this machine: {error}") from error


SOFT = Engine("soft", "software CPU, needs nothing of the host")

_ENGINES = {SOFT.name: SOFT}


def find_engine(name: str) -> Engine:
    """Return the engine of that name. Raises ConfigurationError if there is none."""
    try:
        return _ENGINES[name]
    except KeyError:
        raise ConfigurationError(
            f"unknown engine {name!r}; known: {', '.join(_ENGINES)}", option="engine", value=name
        ) from None


def _check_native_version() -> None:
    if __version__ != _native.VERSION:
        raise EngineError(
            f"the native module is version {_native.VERSION!r} but the package is {__version__!r}; reinstall paravirt"
        )
