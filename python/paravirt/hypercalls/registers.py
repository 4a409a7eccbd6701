"""Calling conventions: which registers carry a hypercall's number, arguments and result.

Positions are those of `Exit.registers`. Outside 64-bit code registers count as 32 bits wide.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CONVENTIONS",
    "KVM_CONVENTION",
    "KVM_LEGACY_CONVENTION",
    "LGUEST_CONVENTION",
    "XEN_CONVENTION",
    "Convention",
]

RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8, R9, R10, RIP = range(11)
"""Positions in `Exit.registers`."""

Registers = tuple[int, int, int, int, int, int, int, int, int, int, int]
"""What `Exit.registers` holds."""

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Convention:
    """A calling convention: where the number and each argument are, in 64-bit code and in all other.

    The result goes to RAX in all of them.
    """

    name: str
    number64: int
    arguments64: tuple[int, ...]
    number32: int
    arguments32: tuple[int, ...]

    def number(self, registers: tuple[int, ...], is_64bit: bool) -> int:
        """Return the call's number."""
        return registers[self.number64] if is_64bit else registers[self.number32] & MASK32

    def arguments(self, registers: tuple[int, ...], is_64bit: bool) -> tuple[int, ...]:
        """Return all the registers that can carry an argument, in order."""
        if is_64bit:
            return tuple(registers[position] for position in self.arguments64)
        return tuple(registers[position] & MASK32 for position in self.arguments32)


# Linux Documentation/virt/kvm/x86/hypercalls.rst; also style 1 of the generic interface.
KVM_CONVENTION = Convention("kvm", RAX, (RBX, RCX, RDX, RSI), RAX, (RBX, RCX, RDX, RSI))
# Xen public/arch-x86/xen.h.
XEN_CONVENTION = Convention("xen", RAX, (RDI, RSI, RDX, R10, R8), RAX, (RBX, RCX, RDX, RSI, RDI))
# Linux 2.6.20 drivers/kvm/kvm_main.c.
KVM_LEGACY_CONVENTION = Convention("kvm-legacy", RAX, (RDI, RSI, RDX, RCX, R8, R9), RBX, (RAX, RCX, RDX, RSI, RDI, RBP))
# Linux arch/x86/include/asm/lguest_hcall.h; its guests are 32-bit only.
LGUEST_CONVENTION = Convention("lguest", RAX, (RBX, RCX, RDX, RSI), RAX, (RBX, RCX, RDX, RSI))

CONVENTIONS = {
    convention.name: convention
    for convention in (KVM_CONVENTION, XEN_CONVENTION, KVM_LEGACY_CONVENTION, LGUEST_CONVENTION)
}
