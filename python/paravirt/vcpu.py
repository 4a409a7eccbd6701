"""One virtual CPU as Python sees it: registers as attributes, memory by its own page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from paravirt import _native
from paravirt.errors import ConfigurationError, GuestMemoryError
from paravirt.wide_registers import MM, ST, XMM, YMM, RegisterFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from paravirt.machine import Machine

__all__ = ["Vcpu"]


class _Register:
    """A register, or a part of one, as an attribute. Its name is the attribute's."""

    __slots__ = ("name",)

    def __set_name__(self, owner: type[Vcpu], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, vcpu: None, owner: type[Vcpu]) -> _Register: ...
    @overload
    def __get__(self, vcpu: Vcpu, owner: type[Vcpu]) -> int: ...
    def __get__(self, vcpu: Vcpu | None, owner: type[Vcpu]) -> int | _Register:
        if vcpu is None:
            return self
        return vcpu._vm.get_register(vcpu.index, self.name)

    def __set__(self, vcpu: Vcpu, value: int) -> None:
        if not 0 <= value < 1 << 64:
            raise ConfigurationError(f"{self.name} cannot hold {value:#x}; give 0 to 2**64-1", option=self.name)
        try:
            vcpu._vm.set_register(vcpu.index, self.name, value)
        except ValueError as error:
            raise ConfigurationError(f"{self.name} cannot hold {value:#x}: {error}", option=self.name) from error


