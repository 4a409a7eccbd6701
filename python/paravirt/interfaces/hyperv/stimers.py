"""Synthetic timers: four per processor, in reference time, that tell by a message or by an interrupt of their own.

Source: TLFS section "Synthetic timers", HV_TIMER_MESSAGE_PAYLOAD.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from paravirt.errors import GuestFault
from paravirt.hypercalls.registers import MASK64
from paravirt.interfaces.base import msr_read, msr_write
from paravirt.interfaces.hyperv.definitions import MSR_STIMER0_CONFIG, NUM_TIMERS, Feature, Privilege
from paravirt.interfaces.hyperv.section import Section
from paravirt.interfaces.hyperv.synic import Message

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.timers import Timer
    from paravirt.vcpu import Vcpu

__all__ = ["SyntheticTimers"]

ENABLE = 1 << 0
PERIODIC = 1 << 1
AUTO_ENABLE = 1 << 3
APIC_VECTOR_SHIFT = 4
DIRECT = 1 << 12
SINT_SHIFT = 16
VALID = 0xF_1FFF
"""Enable, periodic, lazy, auto-enable, vector, direct, SINTx. Laziness changes nothing: no vCPU waits for its host."""

MESSAGE_TIMER_EXPIRED = 0x8000_0010
PAYLOAD = struct.Struct("<IIQQ")
LEAST_PERIOD = 10
"""A microsecond: so often at most does a timer interrupt, whatever the guest asks for."""
NEVER_NS = 1 << 63
LAST_MSR = MSR_STIMER0_CONFIG + 2 * NUM_TIMERS - 1


class _Timer:
    """One timer."""

    def __init__(self, section: SyntheticTimers, vcpu: Vcpu, index: int) -> None:
        self._section = section
        self._vcpu = vcpu
        self._index = index
        self.config = 0
        self.count = 0
        self._expiration = 0
        self._alarm: Timer | None = None
        self._message: Message | None = None

    # -- what the guest sets

    def configure(self, config: int) -> None:
        """Take a new configuration, and start if it says so."""
        self.stop()
        if config & ENABLE and not config & DIRECT and not config >> SINT_SHIFT:
            config &= ~ENABLE  # SINT0 takes no messages of timers.
        self.config = config
        self._start()

    def set_count(self, count: int) -> None:
        """Take a new count, and start if that enables it or it is enabled."""
        self.stop()
        self.count = count
        if not count:
            self.config &= ~ENABLE
        elif self.config & AUTO_ENABLE:
            self.config |= ENABLE
        self._start()

    def stop(self) -> None:
        """Forget the deadline, and a message that waits."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._message is not None:
            self._section.interface.synic.withdraw(self._vcpu, self._sint, self._message)
            self._message = None

    # -- what time does

    @property
    def _sint(self) -> int:
        return self.config >> SINT_SHIFT & 0xF

    def _start(self) -> None:
        if not self.config & ENABLE or not self.count:
            return
        self._expiration = self.count
        if self.config & PERIODIC:
            self._expiration = self._section.interface.time.now() + self._period
        self._arm()

    @property
    def _period(self) -> int:
        return max(self.count, LEAST_PERIOD)

    def _arm(self) -> None:
        machine, time = self._section.machine, self._section.interface.time
        deadline_ns = max(time.ns_of(self._expiration), machine.now_ns)
        self._alarm = machine.call_at(deadline_ns, self._expire) if deadline_ns < NEVER_NS else None

    def _expire(self) -> None:
        self._alarm = None
        now = self._section.interface.time.now()
        if now < self._expiration:
            self._arm()  # The guest has set the TSC meanwhile.
            return
        self._tell(self._expiration)
        if self.config & PERIODIC:
            # The next on the grid of the first; what was missed is skipped.
            self._expiration += self._period * ((now - self._expiration) // self._period + 1)
            self._arm()

    def _tell(self, expiration: int) -> None:
        if self.config & DIRECT:
            vector = self.config >> APIC_VECTOR_SHIFT & 0xFF
            self._section.machine.deliver_interrupt(self._vcpu.apic_id, vector)
            self._told()
            return
        time = self._section.interface.time
        synic = self._section.interface.synic
        message = Message(
            MESSAGE_TIMER_EXPIRED,
            lambda: PAYLOAD.pack(self._index, 0, expiration & MASK64, time.now() & MASK64),
            on_delivered=self._told,
        )
        if self.config & PERIODIC:
            synic.offer(self._vcpu, self._sint, message)  # If the slot is busy, the next tick tries again.
            return
        self._message = message
        synic.post(self._vcpu, self._sint, message)

    def _told(self) -> None:
        """The guest knows. A one-shot timer is over only now."""
        self._message = None
        if not self.config & PERIODIC:
            self.config &= ~ENABLE


class SyntheticTimers(Section):
    """STIMER0 to STIMER3, each CONFIG and COUNT."""

    def __init__(self, interface: HyperV) -> None:
        super().__init__(interface)
        self._timers: list[list[_Timer]] = []

    def reset(self) -> None:
        """All are off."""
        for timers in self._timers:
            for timer in timers:
                timer.stop()
        self._timers = [[_Timer(self, vcpu, index) for index in range(NUM_TIMERS)] for vcpu in self.machine.vcpus]

    @msr_read(MSR_STIMER0_CONFIG, LAST_MSR, feature=Privilege.ACCESS_SYNTHETIC_TIMERS)
    def read(self, vcpu: Vcpu, index: int) -> int:
        """Return a timer's configuration or count."""
        number, is_count = divmod(index - MSR_STIMER0_CONFIG, 2)
        timer = self._timers[vcpu.index][number]
        return timer.count if is_count else timer.config

    @msr_write(MSR_STIMER0_CONFIG, LAST_MSR, feature=Privilege.ACCESS_SYNTHETIC_TIMERS)
    def write(self, vcpu: Vcpu, index: int, value: int) -> None:
        """Set a timer's configuration or count."""
        number, is_count = divmod(index - MSR_STIMER0_CONFIG, 2)
        timer = self._timers[vcpu.index][number]
        if is_count:
            timer.set_count(value)
            return
        valid = VALID if self.interface.offers(Feature.DIRECT_TIMERS) else VALID & ~DIRECT
        if value & ~valid:
            raise GuestFault
        timer.configure(value)
