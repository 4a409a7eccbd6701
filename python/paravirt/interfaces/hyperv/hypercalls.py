"""The calling convention: input value, parameter blocks in memory or registers, repetitions, status.

Source: TLFS chapter "Hypercall interface".

- The input value says which call, how its parameters come, and for a *rep* call which elements of a list are left.
- Parameters are a block: a header of fixed size, a variable header of 8-byte words, a list of elements. It is in
  memory, aligned to 8 bytes and within a page; or, in a *fast* call, in two registers and then XMM0 to XMM5.
- Output goes to a block in memory or, in a fast call, to those of these registers that the input left over.
- The result is a status, and how many elements are done.

Checks come in this order: level and mode (#UD), code, input value, privilege, parameter blocks, the call's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from paravirt.errors import GuestFault, GuestMemoryError
from paravirt.host import UD_VECTOR
from paravirt.hypercalls.registers import MASK32, R8, RAX, RBX, RCX, RDI, RDX, RSI
from paravirt.interfaces.hyperv.definitions import PAGE_SIZE, Feature, Status

if TYPE_CHECKING:
    from paravirt.hypercalls.dispatch import Call
    from paravirt.interfaces.hyperv.interface import HyperV
    from paravirt.vcpu import Vcpu

__all__ = ["Hypercalls", "Refusal", "Request", "hv_call"]

FAST = 1 << 16
RESERVED = 0xF000_F000_7800_0000
"""Bits 30:27, 47:44 and 63:60. Bit 31 asks the outermost of nested hypervisors, which this is."""
REPS_SHIFT = 32
REPS_MASK = 0xFFF
MAX_FAST_BYTES = 112
XMM_BYTES = 16
NUM_XMM = 6
CR0_PE = 1 << 0

Handler = TypeVar("Handler", bound=Callable[..., None])


class Refusal(Exception):
    """Ends a hypercall with a status other than success; of a rep call, the elements done so far stay done."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a hypercall takes and gives. Sizes in bytes."""

    code: int
    header: int
    element: int
    output: int
    has_variable_header: bool
    may_be_fast: bool
    requires: object


def hv_call(
    code: int,
    *,
    header: int,
    element: int = 0,
    output: int = 0,
    variable_header: bool = False,
    fast: bool = True,
    requires: object = None,
) -> Callable[[Handler], Handler]:
    """Make a section's method carry out a hypercall: `call(self, request)`, which raises Refusal for a status.

    header: bytes of fixed input. element: bytes of each list element, which makes it a rep call. output: bytes it
    returns, of a rep call for each element. variable_header: whether one may follow the fixed one. fast: whether
    parameters may come in registers. requires: what must be announced, or else the call ends with
    HV_STATUS_ACCESS_DENIED.
    """
    shape = _Shape(code, header, element, output, variable_header, fast, requires)

    def decorate(handler: Handler) -> Handler:
        handler._hv_call = shape  # type: ignore[attr-defined]
        return handler

    return decorate


@dataclass(slots=True)
class _Registers:
    """The registers of one call, wherever the mode has them."""

    control: int
    first: int
    second: int

    @classmethod
    def of(cls, call: Call) -> _Registers:
        values = call.registers
        if call.is_64bit:
            return cls(values[RCX], values[RDX], values[R8])
        return cls(_pair(values, RDX, RAX), _pair(values, RBX, RCX), _pair(values, RDI, RSI))


def _pair(values: tuple[int, ...], high: int, low: int) -> int:
    return (values[high] & MASK32) << 32 | values[low] & MASK32


@dataclass(slots=True)
class Request:
    """One hypercall on its way, its input read and checked for form.

    header: the fixed part of the input. words: the variable header's. elements: what is left of a rep call's list.
    output: what the guest will get. reps_done: how many elements of the whole list are done.
    """

    vcpu: Vcpu
    header: bytes
    words: list[int] = field(default_factory=list)
    elements: list[bytes] = field(default_factory=list)
    reps_done: int = 0
    output: bytearray = field(default_factory=bytearray)

    def u32(self, offset: int) -> int:
        """A number of 4 bytes in the header."""
        return int.from_bytes(self.header[offset : offset + 4], "little")

    def u64(self, offset: int) -> int:
        """A number of 8 bytes in the header."""
        return int.from_bytes(self.header[offset : offset + 8], "little")

    def all_done(self) -> None:
        """All elements are done."""
        self.reps_done += len(self.elements)


