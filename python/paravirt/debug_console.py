"""What the guest writes to the debug ports: 0xE9 as in Bochs, 0x402 as firmware does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt import _native

__all__ = ["DebugConsole"]

KEPT_BYTES = 16 << 20
"""The most output that is kept. The oldest goes first."""


class DebugConsole:
    """The debug ports of a machine. Output is kept and read from here, or goes to a file descriptor."""

    def __init__(self, vm: _native.Vm, fd: int | None = None) -> None:
        self._vm = vm
        self._kept = bytearray()
        vm.set_debug_console_fd(fd)

    def pump(self) -> None:
        """Collect what the guest has written since: the board keeps only so much."""
        self._kept += self._vm.take_debug_console()
        del self._kept[: max(0, len(self._kept) - KEPT_BYTES)]

    @property
    def output(self) -> bytes:
        """Everything written so far, the last 16 MiB of it; empty if it goes to a file descriptor."""
        self.pump()
        return bytes(self._kept)

    @property
    def text(self) -> str:
        """`output` as text. Bytes that are no UTF-8 show as U+FFFD."""
        return self.output.decode("utf-8", "replace")
