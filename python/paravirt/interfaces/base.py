"""What an interface is: CPUID leaves, MSRs and hypercalls under a signature.

class Adder(pv.Interface):
    signature = b"ADDERADDERAD"

    @pv.hypercall(1)
    def add(self, vcpu: pv.Vcpu, a: int, b: int) -> int:
        return a + b
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from paravirt.errors import ConfigurationError
from paravirt.hypercalls.registers import KVM_CONVENTION, Convention

if TYPE_CHECKING:
    from paravirt.hypercalls.dispatch import Call
    from paravirt.machine import Machine
    from paravirt.vcpu import Vcpu

__all__ = ["CpuidLeaf", "Interface", "hypercall", "msr_read", "msr_write"]

CpuidLeaf = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _HypercallMark:
    number: int
    max_cpl: int
    feature: object
    overridable: bool


@dataclass(frozen=True, slots=True)
class _MsrMark:
    first: int
    last: int | None
    write: bool
    feature: object


def hypercall(
    number: int, *, max_cpl: int = 0, feature: object = None, overridable: bool = False
) -> Callable[[Handler], Handler]:
    """Make a method the handler of a hypercall.

    The method gets the vCPU and as many arguments as it names, each by its annotation: `int` is the register as the
    mode has it, unsigned; `pv.u8` to `pv.i64` are cut to their width; `pv.GpaPtr[T]` and `pv.GvaPtr[T]` point into
    guest memory. It returns the result; negative numbers are two's complement, None is 0.

    number: as the guest passes it. max_cpl: the least privileged level that may call, 0 to 3 inclusive. feature: the
    call exists only if `Interface.offers` it. overridable: another interface may have the same number and then has it
    alone.
    """
    if not 0 <= number < 1 << 64:
        raise ConfigurationError(f"hypercall number {number!r} is not in 0 to 2**64-1", option="number", value=number)
    return _mark("_paravirt_hypercall", _HypercallMark(number, max_cpl, feature, overridable))


def msr_read(first: int, last: int | None = None, *, feature: object = None) -> Callable[[Handler], Handler]:
    """Make a method answer RDMSR: `read(self, vcpu) -> int`.

    first, last: MSR indices, both inclusive; with `last` the method gets the index too: `read(self, vcpu, index)`.
    It raises GuestFault for #GP(0). An MSR that can only be read gives #GP(0) on WRMSR, and the other way round.
    """
    return _mark("_paravirt_msr_read", _MsrMark(first, last, False, feature))


def msr_write(first: int, last: int | None = None, *, feature: object = None) -> Callable[[Handler], Handler]:
    """Make a method take WRMSR: `write(self, vcpu, value)`, or `write(self, vcpu, index, value)`; as `msr_read`."""
    return _mark("_paravirt_msr_write", _MsrMark(first, last, True, feature))


def _mark(attribute: str, mark: object) -> Callable[[Handler], Handler]:
    def decorate(handler: Handler) -> Handler:
        # Marks add up, so that one method can serve several numbers.
        setattr(handler, attribute, (*getattr(handler, attribute, ()), mark))
        return handler

    return decorate


@dataclass(frozen=True, slots=True)
class HypercallEntry:
    """One hypercall of one interface, ready to be bound."""

    interface: Interface
    number: int
    handler: Callable[..., Any]
    max_cpl: int
    overridable: bool


@dataclass(frozen=True, slots=True)
class MsrEntry:
    """The handlers of one range of MSRs, bounds inclusive. A missing handler means #GP(0)."""

    interface: Interface
    first: int
    last: int
    handler: Callable[..., Any]
    write: bool
    with_index: bool


