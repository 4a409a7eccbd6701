"""KVM before 2007: a magic MSR, a state page for each vCPU, and a stub that the hypervisor writes into the guest.

Source: Linux 2.6.20 to 2.6.23, include/linux/kvm_para.h and drivers/kvm/kvm_main.c. This is the design that lazy
repair replaced: there are no CPUID leaves, each vCPU must be set up, and a stub has one vendor's instruction for ever.

No call is defined. Every one goes to user space, which is the function `on_hypercall` here; one that nobody answers
returns -EINVAL, as when a program ignored the exit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import ClassVar

from paravirt.errors import GuestFault, GuestMemoryError
from paravirt.hypercalls.dispatch import Call
from paravirt.hypercalls.registers import KVM_LEGACY_CONVENTION
from paravirt.interfaces.base import Interface, msr_read, msr_write
from paravirt.vcpu import Vcpu

__all__ = ["KVMLegacy"]

MSR_KVM_API_MAGIC = 0x8765_5678
KVM_PARA_API_VERSION = 1
KVM_EINVAL = 1
"""`__KVM_EINVAL` of that time, which is no errno."""

PAGE_SIZE = 4096
RET = b"\xc3"

HypercallFunction = Callable[[Vcpu, int, tuple[int, ...]], int]


class KvmVcpuParaState(ctypes.LittleEndianStructure):
    """`struct kvm_vcpu_para_state`, at the start of its page."""

    _pack_ = 1
    _fields_: ClassVar = [
        ("guest_version", ctypes.c_uint32),
        ("host_version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("ret", ctypes.c_uint32),
        ("hypercall_gpa", ctypes.c_uint64),
    ]


class KVMLegacy(Interface):
    """KVM's first paravirtual interface.

    on_hypercall: `function(vcpu, number, arguments)` returns what the guest gets; None answers all with -EINVAL.
    """

    name = "kvm-legacy"
    convention = KVM_LEGACY_CONVENTION
    unknown_call = -KVM_EINVAL

    def __init__(self, on_hypercall: HypercallFunction | None = None) -> None:
        self._on_hypercall = on_hypercall
        self._states: dict[int, int] = {}
        self._stubs: dict[int, int] = {}

    def reset(self) -> None:
        """No vCPU has a state page."""
        self._states.clear()
        self._stubs.clear()

    @msr_read(MSR_KVM_API_MAGIC)
    def read_magic(self, vcpu: Vcpu) -> int:
        """Return the last value written."""
        return self._states.get(vcpu.index, 0)

    @msr_write(MSR_KVM_API_MAGIC)
    def write_magic(self, vcpu: Vcpu, gpa: int) -> None:
        """Register the vCPU's state page, and write the stub where it says."""
        if gpa % PAGE_SIZE:
            raise GuestFault
        memory = vcpu.machine.memory
        try:
            state = KvmVcpuParaState.from_buffer_copy(memory.read(gpa, ctypes.sizeof(KvmVcpuParaState)))
        except GuestMemoryError:
            raise GuestFault from None
        self._states[vcpu.index] = gpa
        state.host_version = KVM_PARA_API_VERSION
        is_known = state.guest_version <= KVM_PARA_API_VERSION
        accepted = is_known and self._write_stub(vcpu, state.hypercall_gpa)
        state.ret = 0 if accepted else -KVM_EINVAL
        memory.write(gpa, bytes(state))

    def _write_stub(self, vcpu: Vcpu, gpa: int) -> bool:
        """Write the stub; False if it does not lie in one page of RAM."""
        stub = vcpu.machine.host.hypercall + RET
        if gpa % PAGE_SIZE > PAGE_SIZE - len(stub):
            return False
        try:
            vcpu.machine.memory.write(gpa, stub)
        except GuestMemoryError:
            return False
        self._stubs[vcpu.index] = gpa
        return True

    # -- calls

    def claims_call(self, vcpu: Vcpu, call: Call) -> bool:
        """Calls made from a stub are its own."""
        return call.gpa in self._stubs.values()

    def answers_unclaimed(self, vcpu: Vcpu) -> bool:
        """A vCPU that is set up may have copied the stub."""
        return vcpu.index in self._states

    def unknown_hypercall(self, vcpu: Vcpu, number: int, arguments: tuple[int, ...]) -> int:
        """Every call goes to user space. There was no check of privilege, either."""
        if self._on_hypercall is None:
            return self.unknown_call
        return self._on_hypercall(vcpu, number, arguments)
