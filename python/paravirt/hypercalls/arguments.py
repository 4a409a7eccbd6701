"""Typed arguments of hypercall handlers: numbers of a width, and pointers into guest memory.

A handler says by annotation what it wants; each annotation becomes a function from a register to a Python value when
the machine is built, so that a call costs no look at annotations.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from paravirt.errors import ConfigurationError, GuestMemoryError, GuestPointerError
from paravirt.hypercalls.registers import MASK32, MASK64

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["GpaPtr", "GvaPtr", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Width:
    """The width that an `int` annotation carries."""

    bits: int
    signed: bool


u8 = Annotated[int, _Width(8, False)]
u16 = Annotated[int, _Width(16, False)]
u32 = Annotated[int, _Width(32, False)]
u64 = Annotated[int, _Width(64, False)]
i8 = Annotated[int, _Width(8, True)]
i16 = Annotated[int, _Width(16, True)]
i32 = Annotated[int, _Width(32, True)]
i64 = Annotated[int, _Width(64, True)]


# -- pointers


class _Pointer(Generic[T]):
    """An address that the guest passed. False when it is 0.

    Where there is no memory, reading and writing raise GuestPointerError; left uncaught in a handler, that ends the
    call with the interface's fault code. That a guest passes a bad pointer is no error of ours.
    """

    __slots__ = ("_layout", "address", "vcpu")

    def __init__(self, vcpu: Vcpu, address: int, layout: Layout[T] | None = None) -> None:
        self.vcpu = vcpu
        self.address = address
        self._layout = layout

    def read(self) -> T:
        """Return what it points to. A `ctypes` structure is a copy; write it back to change the guest's."""
        layout = self._known_layout()
        return layout.unpack(self.read_bytes(layout.size))

    def write(self, value: T) -> None:
        """Write what it points to."""
        self.write_bytes(self._known_layout().pack(value))

    def read_bytes(self, length: int, offset: int = 0) -> bytes:
        """Return `length` bytes from `offset` bytes behind the address."""
        raise NotImplementedError

    def write_bytes(self, data: bytes, offset: int = 0) -> None:
        """Write bytes at `offset` bytes behind the address."""
        raise NotImplementedError

    def _known_layout(self) -> Layout[T]:
        if self._layout is None:
            raise ConfigurationError(f"{type(self).__name__} without a type; annotate it as in GpaPtr[u64]")
        return self._layout

    def __bool__(self) -> bool:
        return self.address != 0

    def __int__(self) -> int:
        return self.address

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address:#x}>"


class GpaPtr(_Pointer[T]):
    """A guest-physical address, of a `ctypes.LittleEndianStructure`, a number (`pv.u32`), or an annotated format:
    `GpaPtr[Annotated[tuple, "<IIQ"]]`."""

    __slots__ = ()

    def read_bytes(self, length: int, offset: int = 0) -> bytes:
        """Return `length` bytes from `offset` bytes behind the address."""
        try:
            return self.vcpu.machine.memory.read(self.address + offset, length)
        except GuestMemoryError as error:
            raise GuestPointerError(error.address, error.length, space=error.space) from None

    def write_bytes(self, data: bytes, offset: int = 0) -> None:
        """Write bytes at `offset` bytes behind the address: all of them or none."""
        try:
            self.vcpu.machine.memory.write(self.address + offset, data)
        except GuestMemoryError as error:
            raise GuestPointerError(error.address, error.length, space=error.space) from None


class GvaPtr(_Pointer[T]):
    """A linear address in the calling vCPU's address space; the pages' rights are not looked at. As `GpaPtr` else."""

    __slots__ = ()

    def read_bytes(self, length: int, offset: int = 0) -> bytes:
        """Return `length` bytes from `offset` bytes behind the address."""
        try:
            return self.vcpu.read(self.address + offset, length)
        except GuestMemoryError as error:
            raise GuestPointerError(error.address, error.length, space=error.space) from None

    def write_bytes(self, data: bytes, offset: int = 0) -> None:
        """Write bytes at `offset` bytes behind the address."""
        try:
            self.vcpu.write(self.address + offset, data)
        except GuestMemoryError as error:
            raise GuestPointerError(error.address, error.length, space=error.space) from None


# -- layouts: what a pointer points to


