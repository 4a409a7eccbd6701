"""vcpu_op: starting and stopping vCPUs, and what each shares with the hypervisor (public/vcpu.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paravirt.interfaces.xen.abi import MASK64, PAGE_SIZE, Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Caller
from paravirt.interfaces.xen.clock import OFFLINE, RUNNING, Area, Clock
from paravirt.interfaces.xen.domain import VCPU_INFO_BYTES, Domain, VcpuState
from paravirt.interfaces.xen.section import Section, command
from paravirt.interfaces.xen.vcpu_context import CONTEXT_BYTES, Context, read_context
from paravirt.result import StopReason

if TYPE_CHECKING:
    from paravirt.interfaces.xen.timers import VcpuTimers
    from paravirt.interfaces.xen.upcalls import Upcalls

__all__ = ["Vcpus"]

NMI_DELIVERY = 4

REGISTER_VCPU_INFO = Struct(mfn="u64", offset="u32", rsvd="u32")
ADDRESS = Struct(address="u64")
PERIOD = Struct(period_ns="u64")
SINGLESHOT = Struct(timeout_abs_ns="u64", flags="u32")


class Vcpus(Section):
    """Hypercall 24."""

    def __init__(self, domain: Domain, clock: Clock, timers: VcpuTimers, upcalls: Upcalls) -> None:
        super().__init__(domain)
        self._clock = clock
        self._timers = timers
        self._upcalls = upcalls
        self._contexts: dict[int, Context] = {}
        """What vCPUs start with that have been initialised and not been started."""
        self._initialised: set[int] = {0}

    def reset(self) -> None:
        """Only the first runs."""
        self._contexts.clear()
        self._initialised = {0}

    def call(self, caller: Caller, number: int, *arguments: Any) -> int:
        """Carry out a command for a vCPU."""
        target, pointer = arguments
        return super().call(caller, number, self.domain.find_vcpu(target), pointer)

    def note_call(self, state: VcpuState) -> None:
        """A vCPU makes a call: however it was started, it runs."""
        if not self._clock.is_running(state):
            self._clock.enter(state, RUNNING)
        self._initialised.add(state.vcpu.index)

    # -- starting and stopping

    @command(0)
    def initialise(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Say what state a vCPU starts in; it is started by `up`."""
        if state.vcpu.index in self._initialised:
            raise XenError(Errno.EEXIST)
        self._contexts[state.vcpu.index] = read_context(caller.read(pointer, CONTEXT_BYTES))
        self._initialised.add(state.vcpu.index)
        return 0

    @command(1)
    def up(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Start a vCPU, or let it go on after `down`."""
        index = state.vcpu.index
        if index not in self._initialised:
            raise XenError(Errno.EINVAL)
        context = self._contexts.pop(index, None)
        if context is not None:
            context.apply(state.vcpu)
        elif self._clock.is_running(state):
            return 0
        self._clock.enter(state, RUNNING)
        state.vcpu.unpark()
        return 0

    @command(2)
    def down(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Stop a vCPU. With the last one the machine is switched off."""
        if not self._clock.is_running(state):
            return 0
        self._clock.enter(state, OFFLINE)
        state.vcpu.park()
        if not any(self._clock.is_running(other) for other in self.domain.vcpus):
            self.domain.machine.shut_down(StopReason.POWER_OFF, state.vcpu)
        return 0

    @command(3)
    def is_up(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Return whether it runs, 1 or 0."""
        return int(self._clock.is_running(state))

    @command(11)
    def send_nmi(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Send it an NMI."""
        self.domain.machine.deliver_interrupt(state.vcpu.apic_id, 0, NMI_DELIVERY)
        return 0

    # -- what is shared

    @command(10)
    def register_vcpu_info(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Move a vCPU's vcpu_info, once. All events count as new, since some may have come meanwhile."""
        argument = caller.load(REGISTER_VCPU_INFO, pointer)
        offset = argument["offset"]
        if offset > PAGE_SIZE - VCPU_INFO_BYTES or offset % 8:
            raise XenError(Errno.EINVAL)
        if state.info_gpa is not None:
            raise XenError(Errno.EBUSY)
        gpa = argument["mfn"] * PAGE_SIZE + offset
        if self.domain.read_at(gpa, 8) is None:
            raise XenError(Errno.EINVAL)
        old = b"".join(self.domain.read_info(state, at, 8).to_bytes(8, "little") for at in range(0, VCPU_INFO_BYTES, 8))
        state.info_gpa = gpa
        self.domain.write_info(state, 0, old)
        selector, size = self.domain.pending_sel
        self.domain.write_info(state, selector, b"\xff" * size)
        self.domain.write_info(state, 0, b"\1")
        self._clock.write_time(state)
        self._upcalls.attach(state)
        self._upcalls.notify(state)
        return 0

    @command(4)
    def get_runstate_info(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Tell what it does and has done."""
        caller.write(pointer, self._clock.runstate(state, is_wide=caller.is_wide))
        return 0

    @command(5)
    def register_runstate_memory_area(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Keep that in memory, by linear address."""
        address = caller.read_long(pointer)
        area = Area(address, is_linear=True, is_wide=caller.is_wide) if address else None
        self._clock.set_runstate_area(state, area)
        return 0

    @command(14)
    def register_runstate_phys_area(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Keep it in memory, by physical address."""
        self._clock.set_runstate_area(state, self._physical_area(caller, pointer))
        return 0

    @command(13)
    def register_vcpu_time_memory_area(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Keep a second copy of its time information, by linear address."""
        address = caller.read_long(pointer)
        self._clock.set_time_area(state, Area(address, is_linear=True) if address else None)
        return 0

    @command(15)
    def register_vcpu_time_phys_area(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Keep it by physical address."""
        self._clock.set_time_area(state, self._physical_area(caller, pointer))
        return 0

    @staticmethod
    def _physical_area(caller: Caller, pointer: int) -> Area | None:
        address = caller.load(ADDRESS, pointer)["address"]
        return None if address == MASK64 else Area(address, is_linear=False, is_wide=caller.is_wide)

    # -- timers

    @command(6)
    def set_periodic_timer(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Send TIMER again and again."""
        self._timers.set_periodic(state, caller.load(PERIOD, pointer)["period_ns"])
        return 0

    @command(7)
    def stop_periodic_timer(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Send it no more."""
        self._timers.stop_periodic(state)
        return 0

    @command(8)
    def set_singleshot_timer(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Send TIMER once; one's own only."""
        self._check_own(caller, state)
        self._clock.refresh(state)
        self._timers.set_single(state, caller.load(SINGLESHOT, pointer)["timeout_abs_ns"])
        return 0

    @command(9)
    def stop_singleshot_timer(self, caller: Caller, state: VcpuState, pointer: int) -> int:
        """Do not send it."""
        self._check_own(caller, state)
        self._timers.stop_single(state)
        return 0

    @staticmethod
    def _check_own(caller: Caller, state: VcpuState) -> None:
        if caller.vcpu.index != state.vcpu.index:
            raise XenError(Errno.EINVAL)
