"""Everything that paravirt raises.

    ParavirtError
    ├── ConfigurationError (ValueError)      what was asked for cannot be given
    │   ├── UnknownInterfaceError            no interface has that name
    │   ├── UnknownFeatureError              no CPU feature or model has that name
    │   └── PlacementError                   two interfaces want the same leaf, MSR or hypercall number
    ├── ImageError (ValueError)              a kernel or module cannot be loaded
    ├── GuestMemoryError (LookupError)       guest memory is not there
    │   └── GuestPointerError                ... and the guest gave the address: its own fault
    ├── BreakpointError (LookupError)        a breakpoint names nothing
    ├── MachineStateError (RuntimeError)     not now: not booted, closed, already running
    ├── BuildError (RuntimeError)            a guest cannot be compiled
    └── EngineError (RuntimeError)           the engine or the host refused something

    GuestFault                               raised by a handler to give the guest an exception

What a *guest* does wrong is none of the tree: it gets a fault or a status, as on a real machine.
`GuestPointerError` and `GuestFault` never leave `Machine.run`: the first becomes the interface's fault code, the second
the guest's exception.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BreakpointError",
    "BuildError",
    "ConfigurationError",
    "EngineError",
    "GuestFault",
    "GuestMemoryError",
    "GuestPointerError",
    "ImageError",
    "MachineStateError",
    "ParavirtError",
    "PlacementError",
    "UnknownFeatureError",
    "UnknownInterfaceError",
]


class ParavirtError(Exception):
    """Base of every error that paravirt raises."""


class ConfigurationError(ParavirtError, ValueError):
    """What was asked for cannot be given. `option` names the parameter, `value` is what it was."""

    def __init__(self, message: str, *, option: str = "", value: object = None) -> None:
        super().__init__(message)
        self.option = option
        self.value = value


class UnknownInterfaceError(ConfigurationError):
    """No interface has that name. `known` lists those that exist."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"unknown interface {name!r}; known: {', '.join(known)}", option="interfaces", value=name)
        self.name = name
        self.known = tuple(known)


class UnknownFeatureError(ConfigurationError):
    """No CPU feature, or CPU model, has that name."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message, option="cpu", value=name)
        self.name = name


class PlacementError(ConfigurationError):
    """Two interfaces want the same thing. `resource` says what, `interfaces` names both."""

    def __init__(self, message: str, *, resource: str, interfaces: tuple[str, str]) -> None:
        super().__init__(message, option="interfaces", value=interfaces)
        self.resource = resource
        self.interfaces = interfaces


class ImageError(ParavirtError, ValueError):
    """A kernel or module cannot be loaded. `path` is its name as the user gave it, `reason` the text without it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path!r}: {reason}")
        self.path = path
        self.reason = reason


class GuestMemoryError(ParavirtError, LookupError):
    """Some byte of a range of guest memory is not there.

    `address` is guest-physical (or virtual where `space` is `"virtual"`), `length` is in bytes.
    """

    def __init__(self, address: int, length: int, *, space: str = "physical") -> None:
        super().__init__(f"no guest memory at {space} address {address:#x} ({length} bytes)")
        self.address = address
        self.length = length
        self.space = space


class GuestPointerError(GuestMemoryError):
    """A pointer that the guest passed leads nowhere. In a hypercall handler it ends the call with the fault code."""


class BreakpointError(ParavirtError, LookupError):
    """A breakpoint names nothing. `where` is what was asked for."""

    def __init__(self, message: str, where: object) -> None:
        super().__init__(message)
        self.where = where


class MachineStateError(ParavirtError, RuntimeError):
    """The machine is not in a state for this: not booted, closed, or running."""


class BuildError(ParavirtError, RuntimeError):
    """A guest cannot be compiled. `output` is what the compiler said, if it was started."""

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class EngineError(ParavirtError, RuntimeError):
    """The engine, or the host beneath it, refused something."""


class GuestFault(Exception):
    """Raised by a handler to give the guest an exception at the instruction that called it; #GP(0) by default.

    vector: 0 to 31. error_code: for vectors that push one (SDM vol. 3 table 6-1).
    """

    def __init__(self, vector: int = 13, error_code: int = 0) -> None:
        super().__init__(f"exception {vector} for the guest, error code {error_code}")
        self.vector = vector
        self.error_code = error_code if vector in _VECTORS_WITH_ERROR_CODE else None


_VECTORS_WITH_ERROR_CODE = frozenset((8, 10, 11, 12, 13, 14, 17, 21, 29, 30))