class Interface:
    """A paravirtual interface. Subclass it to make one of your own; an instance belongs to one machine.

    Class attributes, all optional:

    - `name`: how messages call it; the class's name by default.
    - `signature`: 12 bytes, in EBX, ECX, EDX of the interface's first leaf; shorter ones are filled with NULs. Empty:
      no CPUID leaves.
    - `fixed_base`: the leaf where it must be; None lets the machine place it.
    - `convention`: which registers a call uses; KVM's by default.
    - `unknown_call`, `denied_call`, `bad_pointer`: results of a call that does not exist, that comes from a level that
      may
      not call, and whose pointer leads nowhere.
    - `real_mode`: whether a foreign instruction is repaired in real mode too.
    - `exceptions`: vectors that the interface wants to see before the guest does; see `exception`.
    """

    name: ClassVar[str] = ""
    signature: ClassVar[bytes] = b""
    fixed_base: ClassVar[int | None] = None
    convention: ClassVar[Convention] = KVM_CONVENTION
    unknown_call: ClassVar[int] = -1000
    denied_call: ClassVar[int] = -1
    bad_pointer: ClassVar[int] = -14
    real_mode: ClassVar[bool] = True
    exceptions: frozenset[int] = frozenset()

    _machine: Machine | None = None
    _base: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower()
        if len(cls.signature) > 12:
            raise ConfigurationError(
                f"signature {cls.signature!r} of {cls.__name__} is longer than 12 bytes", option="signature"
            )

    @classmethod
    def from_options(cls, options: str) -> Interface:
        """Make one from the command line's options. Raises ConfigurationError if there are any: this one has none."""
        parse_options(cls.name, options, known=())
        return cls()

    # -- what a subclass may override

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """Return the leaves behind the signature leaf, by offset from `base` (1 to 0xFF)."""
        return {}

    def cpuid_subleaves(self) -> Mapping[tuple[int, int], CpuidLeaf]:
        """Return what a leaf has that has subleaves, by its offset and the subleaf's number, from 0 on; in
        `cpuid_leaves` it is as its first. Subleaves that are not there read as zeros."""
        return {}

    def signature_leaf(self, max_leaf: int) -> CpuidLeaf:
        """Return the leaf at `base`: the highest leaf of this interface, and the signature."""
        ebx, ecx, edx = signature_words(self.signature)
        return max_leaf, ebx, ecx, edx

    def offers(self, feature: object) -> bool:
        """Whether calls and MSRs that need `feature` exist."""
        return True

    def attached(self) -> None:
        """Called when the interface has become part of `machine`, before the first reset."""

    def started(self) -> None:
        """Called when a kernel has been loaded, before its first instruction."""

    def reset(self) -> None:
        """Called at power-on and at each hard reset: forget what the guest has set up."""

    def unknown_hypercall(self, vcpu: Vcpu, number: int, arguments: tuple[int, ...]) -> int:
        """Answer a call that no interface has; only the first interface of a machine is asked."""
        return self.unknown_call

    def host_changed(self) -> None:
        """Called when other silicon is beneath the machine, `machine.host`: make hypercall pages anew."""

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None) -> bool:
        """Called when the guest is about to get one of `exceptions`. True: it does not get it; the vCPU goes on from
        where it has been set to."""
        return False

    # -- what a subclass overrides that shares the hypercall instruction with interfaces of other conventions

    def claims_call(self, vcpu: Vcpu, call: Call) -> bool:
        """Whether a hypercall is this interface's whatever comes first: by the page that it was made from (`call.gpa`),
        by a mark in a register. Asked in the order of the interfaces."""
        return False

    def route_call(self, vcpu: Vcpu, call: Call) -> Interface | None:
        """Say which interface a hypercall is for that none claims; None: no opinion."""
        return None

    def answers_unclaimed(self, vcpu: Vcpu) -> bool:
        """Whether a hypercall that nothing assigns may come here: the guest has set up what must be set up before."""
        return True

    def answer_call(self, vcpu: Vcpu, call: Call) -> int | None:
        """Carry out a hypercall by a convention of one's own, and return RAX (64 bits; EAX outside 64-bit code); other
        results are written to the vCPU's registers. Overriding it takes the place of `hypercall` methods. Raise
        GuestFault for an exception; None if one has been injected, or RIP been moved."""
        raise NotImplementedError

    # -- what it is part of

    @property
    def machine(self) -> Machine:
        """The machine it belongs to. Raises ConfigurationError before it belongs to one."""
        if self._machine is None:
            raise ConfigurationError(f"interface {self.name!r} belongs to no machine yet")
        return self._machine

    @property
    def base(self) -> int:
        """Its first CPUID leaf. Raises ConfigurationError before it is placed."""
        if self._base is None:
            raise ConfigurationError(f"interface {self.name!r} has no CPUID leaves, or is not placed yet")
        return self._base

    def attach(self, machine: Machine) -> None:
        """Become part of a machine. Raises ConfigurationError if it is part of one already."""
        if self._machine is not None:
            raise ConfigurationError(
                f"interface {self.name!r} already belongs to a machine; make one for each", option="interfaces"
            )
        self._machine = machine

    def detach(self) -> None:
        """Belong to no machine any more."""
        self._machine = None
        self._base = None

    def place(self, base: int) -> None:
        """Take a place in the CPUID name space."""
        self._base = base

    # -- what it consists of

    def cpuid(self) -> dict[int, CpuidLeaf]:
        """Return all its leaves by absolute number. Empty if it has no signature."""
        if not self.signature:
            return {}
        leaves = {self.base + offset: leaf for offset, leaf in self.cpuid_leaves().items()}
        return {self.base: self.signature_leaf(max(leaves, default=self.base)), **leaves}

    def hypercalls(self) -> Iterator[HypercallEntry]:
        """Iterate over the hypercalls that it offers."""
        for handler, mark in self._marked("_paravirt_hypercall"):
            if mark.feature is None or self.offers(mark.feature):
                yield HypercallEntry(self, mark.number, handler, mark.max_cpl, mark.overridable)

    def msrs(self) -> Iterator[MsrEntry]:
        """Iterate over the MSRs that it offers."""
        for attribute in ("_paravirt_msr_read", "_paravirt_msr_write"):
            for handler, mark in self._marked(attribute):
                if mark.feature is None or self.offers(mark.feature):
                    last = mark.first if mark.last is None else mark.last
                    yield MsrEntry(self, mark.first, last, handler, mark.write, mark.last is not None)

    def parts(self) -> Sequence[object]:
        """Return the objects whose decorated methods are its hypercalls and MSRs: itself. A large interface
        has one for each section of its specification."""
        return (self,)

    def _marked(self, attribute: str) -> Iterator[tuple[Callable[..., Any], Any]]:
        for part in self.parts():
            for name in dir(type(part)):
                function = getattr(type(part), name, None)
                for mark in getattr(function, attribute, ()):
                    yield getattr(part, name), mark

    def __repr__(self) -> str:
        where = f" at {self._base:#x}" if self._base is not None else ""
        return f"<interface {self.name}{where}>"


def signature_words(signature: bytes) -> tuple[int, int, int]:
    """Return 12 bytes as EBX, ECX, EDX: not the order of leaf 0."""
    padded = signature.ljust(12, b"\0")
    ebx, ecx, edx = (int.from_bytes(padded[i : i + 4], "little") for i in (0, 4, 8))
    return ebx, ecx, edx


def parse_options(name: str, options: str, *, known: Sequence[str]) -> dict[str, str]:
    """Return `"key=value,key"` as a dict, a key alone with an empty value.

    Raises ConfigurationError for a key that is not in `known`.
    """
    values: dict[str, str] = {}
    for option in filter(None, (part.strip() for part in options.split(","))):
        key, _, value = option.partition("=")
        if key not in known:
            those = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigurationError(f"interface {name!r} has no option {key!r}; {those}", option=key, value=value)
        values[key] = value
    return values