@dataclass(frozen=True, slots=True)
class Layout(Generic[T]):
    """How a Python value lies in guest memory."""

    size: int
    unpack: Callable[[bytes], T]
    pack: Callable[[T], bytes]


def layout_of(annotation: Any) -> Layout[Any]:
    """Return the layout that an annotation describes. Raises ConfigurationError if it describes none."""
    if isinstance(annotation, type) and issubclass(annotation, ctypes.Structure):
        return Layout(ctypes.sizeof(annotation), annotation.from_buffer_copy, bytes)
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, _Width):
                return _number_layout(extra)
            if isinstance(extra, str):
                return _format_layout(extra)
    raise ConfigurationError(
        f"no layout for {annotation!r}; use a ctypes.LittleEndianStructure, pv.u8 to pv.i64, or Annotated[tuple, '<IQ']"
    )


def _number_layout(width: _Width) -> Layout[int]:
    size = width.bits // 8
    mask = (1 << width.bits) - 1
    return Layout(
        size,
        lambda data: int.from_bytes(data, "little", signed=width.signed),
        lambda value: (value & mask).to_bytes(size, "little"),
    )


def _format_layout(text: str) -> Layout[tuple[Any, ...]]:
    if text[:1] != "<":
        raise ConfigurationError(f"format {text!r} must begin with '<': guests are little-endian")
    try:
        codec = struct.Struct(text)
    except struct.error as error:
        raise ConfigurationError(f"format {text!r}: {error}") from None
    return Layout(codec.size, codec.unpack, lambda values: codec.pack(*values))


# -- converters: from a register to the value that a handler gets

Converter = Callable[["Vcpu", int], Any]


def converter_for(annotation: Any, *, is_64bit: bool) -> Converter | None:
    """Return what turns a register (64 bits wide, whatever the mode) into an argument; None if it is passed as it is.

    Outside 64-bit code a register is 32 bits wide: an `int` is its unsigned value, `i64` its value sign-extended.
    Raises ConfigurationError for an annotation that is none of ours.
    """
    register_bits = 64 if is_64bit else 32
    if annotation is int:
        return None if is_64bit else _unsigned(32)
    if annotation is bool:
        mask = (1 << register_bits) - 1
        return lambda _vcpu, register: register & mask != 0
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, _Width):
                bits = min(extra.bits, register_bits)
                return _signed(bits) if extra.signed else _unsigned(bits)
    pointer = get_origin(annotation) or annotation
    if isinstance(pointer, type) and issubclass(pointer, _Pointer):
        pointee = get_args(annotation)
        layout = layout_of(pointee[0]) if pointee and pointee[0] is not bytes else None
        mask = MASK64 if is_64bit else MASK32
        return lambda vcpu, register: pointer(vcpu, register & mask, layout)
    raise ConfigurationError(
        f"cannot pass a register as {annotation!r}; use int, bool, pv.u8 to pv.i64, pv.GpaPtr[...] or pv.GvaPtr[...]"
    )


def _unsigned(bits: int) -> Converter | None:
    if bits == 64:
        return None
    mask = (1 << bits) - 1
    return lambda _vcpu, register: register & mask


def _signed(bits: int) -> Converter:
    mask, sign = (1 << bits) - 1, 1 << bits - 1
    return lambda _vcpu, register: ((register & mask) ^ sign) - sign


def argument_annotations(handler: Callable[..., Any]) -> list[Any]:
    """Return the annotations of a bound handler's arguments behind the vCPU. One without annotation counts as int.

    They are resolved one by one: only what is needed here must be importable at run time, the vCPU's type need not.
    """
    function = getattr(handler, "__func__", handler)
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    skipped = 2 if function is not handler else 1
    return [_resolve(function, name) for name in names[skipped:]]


def _resolve(function: Any, name: str) -> Any:
    annotation = function.__annotations__.get(name, int)
    enclosing = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    known = {free: cell.cell_contents for free, cell in enclosing.items()}
    try:
        hints = get_type_hints(
            SimpleNamespace(__annotations__={name: annotation}), function.__globals__, known, include_extras=True
        )
    except NameError as error:
        raise ConfigurationError(
            f"argument {name!r} of {function.__qualname__}: {error}; define the type in the handler's module"
        ) from None
    return hints[name]
