"""The state in which VCPUOP_initialise lets a vCPU start (public/hvm/hvm_vcpu.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paravirt.errors import ConfigurationError
from paravirt.interfaces.xen.abi import Errno, XenError

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["CONTEXT_BYTES", "Context", "read_context"]

MODE_32B, MODE_64B = 0, 1
HEADER = struct.Struct("<II")
REGISTERS_32 = struct.Struct("<8III3I4xQ5I5I5H")
REGISTERS_64 = struct.Struct("<14Q")
CONTEXT_BYTES = HEADER.size + max(REGISTERS_32.size, REGISTERS_64.size) + 6

GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
SEGMENTS_32 = ("cs", "ds", "ss", "es", "tr")
CR0_PE, CR0_PG = 1 << 0, 1 << 31
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
PRESENT = 1 << 7
TYPE_MASK, CODE_TYPE, BUSY_TSS_32 = 0xF, 1 << 3, 0xB
NOT_SYSTEM = 1 << 4

FLAT_CODE_64, FLAT_DATA, BUSY_TSS = 0xA09B, 0xC093, 0x008B
FLAT_LIMIT, TSS_LIMIT = 0xFFFF_FFFF, 0x67


@dataclass(frozen=True, slots=True)
class Context:
    """A vCPU's registers, checked. Those that are not named are as after INIT."""

    registers: dict[str, int]

    def apply(self, vcpu: Vcpu) -> None:
        """Set them. Raises XenError if the vCPU cannot have them."""
        vcpu.enter_protected_mode(0)
        vcpu.park()
        try:
            for name, value in self.registers.items():
                setattr(vcpu, name, value)
        except ConfigurationError:
            raise XenError(Errno.EINVAL) from None


def read_context(data: bytes) -> Context:
    """Return a context from the guest's structure. Raises XenError if it is none that a vCPU can start in."""
    mode, _pad = HEADER.unpack_from(data)
    if mode == MODE_32B:
        return _read_32(data)
    if mode == MODE_64B:
        return _read_64(data)
    raise XenError(Errno.EINVAL)


def _read_32(data: bytes) -> Context:
    fields = REGISTERS_32.unpack_from(data, HEADER.size)
    general, (eip, eflags, cr0, cr3, cr4, efer) = fields[:8], fields[8:14]
    bases, limits, rights = fields[14:19], fields[19:24], fields[24:29]
    if not cr0 & CR0_PE or efer & EFER_LMA:
        raise XenError(Errno.EINVAL)
    _check_segments(rights, limits, eip)
    registers = {"cr4": cr4, "cr3": cr3, "efer": _efer(cr0, cr4, efer), "cr0": cr0}
    for name, base, limit, right in zip(SEGMENTS_32, bases, limits, rights, strict=True):
        # Access rights are packed: bits 7:0 and 11:8; a descriptor has the latter in bits 15:12.
        attributes = right & 0xFF | (right & 0xF00) << 4
        registers |= {f"{name}_base": base, f"{name}_limit": limit, f"{name}_attributes": attributes}
    registers |= dict(zip(GENERAL, general, strict=True))
    return Context({**registers, "rflags": eflags | 2, "rip": eip})


def _efer(cr0: int, cr4: int, efer: int) -> int:
    """With paging, long mode is on if it is enabled (its code is then 32-bit code in compatibility mode)."""
    if efer & EFER_LME and cr0 & CR0_PG:
        if not cr4 & CR4_PAE:
            raise XenError(Errno.EINVAL)
        return efer | EFER_LMA
    return efer


def _check_segments(rights: tuple[int, ...], limits: tuple[int, ...], eip: int) -> None:
    code, *data, task = rights
    if not code & PRESENT or not code & NOT_SYSTEM or not code & CODE_TYPE or eip > limits[0]:
        raise XenError(Errno.EINVAL)
    if any(right & PRESENT and not right & NOT_SYSTEM for right in data):
        raise XenError(Errno.EINVAL)
    if not task & PRESENT or task & NOT_SYSTEM or task & TYPE_MASK != BUSY_TSS_32:
        raise XenError(Errno.EINVAL)


def _read_64(data: bytes) -> Context:
    fields = REGISTERS_64.unpack_from(data, HEADER.size)
    general, (rip, rflags, cr0, cr3, cr4, efer) = fields[:8], fields[8:14]
    if not cr0 & CR0_PE or not cr0 & CR0_PG or not cr4 & CR4_PAE or not efer & EFER_LME or not efer & EFER_LMA:
        raise XenError(Errno.EINVAL)
    registers = {"cr4": cr4, "cr3": cr3, "efer": efer, "cr0": cr0}
    for name, attributes, limit in (
        ("cs", FLAT_CODE_64, FLAT_LIMIT),
        ("ds", FLAT_DATA, FLAT_LIMIT),
        ("ss", FLAT_DATA, FLAT_LIMIT),
        ("es", FLAT_DATA, FLAT_LIMIT),
        ("tr", BUSY_TSS, TSS_LIMIT),
    ):
        registers |= {f"{name}_base": 0, f"{name}_limit": limit, f"{name}_attributes": attributes}
    registers |= dict(zip(GENERAL, general, strict=True))
    return Context({**registers, "rflags": rflags | 2, "rip": rip})
