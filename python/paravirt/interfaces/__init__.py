"""Paravirtual interfaces: one file for each, and `base`, which says what an interface is."""

from __future__ import annotations

from collections.abc import Iterable

from paravirt.errors import UnknownInterfaceError
from paravirt.interfaces.base import Interface
from paravirt.interfaces.kvm import KVM

__all__ = ["INTERFACES", "make_interface", "make_interfaces"]

INTERFACES: dict[str, type[Interface]] = {KVM.name: KVM}
"""The built-in interfaces by name."""


def make_interface(name: str, options: str = "") -> Interface:
    """Make a built-in interface. options: `"key=value,key=value"`, as the command line has them.

    Raises UnknownInterfaceError, and ConfigurationError for an option that it does not have.
    """
    if name not in INTERFACES:
        raise UnknownInterfaceError(name, sorted(INTERFACES))
    return INTERFACES[name].from_options(options)


def make_interfaces(interfaces: Iterable[Interface | str] | None) -> list[Interface]:
    """Return interfaces from objects and names; None means KVM alone."""
    if interfaces is None:
        return [KVM()]
    return [make_interface(item) if isinstance(item, str) else item for item in interfaces]
