"""What the guest prints on its serial port, and what it is given to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from paravirt import _native
from paravirt.console_input import ConsoleInput
from paravirt.errors import ConfigurationError, EngineError

if TYPE_CHECKING:
    from paravirt.host_events import HostEvents

__all__ = ["Console"]

KEPT_BYTES = 16 << 20
"""The most output that is kept; a guest can print for ever. The oldest goes first."""


class Console:
    """Serial port 1 of a machine.

    Without a stream, output is kept and read from here. With one that has a file descriptor, the board writes to that
    unbuffered and nothing is kept; any other stream gets it as text while the machine runs.
    """

    def __init__(self, vm: _native.Vm, stream: int | IO[str] | IO[bytes] | None, events: HostEvents) -> None:
        self._vm = vm
        self._events = events
        self._stream: IO[str] | IO[bytes] | None = None
        self._kept = bytearray()
        self._read_to = 0
        fd = _descriptor(stream)
        if fd is None and not isinstance(stream, int):
            self._stream = stream
        self.is_captured = fd is None
        vm.set_console_fd(fd)

    @property
    def needs_pump(self) -> bool:
        """Whether somebody must call `pump` while the machine runs: the board keeps only so much."""
        return self.is_captured

    def pump(self) -> None:
        """Collect what the guest has printed since, and pass it to the stream."""
        data = self._vm.take_console()
        if not data:
            return
        self._kept += data
        excess = len(self._kept) - KEPT_BYTES
        if excess > 0:
            del self._kept[:excess]
            self._read_to = max(0, self._read_to - excess)
        if self._stream is not None:
            _write(self._stream, data)

    @property
    def output(self) -> bytes:
        """Everything printed so far, the last 16 MiB of it; empty if it goes to a file descriptor."""
        self.pump()
        return bytes(self._kept)

    @property
    def text(self) -> str:
        """`output` as text. Bytes that are no UTF-8 show as U+FFFD; line ends become newlines."""
        return self.output.decode("utf-8", "replace").replace("\r\n", "\n")

    @property
    def recent(self) -> bytes:
        """The last bytes printed, at most 8 KiB, wherever they went."""
        return self._vm.recent_console()

    def read(self) -> bytes:
        """Return what was printed since the last call of `read`."""
        self.pump()
        data = bytes(self._kept[self._read_to :])
        self._read_to = len(self._kept)
        return data

    def print(self, data: bytes) -> None:
        """Print for the guest, where its serial port's output goes: for interfaces with a console of their own. Raises
        EngineError if it cannot be written."""
        if self.needs_pump:
            self.pump()  # The board keeps only so much, and a guest may print a lot between two looks.
        try:
            self._vm.print_console(data)
        except _native.HostError as error:
            raise EngineError(str(error)) from error

    def send(self, data: bytes | str) -> None:
        """Give the guest something to read on its serial port."""
        self._vm.console_input(data.encode() if isinstance(data, str) else data)

    def send_break(self) -> None:
        """Send a break behind what was sent. Linux takes the next byte for a SysRq command."""
        self._vm.console_break()

    def read_from(self, fd: int, keys: Callable[[bytes], bytes] | None = None) -> None:
        """Give the guest what arrives on a file descriptor while the machine runs, as much as it takes, until its end.

        keys: is asked about all that is typed and returns what of it the guest gets; it may stop the machine. Without
        it nothing is read before the guest wants it. A run with such input depends on when it comes, unless it is there
        from the beginning, as in a file.
        """
        self._events.watch(ConsoleInput(self._vm, fd, keys))

    def __repr__(self) -> str:
        return f"<Console {'captured' if self.is_captured else 'to a file descriptor'}>"


def _descriptor(stream: int | IO[str] | IO[bytes] | None) -> int | None:
    if stream is None:
        return None
    if isinstance(stream, int):
        if stream < 0:
            raise ConfigurationError(f"console {stream!r} is not a file descriptor", option="console", value=stream)
        return stream
    try:
        stream.flush()
        return stream.fileno()
    except (AttributeError, OSError):
        return None  # A stream of Python's own, as in a notebook or a test.


def _write(stream: IO[Any], data: bytes) -> None:
    try:
        stream.write(data.decode("utf-8", "replace"))
    except TypeError:  # A stream of bytes.
        stream.write(data)
    stream.flush()
