"""What the tests of whole guests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paravirt as pv

GUESTS = Path(__file__).parent.parent / "guests"

MAX_INSTRUCTIONS = 2_000_000_000
"""No guest test needs as many; one that hangs ends here, at the same place each time."""


class SumInterface(pv.Interface):
    """What tests/guests/code.h calls."""

    signature = b"PARAVIRTTEST"

    @pv.hypercall(0x100)
    def sum(self, vcpu: pv.Vcpu, a0: int, a1: int, a2: int, a3: int) -> int:
        return a0 + 2 * a1 + 3 * a2 + 4 * a3


@dataclass(frozen=True)
class GuestRun:
    """A guest that has come to its end."""

    machine: pv.Machine
    result: pv.Result
    console: str

    @property
    def failures(self) -> list[str]:
        return [line for line in self.console.splitlines() if line.startswith("FAIL")]

    def expect_success(self) -> GuestRun:
        """The guest itself found nothing wrong, and its main returned 0."""
        assert not self.failures, self.console
        assert self.result.debug_exit == 0, f"{self.result}\n{self.console}"
        return self


BuildGuest = Callable[..., Path]
RunGuest = Callable[..., GuestRun]
