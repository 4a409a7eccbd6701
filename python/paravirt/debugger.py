"""gdb at the machine: a server of its remote protocol.

The protocol is native code, `_native.GdbSession`: bytes in, bytes out, and what gdb wants next. Here is what it takes
to do that with a machine: connections, which are watched as any other input while the guest runs, and a loop that runs
and steps the machine through its public methods. So a debugged guest does what it does otherwise: its time stands still
while gdb asks, and breakpoints are the machine's own, which leave its memory alone.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from paravirt import _native
from paravirt.errors import ConfigurationError
from paravirt.result import Result, StopReason
from paravirt.status import describe_blocks, describe_status

if TYPE_CHECKING:
    from paravirt.machine import Breakpoint, Machine
    from paravirt.vcpu import Vcpu

__all__ = ["GdbServer", "parse_address"]

LOOPBACK = "127.0.0.1"
READ_BYTES = 64 << 10
FIRST_BYTES = b"+-$\x03"
"""What gdb can begin with. A browser that a web page makes send a request to this port begins otherwise, and would be
understood where the request's content is."""
SEND_TIMEOUT_S = 10
"""A gdb that does not read for so long has gone."""

SIGINT, SIGTRAP, SIGSEGV, SIGSTOP = 2, 5, 11, 17
"""Signals by gdb's numbers, which are not Linux's."""
_SIGNALS = {
    StopReason.STOPPED: SIGINT,
    StopReason.STEP: SIGTRAP,
    StopReason.BREAKPOINT: SIGTRAP,
    StopReason.TRIPLE_FAULT: SIGSEGV,
    StopReason.HALTED: SIGSTOP,
}
"""What gdb is told. All other reasons are ends of the guest."""
_INSPECTED_ENDS = frozenset((StopReason.TRIPLE_FAULT, StopReason.HALTED))
"""Ends, too, but first one can look at what is left. When gdb lets the guest go on, it has ended."""
STEPS_BETWEEN_LOOKS = 256
"""How many steps through a line of source code are done before somebody looks whether gdb still wants them."""


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `"PORT"` or `"HOST:PORT"`; without a host the loopback. Raises ConfigurationError."""
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"gdb address {address!r} is not PORT or HOST:PORT, with a port of 0 to 65535", option="gdb", value=address
        )
    return host.strip("[]") or LOOPBACK, int(port)


class _Listener:
    """Waits for gdb to connect."""

    is_waiting = True
    is_over = False

    def __init__(self, address: str, accepted: Callable[[socket.socket], None]) -> None:
        host, port = parse_address(address)
        self._accepted = accepted
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            self.socket = socket.create_server((host, port), family=family)
        except OSError as error:
            text = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"cannot listen for gdb on {address!r}: {text}", option="gdb") from error

    def fileno(self) -> int:
        return self.socket.fileno()

    def work(self) -> bool:
        return False

    def ready(self) -> None:
        try:
            connection, _peer = self.socket.accept()
        except OSError:
            return  # It has gone already.
        self._accepted(connection)


class _Connection:
    """One gdb that is connected. Whatever goes wrong with it ends it, and nothing else."""

    is_waiting = True

    def __init__(self, connection: socket.socket, server: GdbServer, vm: _native.Vm) -> None:
        self._socket = connection
        self._socket.settimeout(SEND_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = server
        self._session = _native.GdbSession(vm, server)
        self._has_begun = False
        self.is_over = False

    @property
    def state(self) -> str:
        """As the session's; `"lost"` if the connection is."""
        return "lost" if self.is_over else self._session.state

    @property
    def resume(self) -> tuple[int | None, tuple[int, int] | None, bool]:
        """As the session's."""
        return self._session.resume

    def fileno(self) -> int:
        return self._socket.fileno()

    def work(self) -> bool:
        return False

    def ready(self) -> None:
        """Pass on what gdb says."""
        try:
            data = self._socket.recv(READ_BYTES)
            if not data:
                self._lose("gdb has gone")
            elif self._has_begun or data[0] in FIRST_BYTES:
                self._has_begun = True
                self._session.feed(data)
            else:
                self._lose(f"what connected for gdb does not speak its protocol: it began with {data[:16]!r}")
        except OSError as error:
            self._lose(f"lost gdb: {(error.strerror or str(error)).lower()}")
        except _native.GdbProtocolError as error:
            self._lose(f"what connected for gdb does not speak its protocol: {error}")
        else:
            self._flush()
        self._server.heard()

    def report(self, result: Result, vcpu: Vcpu) -> None:
        """Tell gdb that the machine has stopped."""
        if result.reason is StopReason.BREAKPOINT:
            self._send(lambda: self._session.report_breakpoint(vcpu.index, vcpu.linear_rip))
        else:
            self._send(lambda: self._session.report_signal(vcpu.index, _SIGNALS[result.reason]))

    def report_end(self, result: Result) -> None:
        """Tell gdb that the guest has ended."""
        self._send(lambda: self._session.report_exit(result.status))

    def _send(self, report: Callable[[], None]) -> None:
        try:
            report()
        except _native.GdbProtocolError as error:
            self._lose(f"lost gdb: {error}")
        else:
            self._flush()

    def _flush(self) -> None:
        try:
            self._socket.sendall(self._session.take_output())
        except OSError as error:
            self._lose(f"lost gdb: {(error.strerror or str(error)).lower()}")

    def _lose(self, message: str) -> None:
        if not self.is_over:
            sys.stderr.write(f"paravirt: {message}\n")
        self.is_over = True

    def close(self) -> None:
        """Take its breakpoints away and hang up."""
        self._session.clear()
        self.is_over = True
        self._socket.close()