class Hypercalls:
    """Finds who carries out a call, reads its input, writes its output."""

    def __init__(self, interface: HyperV) -> None:
        self._interface = interface
        self._calls = dict(_find_calls(interface))

    def answer(self, vcpu: Vcpu, call: Call) -> int:
        """Carry out a call. Returns RAX; outside 64-bit code EAX, EDX being set. Raises GuestFault."""
        if call.cpl or not vcpu.cr0 & CR0_PE:
            raise GuestFault(UD_VECTOR)
        registers = _Registers.of(call)
        try:
            shape, handler = self._find(registers.control)
            request = self._read(vcpu, call, registers, shape)
        except Refusal as refusal:
            return self._give(vcpu, call, refusal.status)
        status, start = Status.SUCCESS, request.reps_done
        try:
            handler(request)
        except Refusal as refusal:
            status = refusal.status
        self._write_output(registers, shape, request, start)
        return self._give(vcpu, call, status | (request.reps_done & REPS_MASK) << REPS_SHIFT)

    @staticmethod
    def _give(vcpu: Vcpu, call: Call, result: int) -> int:
        if not call.is_64bit:
            vcpu.rdx = result >> 32
            return result & MASK32
        return result

    # -- the input value

    def _find(self, control: int) -> tuple[_Shape, Callable[[Request], None]]:
        found = self._calls.get(control & 0xFFFF)
        if found is None:
            raise Refusal(Status.INVALID_HYPERCALL_CODE)
        shape, _ = found
        if not shape.may_be_fast and control & FAST:
            raise Refusal(Status.INVALID_HYPERCALL_CODE)  # As under KVM, whose guests may rely on it.
        reps, start = control >> REPS_SHIFT & REPS_MASK, control >> 48 & REPS_MASK
        bad_reps = start >= reps if shape.element else reps or start
        bad_header = _variable_words(control) and not shape.has_variable_header
        if control & RESERVED or bad_reps or bad_header:
            raise Refusal(Status.INVALID_HYPERCALL_INPUT)
        if shape.requires is not None and not self._interface.offers(shape.requires):
            raise Refusal(Status.ACCESS_DENIED)
        return found

    # -- parameter blocks

    def _read(self, vcpu: Vcpu, call: Call, registers: _Registers, shape: _Shape) -> Request:
        control = registers.control
        words, reps, start = _variable_words(control), control >> REPS_SHIFT & REPS_MASK, control >> 48 & REPS_MASK
        list_offset = shape.header + 8 * words
        size = list_offset + shape.element * reps
        output = shape.output * (reps or 1)
        if control & FAST:
            block = self._read_registers(vcpu, call, registers, size, output)
        else:
            block = self._read_memory(registers.first, size)
            self._read_memory(registers.second, output)  # It must be there before anything is done.
        request = Request(vcpu, block[: shape.header], reps_done=start)
        if words:
            request.words = [int.from_bytes(block[at : at + 8], "little") for at in range(shape.header, list_offset, 8)]
        if reps:
            first = list_offset + start * shape.element
            request.elements = [block[at : at + shape.element] for at in range(first, size, shape.element)]
        return request

    def _read_memory(self, gpa: int, size: int) -> bytes:
        if not size:
            return b""
        if gpa % 8 or gpa % PAGE_SIZE + size > PAGE_SIZE:
            raise Refusal(Status.INVALID_ALIGNMENT)
        try:
            return self._interface.machine.memory.read(gpa, size)
        except GuestMemoryError:
            raise Refusal(Status.INVALID_ALIGNMENT) from None

    def _read_registers(self, vcpu: Vcpu, call: Call, registers: _Registers, size: int, output: int) -> bytes:
        if size > 16 and not self._interface.offers(Feature.XMM_INPUT):
            raise GuestFault(UD_VECTOR)
        if output and not (call.is_64bit and self._interface.offers(Feature.XMM_OUTPUT)):
            raise Refusal(Status.INVALID_HYPERCALL_INPUT)
        if _round_up(size) + output > MAX_FAST_BYTES:
            raise Refusal(Status.INVALID_HYPERCALL_INPUT)
        block = registers.first.to_bytes(8, "little") + registers.second.to_bytes(8, "little")
        for index in range((_round_up(size) - len(block)) // XMM_BYTES):
            block += vcpu.xmm[index].to_bytes(XMM_BYTES, "little")
        return block[:size]

    def _write_output(self, registers: _Registers, shape: _Shape, request: Request, start: int) -> None:
        if not request.output:
            return
        control, offset = registers.control, shape.output * start
        if not control & FAST:
            self._interface.machine.memory.write(registers.second + offset, request.output)
            return
        reps = control >> REPS_SHIFT & REPS_MASK
        position = _round_up(shape.header + 8 * _variable_words(control) + shape.element * reps) + offset
        for at in range(0, len(request.output), XMM_BYTES):
            part = bytes(request.output[at : at + XMM_BYTES])
            _write_register(request.vcpu, (position + at) // XMM_BYTES, part)


def _write_register(vcpu: Vcpu, position: int, part: bytes) -> None:
    """Write up to 16 bytes of fast output. Position 0 is RDX and R8, 1 to 6 are XMM0 to XMM5."""
    if position:
        vcpu.xmm[position - 1] = int.from_bytes(part, "little")
        return
    vcpu.rdx = int.from_bytes(part[:8], "little")
    if len(part) > 8:
        vcpu.r8 = int.from_bytes(part[8:], "little")


def _variable_words(control: int) -> int:
    return control >> 17 & 0x3FF


def _round_up(size: int) -> int:
    return -(-size // XMM_BYTES) * XMM_BYTES


def _find_calls(interface: HyperV) -> Iterator[tuple[int, tuple[_Shape, Callable[[Request], None]]]]:
    for part in interface.parts():
        for name in dir(type(part)):
            shape = getattr(getattr(type(part), name, None), "_hv_call", None)
            if shape is not None:
                yield shape.code, (shape, getattr(part, name))
