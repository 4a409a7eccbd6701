"""Connections: what PostMessage and SignalEvent name, and the ports behind them.

Source: TLFS chapter "Inter-partition communication". The specification has the hypervisor's owner make ports and
connections; here a device or a test does, by `HyperV.connect_messages` and `HyperV.connect_events`. A port of messages
belongs to one source of one processor and has sixteen buffers, a port of events has one flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paravirt.errors import ConfigurationError
from paravirt.interfaces.hyperv.definitions import (
    HVCALL_POST_MESSAGE,
    HVCALL_SIGNAL_EVENT,
    NUM_SINTS,
    Privilege,
    Status,
)
from paravirt.interfaces.hyperv.hypercalls import Refusal, Request, hv_call
from paravirt.interfaces.hyperv.section import Section
from paravirt.interfaces.hyperv.synic import EVENT_FLAGS_PER_SINT, MAX_PAYLOAD, Message

if TYPE_CHECKING:
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["Connections"]

MAX_CONNECTION_ID = 0xFF_FFFF
BUFFERS_PER_PORT = 16
MESSAGE_HEADER_SIZE = 16
FIRST_HYPERVISOR_TYPE = 1 << 31


@dataclass(slots=True)
class _Port:
    """Where messages or events go. flag: the event flag. waiting: what is in its buffers."""

    vcpu: Vcpu
    sint: int
    flag: int = 0
    waiting: list[Message] = field(default_factory=list)


class Connections(Section):
    """PostMessage and SignalEvent."""

    def __init__(self, interface: HyperV) -> None:
        super().__init__(interface)
        self._messages: dict[int, _Port] = {}
        self._events: dict[int, _Port] = {}

    def reset(self) -> None:
        """No message waits any more. Connections stay: they are the host's."""
        for port in self._messages.values():
            port.waiting.clear()

    # -- for the host

    def connect_messages(self, connection_id: int, vcpu: Vcpu, sint: int) -> None:
        """Let messages posted to a connection go to a source of a processor. Raises ConfigurationError."""
        _check(connection_id, sint)
        self.disconnect_messages(connection_id)
        self._messages[connection_id] = _Port(vcpu, sint)

    def connect_events(self, connection_id: int, vcpu: Vcpu, sint: int, flag: int) -> None:
        """Let signals to a connection set an event flag of a source of a processor. Raises ConfigurationError."""
        _check(connection_id, sint)
        if not 0 <= flag < EVENT_FLAGS_PER_SINT:
            raise ConfigurationError(f"event flag {flag} is not in 0 to {EVENT_FLAGS_PER_SINT - 1}", option="flag")
        self._events[connection_id] = _Port(vcpu, sint, flag)

    def disconnect_messages(self, connection_id: int) -> None:
        """Take a connection for messages away, if it is there, and with it those that wait."""
        port = self._messages.pop(connection_id, None)
        if port is not None:
            for message in port.waiting:
                self.interface.synic.withdraw(port.vcpu, port.sint, message)

    def disconnect_events(self, connection_id: int) -> None:
        """Take a connection for events away, if it is there."""
        self._events.pop(connection_id, None)

    # -- for the guest

    @hv_call(HVCALL_POST_MESSAGE, header=256, fast=False, requires=Privilege.POST_MESSAGES)
    def post_message(self, request: Request) -> None:
        """Post a message; one whose slot is busy waits in a buffer of the port."""
        kind, size = request.u32(8), request.u32(12)
        if request.u32(4):
            raise Refusal(Status.INVALID_HYPERCALL_INPUT)
        if not 0 < kind < FIRST_HYPERVISOR_TYPE or size > MAX_PAYLOAD:
            raise Refusal(Status.INVALID_PARAMETER)
        port = self._messages.get(request.u32(0))
        if port is None:
            raise Refusal(Status.INVALID_CONNECTION_ID)
        synic = self.interface.synic
        if not synic.can_take_messages(port.vcpu):
            raise Refusal(Status.INVALID_SYNIC_STATE)
        if len(port.waiting) >= BUFFERS_PER_PORT:
            raise Refusal(Status.INSUFFICIENT_BUFFERS)
        payload = request.header[MESSAGE_HEADER_SIZE : MESSAGE_HEADER_SIZE + size]
        message = Message(kind, lambda: payload, on_delivered=lambda: port.waiting.remove(message))
        port.waiting.append(message)
        synic.post(port.vcpu, port.sint, message)

    @hv_call(HVCALL_SIGNAL_EVENT, header=8, requires=Privilege.SIGNAL_EVENTS)
    def signal_event(self, request: Request) -> None:
        """Set the event flag of a connection."""
        if request.u64(0) >> 48 or request.u32(0) > MAX_CONNECTION_ID:
            raise Refusal(Status.INVALID_HYPERCALL_INPUT)
        if request.u64(0) >> 32:
            raise Refusal(Status.INVALID_PORT_ID)  # A flag that the port does not have.
        port = self._events.get(request.u32(0))
        if port is None:
            raise Refusal(Status.INVALID_CONNECTION_ID)
        synic = self.interface.synic
        if not synic.can_take_events(port.vcpu, port.sint):
            raise Refusal(Status.INVALID_SYNIC_STATE)
        synic.signal(port.vcpu, port.sint, port.flag)


def _check(connection_id: int, sint: int) -> None:
    if not 0 <= connection_id <= MAX_CONNECTION_ID:
        raise ConfigurationError(
            f"connection {connection_id:#x} is not in 0 to {MAX_CONNECTION_ID:#x}", option="connection_id"
        )
    if not 0 <= sint < NUM_SINTS:
        raise ConfigurationError(f"sint {sint} is not in 0 to {NUM_SINTS - 1}", option="sint")
