"""The xenstore tree that a guest finds: what xl writes for one without devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.interfaces.xen.abi import DOMID_OWN, DOMID_TOOLS
from paravirt.interfaces.xen.store import Permission, Store
from paravirt.interfaces.xen.xenstore import HOME

if TYPE_CHECKING:
    from paravirt.interfaces.xen.domain import Domain

__all__ = ["fill_store"]

READABLE = (Permission("n", DOMID_TOOLS), Permission("r", DOMID_OWN))
OWN = (Permission("n", DOMID_OWN),)
OWN_NODES = (
    b"data",
    b"device",
    b"drivers",
    b"feature",
    b"attr",
    b"error",
    b"control/shutdown",
    b"control/sysrq",
    b"control/feature-poweroff",
    b"control/feature-reboot",
    b"control/feature-suspend",
    b"control/feature-s3",
    b"control/feature-s4",
    b"device/suspend/event-channel",
)
"""What the guest may write: xl gives these to it, and no others."""


def fill_store(store: Store, domain: Domain) -> None:
    """Write the tree."""
    kib = domain.machine.memory.size // 1024
    nodes = {
        b"vm": b"/vm/" + str(domain.uuid).encode(),
        b"name": b"paravirt",
        b"domid": b"%d" % DOMID_OWN,
        b"memory/static-max": b"%d" % kib,
        b"memory/target": b"%d" % kib,
        b"memory/videoram": b"0",
        b"control/platform-feature-multiprocessor-suspend": b"1",
        b"control/platform-feature-xs_reset_watches": b"1",
        b"console/type": b"xenconsoled",
        b"console/limit": b"1048576",
        b"console/output": b"pty",
    }
    store.mkdir(HOME, DOMID_TOOLS)
    store.set_permissions(HOME, READABLE, DOMID_TOOLS)
    for name, value in nodes.items():
        store.write(HOME + b"/" + name, value, DOMID_TOOLS)
    for number in range(len(domain.vcpus)):
        store.write(HOME + b"/cpu/%d/availability" % number, b"online", DOMID_TOOLS)
    for name in OWN_NODES:
        store.mkdir(HOME + b"/" + name, DOMID_TOOLS)
        store.set_permissions(HOME + b"/" + name, OWN, DOMID_TOOLS)
