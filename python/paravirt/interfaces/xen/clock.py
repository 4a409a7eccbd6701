"""Time as the guest sees it in memory: its clock by the TSC, the date, and what its vCPUs have done.

vCPUs take turns in virtual time, which stands still for one that waits its turn. So no vCPU ever loses time to others:
it is running, or blocked, or offline.

Source: Xen's public/xen.h (vcpu_time_info, shared_info), public/vcpu.h (runstate).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from paravirt.errors import GuestMemoryError
from paravirt.interfaces.pvclock import TSC_STABLE, VcpuTimeInfo, time_scale
from paravirt.interfaces.xen.domain import TIME_INFO, Domain, VcpuState

__all__ = ["Clock"]

NS_PER_S = 10**9
WALL_CLOCK_WIDE, WALL_CLOCK_NARROW = 3072, 2304
"""Offsets of wc_version in the shared page; wc_sec, wc_nsec and wc_sec_hi follow, the last behind a gap if narrow."""
WC_SEC_HI_WIDE, WC_SEC_HI_NARROW = 3084, 2340

RUNNING, RUNNABLE, BLOCKED, OFFLINE = range(4)
RUNSTATE_WIDE = struct.Struct("<i4xQ4Q")
RUNSTATE_NARROW = struct.Struct("<iQ4Q")


@dataclass(slots=True)
class Area:
    """Guest memory that is kept up to date: by its linear address at the time, or by its physical one."""

    address: int
    is_linear: bool
    is_wide: bool = True

    def write(self, state: VcpuState, data: bytes) -> bool:
        """Write it. False if there is no memory; nothing happens then."""
        try:
            if self.is_linear:
                state.vcpu.write(self.address, data)
            else:
                state.vcpu.machine.memory.write(self.address, data)
        except GuestMemoryError:
            return False
        return True


@dataclass(slots=True)
class RunState:
    """What a vCPU does, since when, and how long it has done what; in ns."""

    state: int
    since_ns: int
    times: list[int] = field(default_factory=lambda: [0] * 4)

    def enter(self, state: int, now_ns: int) -> None:
        """Do something else from now on."""
        self.times[self.state] += now_ns - self.since_ns
        self.state, self.since_ns = state, now_ns


class Clock:
    """The clocks of a domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._version = 0
        self._offsets: dict[int, int] = {}
        """TSC offsets that the time information was made from, by vCPU."""
        self._time_areas: dict[int, Area] = {}
        self._runstate_areas: dict[int, Area] = {}
        self._runstates: list[RunState] = []
        self.marks_updates = False

    def reset(self) -> None:
        """Fill a new shared page."""
        self._offsets.clear()
        self._time_areas.clear()
        self._runstate_areas.clear()
        self.marks_updates = False
        now = self._domain.machine.now_ns
        self._runstates = [RunState(OFFLINE if state.vcpu.index else RUNNING, now) for state in self._domain.vcpus]
        self.write_wall_clock()
        for state in self._domain.vcpus:
            self.write_time(state)

    @property
    def now_ns(self) -> int:
        """System time: since power-on."""
        return self._domain.machine.now_ns

    # -- date

    def write_wall_clock(self) -> None:
        """Tell when system time was 0, in the layout of the day."""
        seconds, nanoseconds = divmod(self._domain.machine.start_unix_ns, NS_PER_S)
        offset, high = (
            (WALL_CLOCK_WIDE, WC_SEC_HI_WIDE) if self._domain.is_wide else (WALL_CLOCK_NARROW, WC_SEC_HI_NARROW)
        )
        page = self._domain.shared_info
        self._version += 2
        page.write(offset, struct.pack("<III", self._version, seconds & 0xFFFF_FFFF, nanoseconds))
        page.write(high, struct.pack("<I", seconds >> 32))

    # -- the clock by the TSC

    def write_time(self, state: VcpuState) -> None:
        """Tell a vCPU how to make system time of its TSC. The origin is virtual time 0, as for all other vCPUs."""
        index = state.vcpu.index
        offset = self._offsets[index] = state.vcpu.tsc_offset
        mul, shift = time_scale(self._domain.machine.tsc_khz)
        self._version += 2
        info = bytes(VcpuTimeInfo(self._version, 0, offset, 0, mul, shift, TSC_STABLE))
        self._domain.write_info(state, TIME_INFO, info)
        area = self._time_areas.get(index)
        if area is not None:
            area.write(state, info)

    def refresh(self, state: VcpuState) -> None:
        """Write it anew if the guest has set its TSC."""
        if self._offsets.get(state.vcpu.index) != state.vcpu.tsc_offset:
            self.write_time(state)

    def set_time_area(self, state: VcpuState, area: Area | None) -> None:
        """Keep a second copy for the guest's programs."""
        if area is None:
            self._time_areas.pop(state.vcpu.index, None)
        else:
            self._time_areas[state.vcpu.index] = area
            self.write_time(state)

    # -- what vCPUs do

    def enter(self, state: VcpuState, runstate: int) -> None:
        """A vCPU does something else."""
        self._runstates[state.vcpu.index].enter(runstate, self.now_ns)
        self._write_runstate(state)

    def is_running(self, state: VcpuState) -> bool:
        """Whether it is neither blocked nor offline, as far as was told here."""
        return self._runstates[state.vcpu.index].state == RUNNING

    def runstate(self, state: VcpuState, *, is_wide: bool) -> bytes:
        """Return a vCPU's `struct vcpu_runstate_info`."""
        record = self._runstates[state.vcpu.index]
        record.enter(record.state, self.now_ns)
        return self._pack(record, is_wide=is_wide)

    @staticmethod
    def _pack(record: RunState, *, is_wide: bool) -> bytes:
        layout = RUNSTATE_WIDE if is_wide else RUNSTATE_NARROW
        return layout.pack(record.state, record.since_ns, *record.times)

    def set_runstate_area(self, state: VcpuState, area: Area | None) -> None:
        """Keep a copy for the guest."""
        if area is None:
            self._runstate_areas.pop(state.vcpu.index, None)
        else:
            self._runstate_areas[state.vcpu.index] = area
            self._write_runstate(state)

    def _write_runstate(self, state: VcpuState) -> None:
        area = self._runstate_areas.get(state.vcpu.index)
        if area is not None:
            area.write(state, self._pack(self._runstates[state.vcpu.index], is_wide=area.is_wide))
