"""A section of the interface: one hypercall, and its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from paravirt.interfaces.xen.abi import MASK32, Errno, XenError

if TYPE_CHECKING:
    from paravirt.interfaces.xen.caller import Caller
    from paravirt.interfaces.xen.domain import Domain

__all__ = ["Section", "command"]

Method = TypeVar("Method", bound=Callable[..., int])


def command(number: int) -> Callable[[Method], Method]:
    """Make a method carry out one command of its section's hypercall: `method(self, caller, ...)`, which returns the
    result, or raises XenError."""

    def decorate(method: Method) -> Method:
        method._xen_command = number  # type: ignore[attr-defined]
        return method

    return decorate


class Section:
    """Commands of one hypercall. Those that it does not have end with -ENOSYS."""

    _commands: ClassVar[dict[int, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._commands = {
            method._xen_command: name for name, method in vars(cls).items() if hasattr(method, "_xen_command")
        }

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._by_number: dict[int, Callable[..., int]] = {
            number: getattr(self, name) for number, name in self._commands.items()
        }

    def call(self, caller: Caller, number: int, *arguments: Any) -> int:
        """Carry out a command."""
        method = self._by_number.get(number & MASK32)
        if method is None:
            raise XenError(Errno.ENOSYS)
        return method(caller, *arguments)

    def reset(self) -> None:
        """The machine was reset: forget what the guest has set up."""
