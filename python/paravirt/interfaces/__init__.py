"""Paravirtual interfaces: one file or folder for each, and `base`, which says what an interface is.

They are imported when they are asked for: a machine pays for those that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from paravirt.errors import UnknownInterfaceError
from paravirt.interfaces.base import Interface

__all__ = ["INTERFACES", "find_interface", "make_interface", "make_interfaces"]

INTERFACES: Mapping[str, str] = {
    "kvm": "paravirt.interfaces.kvm:KVM",
    "kvm-2007": "paravirt.interfaces.kvm_2007:KVM2007",
    "kvm-legacy": "paravirt.interfaces.kvm_legacy:KVMLegacy",
    "hyperv": "paravirt.interfaces.hyperv:HyperV",
    "vmware": "paravirt.interfaces.vmware:VMware",
    "vmware-backdoor": "paravirt.interfaces.vmware:VMwareBackdoor",
    "xen": "paravirt.interfaces.xen:Xen",
    "generic": "paravirt.interfaces.generic:Generic",
    "acrn": "paravirt.interfaces.announced:ACRN",
    "bhyve": "paravirt.interfaces.announced:Bhyve",
    "jailhouse": "paravirt.interfaces.announced:Jailhouse",
    "parallels": "paravirt.interfaces.announced:Parallels",
    "qnx": "paravirt.interfaces.announced:QNX",
    "tcg": "paravirt.interfaces.announced:TCG",
    "virtualbox": "paravirt.interfaces.announced:VirtualBox",
}
"""The built-in interfaces by name, and where they are."""


def find_interface(name: str) -> type[Interface]:
    """Return a built-in interface's class. Raises UnknownInterfaceError."""
    if name not in INTERFACES:
        raise UnknownInterfaceError(name, sorted(INTERFACES))
    module, _, attribute = INTERFACES[name].partition(":")
    found: type[Interface] = getattr(import_module(module), attribute)
    return found


def make_interface(name: str, options: str = "") -> Interface:
    """Make a built-in interface. options: `"key=value,key=value"`, as the command line has them.

    Raises UnknownInterfaceError, and ConfigurationError for an option that it does not have.
    """
    return find_interface(name).from_options(options)


def make_interfaces(interfaces: Iterable[Interface | str] | None) -> list[Interface]:
    """Return interfaces from objects and names; None means KVM alone."""
    if interfaces is None:
        interfaces = ("kvm",)
    return [make_interface(item) if isinstance(item, str) else item for item in interfaces]
