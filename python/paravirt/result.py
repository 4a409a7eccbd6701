"""Why a run ended, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["Result", "StopReason"]


class StopReason(StrEnum):
    """Why `Machine.run` returned."""

    DEBUG_EXIT = "debug-exit"
    """The guest wrote to `isa-debug-exit` (port 0xF4)."""
    POWER_OFF = "power-off"
    """The guest switched the machine off."""
    RESET = "reset"
    """The guest asked for a hard reset and the machine does not reboot."""
    HALTED = "halted"
    """Every vCPU is halted and nothing can wake one."""
    CRASH = "crash"
    """The guest told its hypervisor that it has crashed, or its kernel printed that it panics; `Result.message` is what
    it said about it."""
    TRIPLE_FAULT = "triple-fault"
    """A vCPU met an exception while delivering a double fault; `Result.vcpu` says which."""
    MAX_INSTRUCTIONS = "max-instructions"
    """The budget of instructions is used up."""
    TIMEOUT = "timeout"
    """The wall-clock limit is reached."""
    BREAKPOINT = "breakpoint"
    """A breakpoint without a handler, or whose handler returned True, was reached by `Result.vcpu`."""
    STEP = "step"
    """`Machine.step` executed what it was asked for."""
    STOPPED = "stopped"
    """A handler, hook or another thread called `Machine.stop`."""


_STATUS = {
    StopReason.CRASH: 120,
    StopReason.TRIPLE_FAULT: 122,
    StopReason.MAX_INSTRUCTIONS: 124,
    StopReason.TIMEOUT: 124,
}
"""Process statuses of ends that are no guest's wish. Even, so that they cannot be taken for one of `isa-debug-exit`,
whose are all odd; 124 is that of timeout(1)."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one `Machine.run` did.

    debug_exit: the value that the guest wrote to `isa-debug-exit`, else None. instructions: retired by all vCPUs in
    this run. exits: how often the engine came to us, by kind, in this run. fixups: hypercall instructions repaired or
    emulated in this run. virtual_ns: guest time of this run in nanoseconds. wall_s: the host's, in seconds. engine:
    what executed it. vcpu: index of the vCPU that ended it, None if none did. message: what the guest said about that.
    """

    reason: StopReason
    instructions: int
    exits: Mapping[str, int]
    fixups: int
    virtual_ns: int
    wall_s: float
    engine: str
    debug_exit: int | None = None
    vcpu: int | None = None
    message: str = ""

    def after(self, earlier: Result) -> Result:
        """Return this run and the one that it continued as one: how it ended, and what both did."""
        return replace(
            self,
            instructions=earlier.instructions + self.instructions,
            exits={kind: earlier.exits.get(kind, 0) + count for kind, count in self.exits.items()},
            fixups=earlier.fixups + self.fixups,
            virtual_ns=earlier.virtual_ns + self.virtual_ns,
            wall_s=earlier.wall_s + self.wall_s,
        )

    @property
    def status(self) -> int:
        """A process status: as QEMU's for `isa-debug-exit`, `(value << 1 | 1) & 0xff`; 0 for an orderly end, 124 for a
        limit, 122 for a triple fault, 120 for a crash that the guest reports or prints."""
        if self.debug_exit is not None:
            return (self.debug_exit << 1 | 1) & 0xFF
        return _STATUS.get(self.reason, 0)

    @property
    def ok(self) -> bool:
        """Whether the guest ended well: status 0, or a test kernel's success (1)."""
        return self.status in (0, 1)
