"""memory_op: which pages the guest has, and where the hypervisor's are among them (public/memory.h)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from paravirt.boot.layout import e820_map
from paravirt.errors import GuestPointerError
from paravirt.interfaces.xen.abi import Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Argument, Caller
from paravirt.interfaces.xen.section import Section, command

if TYPE_CHECKING:
    from paravirt.interfaces.xen.domain import Domain
    from paravirt.interfaces.xen.grants import Grants

__all__ = ["Memory"]

MAX_ORDER = 9
"""The largest extent of an unprivileged guest: 2 MiB."""


class Space(IntEnum):
    """XENMAPSPACE_*: what add_to_physmap places."""

    SHARED_INFO = 0
    GRANT_TABLE = 1
    GMFN = 2


RESERVATION = Struct(extent_start="ptr", nr_extents="ulong", extent_order="u32", mem_flags="u32", domid="u16")
DOMAIN = Struct(domid="u16")
ADD_TO_PHYSMAP = Struct(domid="u16", size="u16", space="u32", idx="ulong", gpfn="ulong")
REMOVE_FROM_PHYSMAP = Struct(domid="u16", gpfn="ulong")
MEMORY_MAP = Struct(nr_entries="u32", buffer="ptr")
E820_ENTRY = struct.Struct("<QQI")


class Memory(Section):
    """Hypercall 12."""

    def __init__(self, domain: Domain, grants: Grants, moved: Callable[[], None]) -> None:
        super().__init__(domain)
        self._grants = grants
        self._moved = moved

    # -- how much there is

    @command(2)
    def maximum_ram_page(self, caller: Caller, pointer: int) -> int:
        """Return the highest page number of the whole computer."""
        return self.domain.pages.max_frame

    @command(3)
    def current_reservation(self, caller: Caller, pointer: int) -> int:
        """Return how many pages the guest has."""
        self.domain.check_domid(caller.load(DOMAIN, pointer)["domid"])
        return self.domain.pages.num_pages

    @command(4)
    def maximum_reservation(self, caller: Caller, pointer: int) -> int:
        """Return how many pages it may have."""
        self.domain.check_domid(caller.load(DOMAIN, pointer)["domid"])
        return self.domain.machine.memory.size // 4096

    @command(14)
    def maximum_gpfn(self, caller: Caller, pointer: int) -> int:
        """Return its highest page number."""
        self.domain.check_domid(caller.load(DOMAIN, pointer)["domid"])
        return self.domain.pages.max_frame

    @command(9)
    def memory_map(self, caller: Caller, pointer: int) -> int:
        """Tell the map that it was booted with."""
        argument = caller.load(MEMORY_MAP, pointer)
        entries = e820_map(self.domain.machine.memory.ranges())[: argument["nr_entries"]]
        data = b"".join(E820_ENTRY.pack(entry.base, entry.length, entry.type) for entry in entries)
        caller.write(argument["buffer"], data)
        argument["nr_entries"] = len(entries)
        return 0

    @command(10)
    def machine_memory_map(self, caller: Caller, pointer: int) -> int:
        """The computer's own map is none of a guest's business."""
        raise XenError(Errno.EPERM)

    # -- giving and taking

    @command(0)
    def increase_reservation(self, caller: Caller, pointer: int) -> int:
        """Get pages that are at no address: none, as nothing could be done with them."""
        self._load_reservation(caller, pointer)
        return 0

    @command(1)
    def decrease_reservation(self, caller: Caller, pointer: int) -> int:
        """Give pages back. Returns how many extents; the first that is not the guest's ends it."""
        return self._for_each_extent(caller, pointer, self.domain.pages.release)

    @command(6)
    def populate_physmap(self, caller: Caller, pointer: int) -> int:
        """Fill holes with pages of zeros. Returns how many extents; the first that is no hole ends it."""
        return self._for_each_extent(caller, pointer, self.domain.pages.populate)

    def _load_reservation(self, caller: Caller, pointer: int) -> Argument:
        argument = caller.load(RESERVATION, pointer)
        self.domain.check_domid(argument["domid"])
        return argument

    def _for_each_extent(self, caller: Caller, pointer: int, change: Callable[[int], bool]) -> int:
        """Change each page of each extent. Every one that is changed is one less to change, so this ends."""
        argument = self._load_reservation(caller, pointer)
        if argument["extent_order"] > MAX_ORDER:
            return 0
        size = 1 << argument["extent_order"]
        start = argument["extent_start"]
        for done in range(argument["nr_extents"]):
            try:
                first = caller.read_long(start, done)
            except GuestPointerError:
                return done
            if not all(change(frame) for frame in range(first, first + size)):
                return done
        return argument["nr_extents"]

    # -- the hypervisor's pages

    @command(7)
    def add_to_physmap(self, caller: Caller, pointer: int) -> int:
        """Put a page somewhere: the shared page, one of the grant table, or one of the guest's own."""
        argument = caller.load(ADD_TO_PHYSMAP, pointer)
        self.domain.check_domid(argument["domid"])
        index, frame = argument["idx"], argument["gpfn"]
        match argument["space"]:
            case Space.SHARED_INFO if index == 0:
                self.domain.pages.place(self.domain.shared_info, frame)
            case Space.GRANT_TABLE:
                self.domain.pages.place(self._grants.find_frame(index), frame)
            case Space.GMFN:
                self.domain.pages.move(index, frame)
            case _:
                raise XenError(Errno.EINVAL)
        self._moved()
        return 0

    @command(15)
    def remove_from_physmap(self, caller: Caller, pointer: int) -> int:
        """Take away the page at a place."""
        argument = caller.load(REMOVE_FROM_PHYSMAP, pointer)
        self.domain.check_domid(argument["domid"])
        self.domain.pages.remove(argument["gpfn"])
        self._moved()
        return 0
