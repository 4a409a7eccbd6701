"""The guest's console: a ring in a page that it shares with the domain of the tool stack, and console_io, by which it
writes to the hypervisor's own.

Both go where the machine's serial port goes. Test kernels print everything on both, first by console_io, so what the
ring has is not printed again if it is what was written just before.

Source: Xen's public/io/console.h; public/xen.h (CONSOLEIO_*).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from paravirt.interfaces.xen.abi import Errno, XenError
from paravirt.interfaces.xen.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from paravirt.interfaces.xen.caller import Caller
    from paravirt.interfaces.xen.domain import Domain

__all__ = ["XenConsole"]

CONSOLEIO_WRITE, CONSOLEIO_READ = 0, 1
IN_BYTES, OUT_BYTES = 1024, 2048
IN, OUT, IN_CONS, IN_PROD, OUT_CONS, OUT_PROD = 0, 1024, 3072, 3076, 3080, 3084
CHUNK = 4096
MAX_WRITE = 1 << 20
"""A guest may ask for more to be written; nobody would read it."""
MAX_INPUT = 1 << 16


class XenConsole:
    """Both consoles of a domain. gpa: of the ring's page. notify: sends the guest an event."""

    def __init__(self, domain: Domain, gpa: int, notify: Callable[[], None]) -> None:
        self._domain = domain
        self._notify = notify
        self._out = Ring(domain.machine.memory, gpa + OUT, OUT_BYTES, gpa + OUT_CONS, gpa + OUT_PROD)
        self._in = Ring(domain.machine.memory, gpa + IN, IN_BYTES, gpa + IN_CONS, gpa + IN_PROD)
        self._written = b""
        """What console_io has written last, and the ring has not repeated yet."""
        self._input: deque[bytes] = deque()

    def reset(self) -> None:
        """Nothing is on its way."""
        self._written = b""
        self._input.clear()

    # -- the ring

    def serve(self) -> None:
        """Print what is in the ring, and put in what was typed. The guest is told if either has changed something."""
        data = self._out.take(OUT_BYTES)
        if data:
            self._print_from_ring(data)
        if self._put_input() or data:
            self._notify()

    def send(self, data: bytes) -> None:
        """Type for the guest. What it does not read soon is kept, up to a limit."""
        if sum(map(len, self._input)) + len(data) <= MAX_INPUT:
            self._input.append(data)
        if self._put_input():
            self._notify()

    def _put_input(self) -> bool:
        before = len(self._input)
        while self._input:
            data = self._input.popleft()
            done = self._in.put(data)
            if done < len(data):
                self._input.appendleft(data[done:])
                return done > 0
        return before > 0

    def _print_from_ring(self, data: bytes) -> None:
        if self._written.startswith(data):
            self._written = self._written[len(data) :]
        else:
            self._written = b""
            self._domain.machine.console.print(data)

    # -- console_io

    def console_io(self, caller: Caller, command: int, count: int, pointer: int) -> int:
        """Hypercall 18."""
        if command == CONSOLEIO_READ:
            return 0
        if command != CONSOLEIO_WRITE:
            raise XenError(Errno.ENOSYS)
        self._written = b""
        for at in range(0, min(count, MAX_WRITE), CHUNK):
            data = caller.read(pointer + at, min(CHUNK, count - at))
            self._domain.machine.console.print(data.replace(b"\0", b""))
            self._written = (self._written + data)[:OUT_BYTES]
        return 0
