"""The synthetic interrupt controller: sixteen sources per processor, messages and event flags in two pages.

Source: TLFS chapter "Inter-partition communication", HV_MESSAGE; "Virtual interrupt controller": SynIC MSRs.

A message goes into the slot of its source if that is empty, and the source interrupts. If it is not, the slot's pending
flag is set and the message waits; the guest empties the slot and says so by EOM, or by the end of the interrupt, and
the next message comes.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt.errors import GuestFault
from paravirt.interfaces.base import msr_read, msr_write
from paravirt.interfaces.hyperv.definitions import (
    MSR_EOM,
    MSR_SCONTROL,
    MSR_SIEFP,
    MSR_SIMP,
    MSR_SINT0,
    MSR_SVERSION,
    NUM_SINTS,
    PAGE_ADDRESS,
    PAGE_ENABLE,
    Privilege,
)
from paravirt.interfaces.hyperv.section import Section, enable_page

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["MAX_PAYLOAD", "Message", "SyntheticController"]

SCONTROL_ENABLE = 1 << 0
SYNIC_VERSION = 1
SINT_VECTOR = 0xFF
SINT_MASKED = 1 << 16
SINT_AUTO_EOI = 1 << 17
SINT_POLLING = 1 << 18
LEAST_VECTOR = 16

SLOT_SIZE = 256
MESSAGE_HEADER = struct.Struct("<BBHQ")
"""Behind the type: payload size, flags, reserved, origin."""
TYPE_NONE = 0
FLAGS_OFFSET = 5
FLAG_PENDING = 1 << 0
MAX_PAYLOAD = 240
EVENT_FLAGS_PER_SINT = 2048


class Message:
    """One message. payload: at most 240 bytes, asked for when it is delivered. on_delivered: called then."""

    __slots__ = ("kind", "on_delivered", "origin", "payload")

    def __init__(
        self,
        kind: int,
        payload: Callable[[], bytes],
        *,
        origin: int = 0,
        on_delivered: Callable[[], None] | None = None,
    ) -> None:
        self.kind = kind
        self.payload = payload
        self.origin = origin
        self.on_delivered = on_delivered


class _Processor:
    """The SynIC of one vCPU."""

    def __init__(self) -> None:
        # The specification has the controller off at reset; KVM and others have it on, and some guests rely on that.
        self.control = SCONTROL_ENABLE
        self.event_page = 0
        self.message_page = 0
        self.sints = [SINT_MASKED] * NUM_SINTS
        self.queues: list[deque[Message]] = [deque() for _ in range(NUM_SINTS)]
        self.auto_eoi: frozenset[int] = frozenset()
        self.watched: frozenset[int] = frozenset()


class SyntheticController(Section):
    """SCONTROL, SVERSION, SIEFP, SIMP, EOM, SINT0 to SINT15, and what interrupts through them."""

    def __init__(self, interface: HyperV) -> None:
        super().__init__(interface)
        self._processors: list[_Processor] = []

    def reset(self) -> None:
        """Every processor's controller as at power-on. The machine has forgotten automatic ends and watches itself."""
        self._processors = [_Processor() for _ in self.machine.vcpus]

    # -- what delivers

    def can_take_messages(self, vcpu: Vcpu) -> bool:
        """Whether a processor has a message page."""
        state = self._processors[vcpu.index]
        return bool(state.control & SCONTROL_ENABLE and state.message_page & PAGE_ENABLE)

    def can_take_events(self, vcpu: Vcpu, sint: int) -> bool:
        """Whether a processor has a page of event flags and listens to a source."""
        state = self._processors[vcpu.index]
        return bool(
            state.control & SCONTROL_ENABLE and state.event_page & PAGE_ENABLE and not state.sints[sint] & SINT_MASKED
        )

    def post(self, vcpu: Vcpu, sint: int, message: Message) -> None:
        """Deliver a message as soon as its slot is empty. The caller bounds how many wait."""
        self._processors[vcpu.index].queues[sint].append(message)
        self._deliver(vcpu, sint)

    def offer(self, vcpu: Vcpu, sint: int, message: Message) -> bool:
        """Deliver a message now, or not at all. Returns whether it was delivered."""
        return self._try_deliver(vcpu, sint, message)

    def withdraw(self, vcpu: Vcpu, sint: int, message: Message) -> None:
        """Take back a message that waits, if it does."""
        queue = self._processors[vcpu.index].queues[sint]
        if message in queue:
            queue.remove(message)
            self._update_watches(vcpu)

    def signal(self, vcpu: Vcpu, sint: int, flag: int) -> None:
        """Set an event flag, 0 to 2047, of a processor that can take events; interrupt if it was clear."""
        page = self._processors[vcpu.index].event_page & PAGE_ADDRESS
        memory, gpa = self.machine.memory, page + sint * SLOT_SIZE + flag // 8
        before = memory.read_int(gpa, 1)
        after = before | 1 << flag % 8
        if after != before:
            memory.write_int(gpa, 1, after)
            self.interrupt(vcpu, sint)

    def interrupt(self, vcpu: Vcpu, sint: int) -> None:
        """Raise a source's interrupt, unless it is masked or the guest polls."""
        value = self._processors[vcpu.index].sints[sint]
        if not value & (SINT_MASKED | SINT_POLLING):
            self.machine.deliver_interrupt(vcpu.apic_id, value & SINT_VECTOR)

    # -- messages

    def _deliver(self, vcpu: Vcpu, sint: int) -> None:
        """Deliver what waits, as far as it goes."""
        queue = self._processors[vcpu.index].queues[sint]
        while queue and self._try_deliver(vcpu, sint, queue[0]):
            message = queue.popleft()
            if message.on_delivered is not None:
                message.on_delivered()
        self._update_watches(vcpu)

    def _deliver_all(self, vcpu: Vcpu) -> None:
        for sint, queue in enumerate(self._processors[vcpu.index].queues):
            if queue:
                self._deliver(vcpu, sint)

    def _try_deliver(self, vcpu: Vcpu, sint: int, message: Message) -> bool:
        if not self.can_take_messages(vcpu):
            return False
        memory = self.machine.memory
        slot = (self._processors[vcpu.index].message_page & PAGE_ADDRESS) + sint * SLOT_SIZE
        if memory.read_int(slot, 4) != TYPE_NONE:
            memory.write_int(slot + FLAGS_OFFSET, 1, memory.read_int(slot + FLAGS_OFFSET, 1) | FLAG_PENDING)
            return False
        payload = message.payload()
        memory.write(slot + 4, MESSAGE_HEADER.pack(len(payload), 0, 0, message.origin) + payload)
        memory.write_int(slot, 4, message.kind)  # Last: by it the guest sees that there is one.
        self.interrupt(vcpu, sint)
        return True

    def _update_watches(self, vcpu: Vcpu) -> None:
        """Have the machine tell of ends of interrupts behind which a message waits."""
        state = self._processors[vcpu.index]
        wanted = frozenset(
            value & SINT_VECTOR
            for value, queue in zip(state.sints, state.queues, strict=True)
            if queue and not value & SINT_MASKED
        )
        for vector in state.watched - wanted:
            vcpu.on_end_of_interrupt(vector, None)
        for vector in wanted - state.watched:
            vcpu.on_end_of_interrupt(vector, lambda: self._deliver_all(vcpu))
        state.watched = wanted

    # -- MSRs

    @msr_read(MSR_SCONTROL, feature=Privilege.ACCESS_SYNIC)
    def read_scontrol(self, vcpu: Vcpu) -> int:
        """Return whether the controller is on."""
        return self._processors[vcpu.index].control

    @msr_write(MSR_SCONTROL, feature=Privilege.ACCESS_SYNIC)
    def write_scontrol(self, vcpu: Vcpu, value: int) -> None:
        """Switch it on or off."""
        self._processors[vcpu.index].control = value
        self._deliver_all(vcpu)

    @msr_read(MSR_SVERSION, feature=Privilege.ACCESS_SYNIC)
    def read_sversion(self, vcpu: Vcpu) -> int:
        """Return the controller's version."""
        return SYNIC_VERSION

    @msr_read(MSR_SIEFP, feature=Privilege.ACCESS_SYNIC)
    def read_siefp(self, vcpu: Vcpu) -> int:
        """Return where the event flags are."""
        return self._processors[vcpu.index].event_page

    @msr_write(MSR_SIEFP, feature=Privilege.ACCESS_SYNIC)
    def write_siefp(self, vcpu: Vcpu, value: int) -> None:
        """Place the page of event flags."""
        state = self._processors[vcpu.index]
        enable_page(self.machine, state.event_page, value)
        state.event_page = value

    @msr_read(MSR_SIMP, feature=Privilege.ACCESS_SYNIC)
    def read_simp(self, vcpu: Vcpu) -> int:
        """Return where the messages are."""
        return self._processors[vcpu.index].message_page

    @msr_write(MSR_SIMP, feature=Privilege.ACCESS_SYNIC)
    def write_simp(self, vcpu: Vcpu, value: int) -> None:
        """Place the page of messages."""
        state = self._processors[vcpu.index]
        enable_page(self.machine, state.message_page, value)
        state.message_page = value
        self._deliver_all(vcpu)

    @msr_read(MSR_EOM, feature=Privilege.ACCESS_SYNIC)
    def read_eom(self, vcpu: Vcpu) -> int:
        """Return 0: it can only be written."""
        return 0

    @msr_write(MSR_EOM, feature=Privilege.ACCESS_SYNIC)
    def write_eom(self, vcpu: Vcpu, value: int) -> None:
        """The guest has emptied a slot: deliver what waits for any."""
        self._deliver_all(vcpu)

    @msr_read(MSR_SINT0, MSR_SINT0 + NUM_SINTS - 1, feature=Privilege.ACCESS_SYNIC)
    def read_sint(self, vcpu: Vcpu, index: int) -> int:
        """Return a source's vector and flags."""
        return self._processors[vcpu.index].sints[index - MSR_SINT0]

    @msr_write(MSR_SINT0, MSR_SINT0 + NUM_SINTS - 1, feature=Privilege.ACCESS_SYNIC)
    def write_sint(self, vcpu: Vcpu, index: int, value: int) -> None:
        """Set a source's vector and flags. Vectors below 16 are no interrupts'."""
        if value & SINT_VECTOR < LEAST_VECTOR and not value & SINT_MASKED:
            raise GuestFault
        state = self._processors[vcpu.index]
        state.sints[index - MSR_SINT0] = value
        auto_eoi = frozenset(
            each & SINT_VECTOR for each in state.sints if each & SINT_AUTO_EOI and not each & SINT_MASKED
        )
        for vector in auto_eoi ^ state.auto_eoi:
            vcpu.set_auto_eoi(vector, vector in auto_eoi)
        state.auto_eoi = auto_eoi
        self._update_watches(vcpu)