class Vcpu:
    """One vCPU of a machine.

    Registers have the manual's names in lower case: `vcpu.rax`, `vcpu.rip`, `vcpu.cs`, `vcpu.cs_base`, `vcpu.cr3`,
    `vcpu.efer`, `vcpu.mxcsr`. A segment's attributes are bits 55:40 of its descriptor; `ftw` is the full tag word.
    Wider ones have numbers: `vcpu.st[0]`, `vcpu.mm[1]`, `vcpu.xmm[2]`, `vcpu.ymm[3]`.
    """

    __slots__ = ("_vm", "index", "machine")

    rax, rcx, rdx, rbx = _Register(), _Register(), _Register(), _Register()
    rsp, rbp, rsi, rdi = _Register(), _Register(), _Register(), _Register()
    r8, r9, r10, r11 = _Register(), _Register(), _Register(), _Register()
    r12, r13, r14, r15 = _Register(), _Register(), _Register(), _Register()
    rip, rflags = _Register(), _Register()
    es, es_base, es_limit, es_attributes = _Register(), _Register(), _Register(), _Register()
    cs, cs_base, cs_limit, cs_attributes = _Register(), _Register(), _Register(), _Register()
    ss, ss_base, ss_limit, ss_attributes = _Register(), _Register(), _Register(), _Register()
    ds, ds_base, ds_limit, ds_attributes = _Register(), _Register(), _Register(), _Register()
    fs, fs_base, fs_limit, fs_attributes = _Register(), _Register(), _Register(), _Register()
    gs, gs_base, gs_limit, gs_attributes = _Register(), _Register(), _Register(), _Register()
    ldtr, ldtr_base, ldtr_limit, ldtr_attributes = _Register(), _Register(), _Register(), _Register()
    tr, tr_base, tr_limit, tr_attributes = _Register(), _Register(), _Register(), _Register()
    gdtr_base, gdtr_limit, idtr_base, idtr_limit = _Register(), _Register(), _Register(), _Register()
    cr0, cr2, cr3, cr4, cr8 = _Register(), _Register(), _Register(), _Register(), _Register()
    efer, xcr0, pkru = _Register(), _Register(), _Register()
    fcw, fsw, ftw, mxcsr = _Register(), _Register(), _Register(), _Register()
    dr0, dr1, dr2, dr3, dr6, dr7 = (
        _Register(),
        _Register(),
        _Register(),
        _Register(),
        _Register(),
        _Register(),
    )

    def __init__(self, machine: Machine, vm: _native.Vm, index: int) -> None:
        self.machine = machine
        self._vm = vm
        self.index = index

    # -- registers

    @property
    def registers(self) -> dict[str, int]:
        """Every register by name, read at once."""
        return self._vm.get_registers(self.index)

    @property
    def st(self) -> RegisterFile:
        """ST(0) to ST(7), counted from the top of the x87 stack, as 80-bit numbers: sign and exponent above the
        significand. Writing one changes no tag: `ftw` has them."""
        return RegisterFile(self, ST)

    @property
    def mm(self) -> RegisterFile:
        """MM0 to MM7, as 64-bit numbers: the significands of the x87 registers. Writing one makes its exponent all ones
        and changes no tag."""
        return RegisterFile(self, MM)

    @property
    def xmm(self) -> RegisterFile:
        """XMM0 to XMM15, as 128-bit numbers. Writing one keeps the rest of the YMM register."""
        return RegisterFile(self, XMM)

    @property
    def ymm(self) -> RegisterFile:
        """YMM0 to YMM15, as 256-bit numbers."""
        return RegisterFile(self, YMM)

    @property
    def xsave_image(self) -> bytes:
        """All x87, MMX, SSE, AVX and PKRU state, as XSAVE64 stores it in the standard format whatever XCR0 enables: the
        legacy region (512 bytes), the header (64 bytes) whose XSTATE_BV names what is in use, and the components behind
        it where CPUID leaf 0xD says (SDM vol. 1 section 13.4).

        Setting it replaces all of that; what XSTATE_BV does not name gets its initial configuration, except MXCSR.
        Raises ConfigurationError, and changes nothing, for an image that is none."""
        return self._vm.get_xsave_image(self.index)

    @xsave_image.setter
    def xsave_image(self, image: bytes) -> None:
        try:
            self._vm.set_xsave_image(self.index, bytes(image))
        except ValueError as error:
            raise ConfigurationError(f"xsave_image: {error}", option="xsave_image") from error

    @property
    def is_64bit(self) -> bool:
        """Whether it executes 64-bit code: EFER.LMA and CS.L."""
        return bool(self.efer & EFER_LMA and self.cs_attributes & CS_L)

    @property
    def cpl(self) -> int:
        """Current privilege level, 0 to 3; 0 in real mode, 3 in virtual-8086 mode (SDM vol. 3 section 5.5)."""
        if not self.cr0 & CR0_PE:
            return 0
        return 3 if self.rflags & RFLAGS_VM else self.cs & 3

    @property
    def linear_rip(self) -> int:
        """The linear address of the next instruction."""
        return self.rip if self.is_64bit else (self.cs_base + self.rip) & 0xFFFF_FFFF

    @property
    def is_halted(self) -> bool:
        """Whether it waits in HLT."""
        return self._vm.is_halted(self.index)

    @property
    def activity(self) -> str:
        """What it does: `"running"`, `"halted"` (in HLT), `"not started"` (waits for another CPU to start it) or
        `"shut down"` (after a triple fault)."""
        return self._vm.activity(self.index)

    @property
    def apic_id(self) -> int:
        """Its local APIC's id."""
        return self._vm.apic_ids()[self.index]

    @property
    def run_ns(self) -> int:
        """Virtual time that it has been running, not asleep nor waiting its turn, in ns."""
        return self._vm.run_ns(self.index)

    def read_apic(self, offset: int) -> int:
        """Return a register of its local APIC by its offset in the xAPIC page, in either mode; ICR (0x300) is 64 bits
        wide. Raises KeyError if there is none, or the APIC is off."""
        return self._vm.read_apic(self.index, offset)

    def write_apic(self, offset: int, value: int) -> None:
        """Set a register as `read_apic` names it, with all that follows: an interrupt ends, another is sent. Raises
        KeyError also if the register refuses the value."""
        self._vm.write_apic(self.index, offset, value)

    def rdmsr(self, index: int) -> int:
        """Return an MSR of the CPU or board as RDMSR reads it. Raises KeyError if it does not exist."""
        return self._vm.get_msr(self.index, index)

    def wrmsr(self, index: int, value: int) -> None:
        """Set an MSR of the CPU or board. Raises KeyError if it does not exist."""
        self._vm.set_msr(self.index, index, value)

    # -- memory

    def translate(self, gva: int, *, write: bool = False, user: bool | None = None) -> int | None:
        """Return the GPA of a linear address by the current page tables; None if there is none.

        write: whether it must be writable. user: check rights as CPL 3 (True), CPL 0 (False) or not at all (None).
        """
        return self._vm.translate(self.index, gva & MASK64, write, user)

    def read(self, gva: int, length: int) -> bytes:
        """Return `length` bytes at a linear address. Raises GuestMemoryError with the first address not mapped."""
        try:
            return self._vm.read_virtual(self.index, gva & MASK64, length)
        except _native.MemoryRangeError as error:
            raise GuestMemoryError(error.args[1], length, space="virtual") from None

    def write(self, gva: int, data: bytes) -> None:
        """Write at a linear address, whatever the page's rights. Raises GuestMemoryError as `read`."""
        try:
            self._vm.write_virtual(self.index, gva & MASK64, data)
        except _native.MemoryRangeError as error:
            raise GuestMemoryError(error.args[1], len(data), space="virtual") from None

    # -- what a hypervisor does to it

    def skip_instruction(self, length: int) -> None:
        """End the instruction at RIP, which is `length` bytes long, as one that was executed: RIP behind it, RF clear,
        the shadow of STI or MOV SS over (setting RIP does that), and the single-step trap if TF is set (SDM vol. 3
        section 17.3.1.4)."""
        rflags = self.rflags
        self.rip = (self.rip + length) & self._rip_mask
        self.rflags = rflags & ~RFLAGS_RF
        if rflags & RFLAGS_TF:
            self.dr6 |= DR6_BS
            self._vm.inject_exception(self.index, DB_VECTOR)

    @property
    def _rip_mask(self) -> int:
        if self.is_64bit:
            return MASK64  # Not sign-extended: the next fetch faults if it is not canonical.
        return (1 << 32) - 1 if self.cs_attributes & CS_D else (1 << 16) - 1

    def wake(self) -> None:
        """End its HLT as a kick does; if it is not in HLT, its next one returns at once."""
        self._vm.wake(self.index)

    def doze(self) -> None:
        """Let it sleep behind the instruction that it is executing until its local APIC has an interrupt for it, even
        if RFLAGS.IF holds that off."""
        self._vm.doze(self.index)

    def flush_tlb(self) -> None:
        """Forget all its cached translations."""
        self._vm.flush_tlb(self.index)

    def enter_protected_mode(self, entry: int) -> None:
        """Do what INIT does, then let it run from `entry` in flat 32-bit protected mode, interrupts and paging off."""
        self._vm.boot_protected32(self.index, entry, 0, 0)

    def park(self) -> None:
        """Stop it until `unpark`; nothing but an INIT gets through to it. Within the handler of its hypercall: behind
        the call."""
        self._vm.park(self.index, True)

    def unpark(self) -> None:
        """Let it go on from where its registers say, also if it was never started."""
        self._vm.park(self.index, False)

    def inject(self, vector: int, error_code: int | None = None) -> None:
        """Deliver an exception at its RIP before anything else. Interception does not apply to it."""
        self._vm.inject_exception(self.index, vector, error_code)

    @property
    def tsc(self) -> int:
        """Its time-stamp counter."""
        return self._vm.tsc(self.index)

    @property
    def tsc_offset(self) -> int:
        """Its TSC minus the machine's reference TSC, modulo 2**64."""
        return self._vm.tsc_offset(self.index)

    def set_pv_eoi(self, gpa: int | None) -> None:
        """Say where its PV EOI word is (4 bytes in RAM, aligned); None turns it off."""
        self._vm.set_pv_eoi(self.index, gpa)

    def set_upcall(self, vector: int | None, gpa: int = 0) -> None:
        """Say how it is told of events beside its local APIC, as by Xen's callback vector: `raise_upcall` interrupts it
        with `vector`, whatever its task priority, if the byte at `gpa` is not 0 when it can take the interrupt. None
        turns it off, and so does a reset."""
        self._vm.set_upcall(self.index, None if vector is None else (vector, gpa))

    def raise_upcall(self) -> None:
        """Deliver the upcall once, unless its byte is 0."""
        self._vm.raise_upcall(self.index)

    def on_end_of_interrupt(self, vector: int, function: Callable[[], object] | None) -> None:
        """Call `function()` each time an interrupt with that vector has ended at its local APIC; None to stop that. A
        reset stops it too."""
        self.machine._watch_end_of_interrupt(self.index, vector, function)

    def set_auto_eoi(self, vector: int, enabled: bool) -> None:
        """Let interrupts with that vector end as soon as they are taken (TLFS section 11.5). A reset ends that."""
        self._vm.set_auto_eoi(self.index, vector, enabled)

    def recent_blocks(self) -> list[tuple[int, int, int]]:
        """Return the last basic blocks executed, at most 16, oldest first: (linear address, bytes, instructions)."""
        return self._vm.recent_blocks(self.index)

    def __repr__(self) -> str:
        return f"<Vcpu {self.index} rip={self.rip:#x}{' halted' if self.is_halted else ''}>"


MASK64 = (1 << 64) - 1
RFLAGS_TF, RFLAGS_RF = 1 << 8, 1 << 16
DR6_BS = 1 << 14
DB_VECTOR = 1
CS_D = 1 << 14
CR0_PE = 1 << 0
RFLAGS_VM = 1 << 17
EFER_LMA = 1 << 10
CS_L = 1 << 13
