"""A guest that makes hypercalls without executing any: registers are set, handlers are called."""

from __future__ import annotations

import struct

import paravirt as pv
from paravirt.hypercalls.dispatch import registers_of
from paravirt.interfaces.xen import Xen

PAGE = 4096
ARGUMENT = 0x8000
"""Where a call's structure is."""
DATA = 0x9000
"""Where its arrays are."""
SHARED_INFO = 0x10
"""The frame of the shared page."""
PML4, PDPT, DIRECTORY = 0x2000, 0x3000, 0x4000
CR0, CR4_PAE, EFER_LONG = 0x8000_0011, 1 << 5, 0x500
REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "rip")
CODE_64, CODE_32 = 0xA09B, 0xC09B
DOMID_SELF = 0x7FF0


class Guest:
    """A machine with the Xen interface whose first vCPU runs 64-bit code, or 32-bit code, with the first 1 GiB mapped
    as it is."""

    def __init__(self, *, wide: bool = True, cpus: int = 1, memory: str = "4M", **options: object) -> None:
        self.xen = Xen()
        self.machine = pv.Machine(interfaces=[self.xen], cpus=cpus, memory=memory, **options)  # type: ignore[arg-type]
        self.memory = self.machine.memory
        self.is_wide = wide
        for vcpu in self.machine.vcpus:
            vcpu.enter_protected_mode(0x1000)
        if wide:
            self._enter_long_mode()

    def _enter_long_mode(self) -> None:
        self.memory.write_int(PML4, 8, PDPT | 3)
        self.memory.write_int(PDPT, 8, DIRECTORY | 3)
        for index in range(512):
            self.memory.write_int(DIRECTORY + 8 * index, 8, index << 21 | 0x83)
        for vcpu in self.machine.vcpus:
            vcpu.cr4, vcpu.cr3, vcpu.efer = CR4_PAE, PML4, EFER_LONG
            vcpu.cr0 = CR0
            vcpu.cs_attributes = CODE_64

    def call(self, number: int, *arguments: int, cpu: int = 0, cpl: int = 0) -> int:
        """Make a hypercall. Returns its result, signed."""
        registers = dict.fromkeys(REGISTERS, 0)
        names = ("rdi", "rsi", "rdx", "r10", "r8") if self.is_wide else ("rbx", "rcx", "rdx", "rsi", "rdi")
        registers |= {"rax": number} | dict(zip(names, arguments, strict=False))
        dispatcher = self.machine._dispatcher
        result = dispatcher.call(self.machine.vcpus[cpu], registers_of(registers), is_64bit=self.is_wide, cpl=cpl)
        assert result is not None
        result &= (1 << 64) - 1
        return result - (1 << 64) if result >> 63 else result

    def op(self, number: int, cmd: int, format: str, *values: int, cpu: int = 0) -> int:
        """Make a hypercall of a command with a structure."""
        self.memory.write(ARGUMENT, struct.pack("<" + format, *values))
        return self.call(number, cmd, ARGUMENT, cpu=cpu)

    def argument(self, format: str, offset: int = 0) -> tuple[int, ...]:
        """What the call has made of its structure."""
        return struct.unpack("<" + format, self.memory.read(ARGUMENT + offset, struct.calcsize("<" + format)))

    def map_shared_info(self) -> None:
        """Put the shared page to its frame."""
        layout = "HHIQQ" if self.is_wide else "HHIII"
        assert self.op(12, 7, layout, DOMID_SELF, 0, 0, 0, SHARED_INFO) == 0

    def read(self, gpa: int, size: int) -> int:
        return self.memory.read_int(gpa, size)


__all__ = ["ARGUMENT", "DATA", "DOMID_SELF", "PAGE", "REGISTERS", "SHARED_INFO", "Guest"]
