"""Registers of 64 to 256 bits, by number: views of a vCPU's XSAVE image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from paravirt.errors import ConfigurationError

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["MM", "ST", "XMM", "YMM", "RegisterFile"]

FSW, STACK, XMM_LOW, XSTATE_BV, YMM_HIGH = 2, 32, 160, 512, 576
"""Offsets in the image: SDM vol. 1 tables 10-2 and 13-1; AVX's component is there in every CPU."""
SLOT = 16
X87, SSE, AVX = 1, 2, 4
"""Bits of XSTATE_BV."""
MMX_EXPONENT = b"\xff\xff"


def _stack_slot(number: int) -> int:
    return STACK + SLOT * number


class Kind(NamedTuple):
    """A kind of registers: how many there are, their width, the bits of XSTATE_BV that they belong to, and where the
    parts of one lie in an image, lowest first."""

    name: str
    total: int
    bits: int
    components: int
    places: Callable[[bytes | bytearray, int], tuple[tuple[int, int], ...]]


def _mmx_place(image: bytes | bytearray, number: int) -> tuple[tuple[int, int], ...]:
    """MMX registers do not move with the top of the stack, the slots of an image do."""
    top = image[FSW + 1] >> 3 & 7
    return ((_stack_slot((number - top) % 8), 8),)


ST = Kind("st", 8, 80, X87, lambda _, number: ((_stack_slot(number), 10),))
MM = Kind("mm", 8, 64, X87, _mmx_place)
XMM = Kind("xmm", 16, 128, SSE, lambda _, number: ((XMM_LOW + SLOT * number, 16),))
YMM = Kind("ymm", 16, 256, SSE | AVX, lambda _, number: ((XMM_LOW + SLOT * number, 16), (YMM_HIGH + SLOT * number, 16)))


class RegisterFile:
    """Registers of one kind, read and written by number.

    Each access goes to the vCPU; for many at once take `Vcpu.xsave_image`. Raises ConfigurationError for a number that
    there is not, and for a value that does not fit.
    """

    __slots__ = ("_kind", "_vcpu")

    def __init__(self, vcpu: Vcpu, kind: Kind) -> None:
        self._vcpu = vcpu
        self._kind = kind

    def __len__(self) -> int:
        return self._kind.total

    def __iter__(self) -> Iterator[int]:
        return (self[number] for number in range(self._kind.total))

    def __getitem__(self, number: int) -> int:
        self._check_number(number)
        image = self._vcpu.xsave_image
        parts = self._kind.places(image, number)
        return int.from_bytes(b"".join(image[at : at + size] for at, size in parts), "little")

    def __setitem__(self, number: int, value: int) -> None:
        self._check_number(number)
        kind = self._kind
        if not 0 <= value < 1 << kind.bits:
            raise ConfigurationError(
                f"{kind.name}{number} cannot hold {value:#x}; give 0 to 2**{kind.bits}-1", option=kind.name
            )
        image = bytearray(self._vcpu.xsave_image)
        data = value.to_bytes(kind.bits // 8, "little")
        for at, size in kind.places(image, number):
            image[at : at + size], data = data[:size], data[size:]
            if kind is MM:
                image[at + size : at + size + 2] = MMX_EXPONENT
        image[XSTATE_BV] |= kind.components
        self._vcpu.xsave_image = bytes(image)

    def _check_number(self, number: int) -> None:
        if not 0 <= number < self._kind.total:
            name, last = self._kind.name, self._kind.total - 1
            raise ConfigurationError(f"there is no {name}{number}: {name}0 to {name}{last}", option=name)

    def __repr__(self) -> str:
        return f"<RegisterFile {self._kind.name} of {self._vcpu!r}>"
