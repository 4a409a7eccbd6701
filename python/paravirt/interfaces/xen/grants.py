"""grant_table_op: pages that a guest lets other domains use (public/grant_table.h).

There is nobody to grant anything to but the guest itself, and the table has its first version only. A page cannot be
at two places here, so mapping a grant fails as it does when the hypervisor has no room; copying works.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

from paravirt.interfaces.xen.abi import DOMID_OWN, DOMID_SELF, MASK32, PAGE_SIZE, Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Argument, Caller
from paravirt.interfaces.xen.pages import MovablePage
from paravirt.interfaces.xen.section import Section, command

if TYPE_CHECKING:
    from paravirt.interfaces.xen.domain import Domain

__all__ = ["Grants", "Status"]

MAX_FRAMES = 64
"""As many as xl gives a guest."""
ENTRIES_PER_FRAME = 512
ENTRY_BYTES = 8
STATUS_FRAMES = 1 << 31
MAX_COUNT = 512
"""Operations in one call."""

GTF_TYPE_MASK, GTF_PERMIT_ACCESS, GTF_READONLY = 3, 1, 1 << 2
COPY_SOURCE_GREF, COPY_DEST_GREF = 1, 2


class Status(IntEnum):
    """GNTST_*: results of single operations."""

    OKAY = 0
    GENERAL_ERROR = -1
    BAD_DOMAIN = -2
    BAD_GNTREF = -3
    BAD_HANDLE = -4
    PERMISSION_DENIED = -8
    BAD_PAGE = -9
    BAD_COPY_ARG = -10


MAP = Struct(host_addr="u64", flags="u32", ref="u32", dom="u16", status="u16", handle="u32", dev_bus_addr="u64")
UNMAP = Struct(host_addr="u64", dev_bus_addr="u64", handle="u32", status="u16")
SETUP_TABLE = Struct(dom="u16", nr_frames="u32", status="u16", frame_list="ptr")
COPY = Struct(
    source="ulong",
    source_domid="u16",
    source_offset="u16",
    dest="ulong",
    dest_domid="u16",
    dest_offset="u16",
    end_of_dest="align",
    len="u16",
    flags="u16",
    status="u16",
)
QUERY_SIZE = Struct(dom="u16", nr_frames="u32", max_nr_frames="u32", status="u16")
SWAP = Struct(ref_a="u32", ref_b="u32", status="u16")
SET_VERSION = Struct(version="u32")
GET_VERSION = Struct(dom="u16", pad="u16", version="u32")


Operation = Callable[[Caller, Argument], None]


class StatusError(Exception):
    """Ends a single operation."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Grants(Section):
    """Hypercall 20."""

    def __init__(self, domain: Domain) -> None:
        super().__init__(domain)
        self._frames: list[MovablePage] = []
        self.reset()

    def reset(self) -> None:
        """One empty frame, as at the guest's creation."""
        self._frames = [MovablePage(self.domain.machine)]

    def find_frame(self, index: int) -> MovablePage:
        """Return a frame of the table; the table grows up to it. Raises XenError."""
        if index & STATUS_FRAMES or index >= MAX_FRAMES:
            raise XenError(Errno.EINVAL)
        while len(self._frames) <= index:
            self._frames.append(MovablePage(self.domain.machine))
        return self._frames[index]

    def call(self, caller: Caller, number: int, *arguments: Any) -> int:
        """Carry out a command with an array of `count` operations."""
        pointer, count = arguments
        if count & MASK32 > MAX_COUNT:
            raise XenError(Errno.EINVAL)
        return super().call(caller, number, pointer, count & MASK32)

    # -- the table

    @command(2)
    def setup_table(self, caller: Caller, pointer: int, count: int) -> int:
        """Make the table larger, and tell where its frames are: for a guest of this kind, where it has placed them."""
        if count != 1:
            raise XenError(Errno.EINVAL)
        argument = caller.load(SETUP_TABLE, pointer)
        num_frames = argument["nr_frames"]
        if argument["dom"] not in (DOMID_SELF, DOMID_OWN):
            argument["status"] = Status.BAD_DOMAIN
        elif num_frames > MAX_FRAMES:
            argument["status"] = Status.GENERAL_ERROR
        else:
            for index in range(num_frames):
                gpa = self.find_frame(index).gpa
                caller.write_long(argument["frame_list"], index, 0 if gpa is None else gpa // PAGE_SIZE)
            argument["status"] = Status.OKAY
        return 0

    @command(6)
    def query_size(self, caller: Caller, pointer: int, count: int) -> int:
        """Tell how large the table is and may become."""
        if count != 1:
            raise XenError(Errno.EINVAL)
        argument = caller.load(QUERY_SIZE, pointer)
        if argument["dom"] not in (DOMID_SELF, DOMID_OWN):
            argument["status"] = Status.BAD_DOMAIN
            return 0
        argument["nr_frames"], argument["max_nr_frames"] = len(self._frames), MAX_FRAMES
        argument["status"] = Status.OKAY
        return 0

    @command(8)
    def set_version(self, caller: Caller, pointer: int, count: int) -> int:
        """Choose the version: the first. For the second the answer is that of a hypervisor configured without it."""
        argument = caller.load(SET_VERSION, pointer)
        version = argument["version"]
        if version not in (1, 2):
            raise XenError(Errno.EINVAL)
        argument["version"] = 1
        if version == 2:
            raise XenError(Errno.ENOSYS)
        return 0

    @command(10)
    def get_version(self, caller: Caller, pointer: int, count: int) -> int:
        """Tell the version."""
        argument = caller.load(GET_VERSION, pointer)
        self.domain.check_domid(argument["dom"])
        argument["version"] = 1
        return 0

    # -- operations

    @command(0)
    def map_grant_ref(self, caller: Caller, pointer: int, count: int) -> int:
        """Map pages of others: there are none, and the guest's own cannot be at a second place."""
        return self._for_each(caller, MAP, pointer, count, self._map)

    @command(1)
    def unmap_grant_ref(self, caller: Caller, pointer: int, count: int) -> int:
        """Undo that: nothing is mapped."""
        return self._for_each(caller, UNMAP, pointer, count, lambda _caller, _argument: _fail(Status.BAD_HANDLE))

    @command(5)
    def copy(self, caller: Caller, pointer: int, count: int) -> int:
        """Copy between pages, by grant or by number."""
        return self._for_each(caller, COPY, pointer, count, self._copy)

    @command(11)
    def swap_grant_ref(self, caller: Caller, pointer: int, count: int) -> int:
        """Exchange two entries."""
        return self._for_each(caller, SWAP, pointer, count, self._swap)

    def _for_each(self, caller: Caller, struct: Struct, pointer: int, count: int, operation: Operation) -> int:
        for index in range(count):
            argument = caller.load(struct, pointer + index * caller.size_of(struct))
            try:
                operation(caller, argument)
                status = Status.OKAY
            except StatusError as error:
                status = error.status
            argument["status"] = status
        return 0

    def _map(self, caller: Caller, argument: Argument) -> None:
        self._check_domain(argument["dom"])
        self._frame_of(argument["ref"], writable=False)
        _fail(Status.GENERAL_ERROR)

    def _copy(self, caller: Caller, argument: Argument) -> None:
        length = argument["len"]
        pages = []
        for end, flag in (("source", COPY_SOURCE_GREF), ("dest", COPY_DEST_GREF)):
            self._check_domain(argument[f"{end}_domid"])
            if argument[f"{end}_offset"] + length > PAGE_SIZE:
                _fail(Status.BAD_COPY_ARG)
            frame = argument[end]
            if argument["flags"] & flag:
                frame = self._frame_of(frame & MASK32, writable=end == "dest")
            if not self.domain.pages.is_own(frame):
                _fail(Status.BAD_PAGE)
            pages.append(frame * PAGE_SIZE + argument[f"{end}_offset"])
        memory = self.domain.machine.memory
        memory.write(pages[1], memory.read(pages[0], length))

    def _swap(self, caller: Caller, argument: Argument) -> None:
        (page_a, at_a), (page_b, at_b) = (self._entry(argument[ref]) for ref in ("ref_a", "ref_b"))
        a, b = page_a.read(at_a, ENTRY_BYTES), page_b.read(at_b, ENTRY_BYTES)
        page_a.write(at_a, b)
        page_b.write(at_b, a)

    @staticmethod
    def _check_domain(domid: int) -> None:
        if domid not in (DOMID_SELF, DOMID_OWN):
            _fail(Status.BAD_DOMAIN)

    def _entry(self, ref: int) -> tuple[MovablePage, int]:
        frame, index = divmod(ref, ENTRIES_PER_FRAME)
        if frame >= len(self._frames):
            _fail(Status.BAD_GNTREF)
        return self._frames[frame], index * ENTRY_BYTES

    def _frame_of(self, ref: int, *, writable: bool) -> int:
        """The page number that an entry grants to the guest itself."""
        page, offset = self._entry(ref)
        flags = page.read_int(offset, 2)
        if flags & GTF_TYPE_MASK != GTF_PERMIT_ACCESS or page.read_int(offset + 2, 2) != DOMID_OWN:
            _fail(Status.PERMISSION_DENIED)
        if writable and flags & GTF_READONLY:
            _fail(Status.PERMISSION_DENIED)
        return page.read_int(offset + 4, 4)


def _fail(status: Status) -> NoReturn:
    raise StatusError(status)
