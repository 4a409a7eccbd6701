"""Putting the boot processor into the state in which a kernel is entered."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from paravirt.boot import layout
from paravirt.boot.image import Entry, LongModeEntry, ProtectedEntry, RealModeEntry, ResetEntry

if TYPE_CHECKING:
    from paravirt import _native
    from paravirt.memory import GuestMemory
    from paravirt.vcpu import Vcpu

__all__ = ["enter", "write_boot_gdt"]

# Linux asks for these selectors (boot.rst, "32-bit boot protocol"); PVH and multiboot for none in particular.
BOOT_CS, BOOT_DS, BOOT_TSS = 0x10, 0x18, 0x20
CODE_32, CODE_64, DATA, BUSY_TSS = 0xC09B, 0xA09B, 0xC093, 0x008B
"""Attributes: bits 55:40 of a descriptor. Flat code and data of 4 GiB; a 32-bit TSS."""
TSS_LIMIT = 0x67
GDT_BYTES = BOOT_TSS + 16
CR0_PAGING_IN_PROTECTED_MODE = 0x8000_0011
CR4_PAE = 1 << 5
EFER_LME_LMA = 1 << 8 | 1 << 10


def write_boot_gdt(memory: GuestMemory, *, code: int) -> None:
    """Write the descriptors that `enter` names. code: CODE_32 or CODE_64."""
    gdt = struct.pack("<6Q", 0, 0, _flat(code), _flat(DATA), BUSY_TSS << 40 | TSS_LIMIT, 0)
    memory.write(layout.BOOT_GDT, gdt)


def _flat(attributes: int) -> int:
    """A descriptor with base 0 and a limit of 4 GiB (SDM vol. 3 section 3.4.5)."""
    return attributes << 40 | 0xF << 48 | 0xFFFF


def enter(vm: _native.Vm, vcpu: Vcpu, entry: Entry) -> None:
    """Set a vCPU's registers for an entry point."""
    match entry:
        case ResetEntry():
            pass
        case RealModeEntry(selector, offset):
            vcpu.cs = selector
            vcpu.cs_base = selector << 4
            vcpu.rip = offset
        case ProtectedEntry():
            vm.boot_protected32(vcpu.index, entry.address, entry.eax, entry.ebx)
            vcpu.rsi = entry.esi
            if entry.uses_boot_gdt:
                _load_boot_segments(vcpu)
        case LongModeEntry():
            vm.boot_protected32(vcpu.index, 0, 0, 0)
            vcpu.cr3 = entry.cr3
            vcpu.cr4 = CR4_PAE
            vcpu.efer = EFER_LME_LMA
            vcpu.cr0 = CR0_PAGING_IN_PROTECTED_MODE
            vcpu.cs_attributes = CODE_64
            _load_boot_segments(vcpu)
            vcpu.rsi = entry.rsi
            vcpu.rip = entry.address


def _load_boot_segments(vcpu: Vcpu) -> None:
    vcpu.gdtr_base, vcpu.gdtr_limit = layout.BOOT_GDT, GDT_BYTES - 1
    vcpu.cs = BOOT_CS
    vcpu.ds = vcpu.es = vcpu.ss = vcpu.fs = vcpu.gs = BOOT_DS
    vcpu.tr, vcpu.tr_base, vcpu.tr_limit, vcpu.tr_attributes = BOOT_TSS, 0, TSS_LIMIT, BUSY_TSS
