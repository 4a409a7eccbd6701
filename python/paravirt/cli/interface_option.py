"""The option `--interface`: a name with options, or a class in a file of the user's."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paravirt.errors import ConfigurationError

if TYPE_CHECKING:
    from paravirt.interfaces.base import Interface

__all__ = ["make_interfaces"]

DEFAULT = ("kvm",)


def make_interfaces(specs: Sequence[str] | None) -> list[Interface]:
    """Return the interfaces that the command line asks for, in its order; KVM if it says nothing.

    A specification is `NAME`, `NAME:OPTION=VALUE,...` or `FILE.py:CLASS`; `none` alone means none at all.
    """
    specs = specs or DEFAULT
    if list(specs) == ["none"]:
        return []
    return [_make_interface(spec) for spec in specs]


def _make_interface(spec: str) -> Interface:
    name, _, rest = spec.partition(":")
    if name.endswith(".py"):
        return _load_class(Path(name), rest)()
    from paravirt.interfaces import make_interface

    return make_interface(name, rest)


def _load_class(path: Path, name: str) -> type[Interface]:
    """Import a file and return one of its classes. What the file itself raises comes out unchanged."""
    from paravirt.interfaces.base import Interface

    if not path.is_file():
        raise ConfigurationError(f"cannot read {str(path)!r}: no such file", option="interface")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"cannot import {str(path)!r}", option="interface")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Interface)):
        raise ConfigurationError(
            f"{str(path)!r} has no interface class {name!r}; write it as FILE.py:CLASS", option="interface"
        )
    return found
