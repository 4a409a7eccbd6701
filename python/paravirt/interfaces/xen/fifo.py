"""Event channels by queues: a word for each port, linked to queues by priority.

The guest takes ports from a queue's head, the hypervisor appends at its tail. A port's word says whether it is PENDING,
MASKED by the guest, and LINKED into a queue, and which port comes next. Each vCPU has sixteen queues, whose heads are
in its control block, with a bit for each that says whether there is something to take.

Source: David Vrabel, "FIFO-based event channel ABI", revision H; Xen's public/event_channel.h.
"""

from __future__ import annotations

from paravirt.errors import GuestMemoryError
from paravirt.interfaces.xen.abi import PAGE_SIZE, Errno, XenError
from paravirt.interfaces.xen.domain import Domain
from paravirt.interfaces.xen.ports import Port
from paravirt.interfaces.xen.upcalls import Upcalls

__all__ = ["LINK_BITS", "NUM_PRIORITIES", "Fifo"]

PENDING, MASKED, LINKED = 1 << 31, 1 << 30, 1 << 29
LINK_BITS = 17
LINK_MASK = (1 << LINK_BITS) - 1
NUM_PRIORITIES = 16
WORD_BYTES = 4
WORDS_PER_PAGE = PAGE_SIZE // WORD_BYTES
MAX_PAGES = (1 << LINK_BITS) // WORDS_PER_PAGE

READY = 0
HEADS = 8
CONTROL_BLOCK_BYTES = HEADS + 4 * NUM_PRIORITIES


class Fifo:
    """The event words and control blocks of a guest. They are in its memory: whatever it does to them, it does to its
    own events only."""

    def __init__(self, domain: Domain, upcalls: Upcalls) -> None:
        self._domain = domain
        self._memory = domain.machine.memory
        self._upcalls = upcalls
        self._pages: list[int] = []
        """GPAs of the event array's pages."""
        self._control: dict[int, int] = {}
        """GPAs of the control blocks, by vCPU."""
        self._tails: dict[tuple[int, int], int] = {}
        """Last ports of the queues, by vCPU and priority; 0: none."""

    @property
    def max_ports(self) -> int:
        """As many as a link can name."""
        return 1 << LINK_BITS

    # -- what the guest sets up

    def set_control_block(self, vcpu: int, frame: int, offset: int) -> None:
        """Take a vCPU's control block; each has one, once. Raises XenError."""
        if offset > PAGE_SIZE - CONTROL_BLOCK_BYTES or offset % 8 or vcpu in self._control:
            raise XenError(Errno.EINVAL)
        gpa = frame * PAGE_SIZE + offset
        if self._domain.read_at(gpa, 8) is None:
            raise XenError(Errno.EINVAL)
        self._control[vcpu] = gpa

    def add_page(self, frame: int, ports: dict[int, Port]) -> None:
        """Take one more page of event words. Ports that have had an event before are pending in it. Raises XenError."""
        if len(self._pages) >= MAX_PAGES:
            raise XenError(Errno.ENOSPC)
        if self._domain.read_at(frame * PAGE_SIZE, 8) is None:
            raise XenError(Errno.EINVAL)
        self._pages.append(frame * PAGE_SIZE)
        first = (len(self._pages) - 1) * WORDS_PER_PAGE
        for number in sorted(ports):
            port = ports[number]
            if first <= number < first + WORDS_PER_PAGE and port.is_waiting:
                port.is_waiting = False
                self.set_pending(port)

    # -- events

    def set_pending(self, port: Port) -> bool:
        """Set PENDING, and append the port to its queue unless it is masked or in one."""
        word = self._read_word(port.number)
        if word is None:
            was_waiting, port.is_waiting = port.is_waiting, True
            return not was_waiting
        self._write_word(port.number, word | PENDING)
        if not word & (MASKED | LINKED):
            self._link(port)
        return not word & PENDING

    def unmask(self, port: Port) -> None:
        """Clear MASKED."""
        word = self._read_word(port.number)
        if word is None:
            return
        self._write_word(port.number, word & ~MASKED)
        if word & PENDING and not word & LINKED:
            self._link(port)

    def is_pending(self, port: Port) -> bool:
        """Look at its word."""
        word = self._read_word(port.number)
        return port.is_waiting if word is None else bool(word & PENDING)

    def clear_pending(self, port: Port) -> None:
        """Clear PENDING; a port that is linked stays so, the guest will skip it."""
        port.is_waiting = False
        word = self._read_word(port.number)
        if word is not None:
            self._write_word(port.number, word & ~PENDING)

    def _link(self, port: Port) -> None:
        control = self._control.get(port.vcpu)
        word = self._read_word(port.number)
        if control is None or word is None:
            return
        # A port that was the last of its queue and is not linked any more: the guest has emptied that queue.
        if port.queue is not None and self._tails.get(port.queue) == port.number:
            self._tails[port.queue] = 0
        port.queue = (port.vcpu, port.priority)
        self._write_word(port.number, word & ~LINK_MASK | LINKED)
        tail = self._tails.get(port.queue, 0)
        self._tails[port.queue] = port.number
        if tail and self._append(tail, port.number):
            return
        try:
            self._memory.write_int(control + HEADS + 4 * port.priority, 4, port.number)
            ready = self._memory.read_int(control + READY, 4)
            self._memory.write_int(control + READY, 4, ready | 1 << port.priority)
        except GuestMemoryError:
            return
        state = self._domain.vcpus[port.vcpu]
        if not ready >> port.priority & 1 and self._domain.set_upcall_pending(state):
            self._upcalls.notify(state)

    def _append(self, tail: int, number: int) -> bool:
        """Link a port behind the last of a queue. False if the guest has taken that one meanwhile."""
        word = self._read_word(tail)
        if word is None or not word & LINKED:
            return False
        self._write_word(tail, word & ~LINK_MASK | number)
        return True

    def _word_gpa(self, number: int) -> int | None:
        page, index = divmod(number, WORDS_PER_PAGE)
        return self._pages[page] + WORD_BYTES * index if page < len(self._pages) else None

    def _read_word(self, number: int) -> int | None:
        gpa = self._word_gpa(number)
        return None if gpa is None else self._domain.read_at(gpa, WORD_BYTES)

    def _write_word(self, number: int, word: int) -> None:
        gpa = self._word_gpa(number)
        if gpa is not None:
            self._memory.write_int(gpa, WORD_BYTES, word)