class GdbServer:
    """Lets gdb run a machine.

        with GdbServer(machine, "1234") as server:
            result = server.run()

    address: `"PORT"` on the loopback, or `"HOST:PORT"`; port 0 takes a free one. Whoever can connect reads and writes
    all of the guest's memory, so think before you give another host. One gdb at a time; when it detaches the guest runs
    on, when it goes without a word the guest waits for the next. Raises ConfigurationError if nobody can listen there.
    """

    def __init__(self, machine: Machine, address: str = "1234") -> None:
        self._machine = machine
        self._breakpoints: dict[int, Breakpoint] = {}
        self._connection: _Connection | None = None
        self._is_free = False
        """Whether the guest may run while nobody is connected."""
        self._is_guest_running = False
        self._is_stopped_by_gdb = False
        self._total: Result | None = None
        self._end: Result | None = None
        """The guest has come to an end that one can look at."""
        self._listener = _Listener(address, self._accept)
        machine._events.watch(self._listener)

    @property
    def address(self) -> str:
        """Where gdb connects: `target remote` this."""
        host, port = self._listener.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def run(self) -> Result:
        """Wait for gdb, and run the machine as it wants, until the guest ends or gdb kills it (reason STOPPED).

        Before gdb connects, and while it asks, the guest stands still. `Machine.stop` and Ctrl-C end the waiting, too.
        """
        self._total = self._end = None
        while (result := self._go_on()) is None:
            pass
        if self._connection is not None:
            self._hang_up(self._connection)
        return result

    def _go_on(self) -> Result | None:
        """Do what is to be done next. Returns the result if that was the last."""
        connection = self._connection
        if connection is None:
            return self._run_without_gdb()
        match connection.state:
            case "stopped":
                return None if self._wait(lambda: connection.state != "stopped") else self._stopped()
            case "running" | "interrupted":
                return self._run_for(connection)
            case "killed":
                return self._stopped()
            case state:
                self._is_free = state == "detached"
                self._hang_up(connection)
                return None

    def _run_without_gdb(self) -> Result | None:
        if not self._is_free:
            return None if self._wait(lambda: self._connection is not None) else self._stopped()
        result = self._execute(self._machine.run)
        return None if self._is_stopped_by_gdb else result

    def _run_for(self, connection: _Connection) -> Result | None:
        """Run or step the machine as gdb wants, and tell what came of it."""
        if self._end is not None:
            connection.report_end(self._end)
            return self._end
        step, addresses, alone = connection.resume
        if connection.state == "interrupted":
            self._is_stopped_by_gdb = True
            result = self._stopped()
        elif step is None:
            result = self._execute(self._machine.run)
        else:
            result = self._step(step, addresses, alone)
        if result.reason is StopReason.STOPPED and not self._is_stopped_by_gdb:
            return result
        if result.reason not in _SIGNALS:
            connection.report_end(result)
            return result
        if result.reason in _INSPECTED_ENDS:
            self._end = result
        vcpu = self._machine._vm.current_vcpu() if result.vcpu is None else result.vcpu
        connection.report(result, self._machine.vcpus[vcpu])
        return None

    def _step(self, vcpu: int, addresses: tuple[int, int] | None, alone: bool) -> Result:
        """Step a vCPU once, or until it has left a range of addresses."""
        steps = 0
        while True:
            result = self._execute(lambda: self._machine.step(vcpu, alone=alone))
            steps += 1
            if result.reason is not StopReason.STEP or addresses is None:
                return result
            if not addresses[0] <= self._machine.vcpus[vcpu].rip < addresses[1]:
                return result
            if steps % STEPS_BETWEEN_LOOKS == 0 and self._is_interrupted():
                return self._stopped()

    def _is_interrupted(self) -> bool:
        self._machine._events.poll(0)
        self._is_stopped_by_gdb = self._connection is None or self._connection.state != "running"
        return self._is_stopped_by_gdb

    def _execute(self, run: Callable[[], Result]) -> Result:
        self._is_stopped_by_gdb = False
        self._is_guest_running = True
        try:
            result = run()
        finally:
            self._is_guest_running = False
        self._total = result if self._total is None else result.after(self._total)
        return self._total

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Serve gdb, and the user's keys, until a condition holds. False if somebody stops the machine meanwhile."""
        return self._machine._wait(condition)

    def _stopped(self) -> Result:
        """Somebody has stopped the machine: what it did until then."""
        if self._total is None:
            return Result(StopReason.STOPPED, 0, {}, 0, 0, 0.0, self._machine._engine.name)
        return replace(self._total, reason=StopReason.STOPPED, vcpu=None)

    # -- connections

    def _accept(self, connection: socket.socket) -> None:
        if self._connection is not None:
            if not self._connection.is_over:
                connection.close()
                return
            self._hang_up(self._connection)
        self._connection = _Connection(connection, self, self._machine._vm)
        self._machine._events.watch(self._connection)
        self._is_free = False
        self.heard()

    def heard(self) -> None:
        """gdb has said something, or gone: a guest that runs stops, unless it is to go on."""
        if self._is_guest_running and self._connection is not None and self._connection.state != "running":
            self._is_stopped_by_gdb = True
            self._machine.stop()

    def _hang_up(self, connection: _Connection) -> None:
        self._machine._events.unwatch(connection)
        connection.close()
        self._connection = None

    def close(self) -> None:
        """Hang up, and listen no more."""
        if self._connection is not None:
            self._hang_up(self._connection)
        self._machine._events.unwatch(self._listener)
        self._listener.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- the owner of a session

    def insert_breakpoint(self, gva: int) -> None:
        """Stop at an address."""
        self._breakpoints[gva] = self._machine.breakpoint(gva)

    def remove_breakpoint(self, gva: int) -> None:
        """Do not stop there any more."""
        if breakpoint := self._breakpoints.pop(gva, None):
            breakpoint.remove()

    def monitor(self, command: str) -> str:
        """Answer gdb's `monitor COMMAND`."""
        answer = _MONITOR.get(command.strip() or "help")
        if answer is None:
            return f"unknown command {command.strip()!r}; monitor help lists them\n"
        return answer[1](self._machine)


def _help(_machine: Machine) -> str:
    return "".join(f"monitor {name:<7} {text}\n" for name, (text, _) in _MONITOR.items())


_MONITOR: dict[str, tuple[str, Callable[[Machine], str]]] = {
    "info": ("guest time, and where each vCPU is", describe_status),
    "blocks": ("the last basic blocks of each vCPU", describe_blocks),
    "help": ("these commands", _help),
}
