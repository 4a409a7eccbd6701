"""hvm_op: parameters of the domain, and what else only guests of this kind have (public/hvm/hvm_op.h, params.h)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from paravirt.interfaces.xen.abi import Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Caller
from paravirt.interfaces.xen.section import Section, command

if TYPE_CHECKING:
    from paravirt.interfaces.xen.domain import Domain
    from paravirt.interfaces.xen.upcalls import Upcalls

__all__ = ["HvmOp", "Param"]

FIRST_UPCALL_VECTOR = 0x10
MEMORY_TYPE_RAM_RW, MEMORY_TYPE_MMIO = 0, 2

PARAM = Struct(domid="u16", index="u32", value="u64")
UPCALL_VECTOR = Struct(vcpu="u32", vector="u8")
GET_TIME = Struct(now="u64")
GET_MEM_TYPE = Struct(domid="u16", mem_type="u16", pad0="u16", pad1="u16", pfn="u64")


class Param(IntEnum):
    """HVM_PARAM_*: those that a guest may see."""

    CALLBACK_IRQ = 0
    STORE_PFN = 1
    STORE_EVTCHN = 2
    VM86_TSS = 15
    CONSOLE_PFN = 17
    CONSOLE_EVTCHN = 18
    ACPI_IOPORTS_LOCATION = 19
    VM_GENERATION_ID_ADDR = 34
    ALTP2M = 35
    X87_FIP_WIDTH = 36
    VM86_TSS_SIZED = 37


NUM_PARAMS = 39
READ_ONLY = frozenset((Param.STORE_PFN, Param.CONSOLE_PFN))
REMOVED = frozenset((4, 13, *range(20, 27), 30))
"""Numbers whose parameters do not exist any more; those of the tool stack are all others."""


class HvmOp(Section):
    """Hypercall 34."""

    def __init__(self, domain: Domain, upcalls: Upcalls, latch_width: Callable[[Caller], None]) -> None:
        super().__init__(domain)
        self._upcalls = upcalls
        self._latch_width = latch_width
        self.values: dict[int, int] = {}

    def reset(self) -> None:
        """All parameters are 0 until they are set."""
        self.values = {}

    @command(0)
    def set_param(self, caller: Caller, pointer: int) -> int:
        """Set a parameter. The callback's also says whether the guest is a 64-bit one."""
        argument = caller.load(PARAM, pointer)
        index = self._check_param(argument["domid"], argument["index"])
        if index in READ_ONLY:
            raise XenError(Errno.EPERM)
        if index == Param.ALTP2M:
            raise XenError(Errno.EEXIST)
        self.values[index] = argument["value"]
        if index == Param.CALLBACK_IRQ:
            self._latch_width(caller)
            self._upcalls.set_callback(argument["value"])
        return 0

    @command(1)
    def get_param(self, caller: Caller, pointer: int) -> int:
        """Tell a parameter."""
        argument = caller.load(PARAM, pointer)
        index = self._check_param(argument["domid"], argument["index"])
        argument["value"] = self.values.get(index, 0)
        return 0

    def _check_param(self, domid: int, index: int) -> Param:
        self.domain.check_domid(domid)
        if index >= NUM_PARAMS or index in REMOVED:
            raise XenError(Errno.EINVAL)
        try:
            return Param(index)
        except ValueError:
            raise XenError(Errno.EPERM) from None

    @command(5)
    def flush_tlbs(self, caller: Caller, pointer: int) -> int:
        """Forget translations of all vCPUs."""
        if pointer:
            raise XenError(Errno.EINVAL)
        for vcpu in self.domain.machine.vcpus:
            vcpu.flush_tlb()
        return 0

    @command(9)
    def pagetable_dying(self, caller: Caller, pointer: int) -> int:
        """A hint for shadow page tables, which there are none of."""
        raise XenError(Errno.ENOSYS)

    @command(10)
    def get_time(self, caller: Caller, pointer: int) -> int:
        """Tell system time."""
        caller.load(GET_TIME, pointer)["now"] = self.domain.machine.now_ns
        return 0

    @command(11)
    def xentrace(self, caller: Caller, pointer: int) -> int:
        """Nobody traces."""
        return 0

    @command(15)
    def get_mem_type(self, caller: Caller, pointer: int) -> int:
        """Tell whether a page is RAM."""
        argument = caller.load(GET_MEM_TYPE, pointer)
        self.domain.check_domid(argument["domid"])
        is_ram = self.domain.pages.is_own(argument["pfn"])
        argument["mem_type"] = MEMORY_TYPE_RAM_RW if is_ram else MEMORY_TYPE_MMIO
        return 0

    @command(23)
    def set_evtchn_upcall_vector(self, caller: Caller, pointer: int) -> int:
        """Tell a vCPU of its events by a vector of its own, through its local APIC."""
        argument = caller.load(UPCALL_VECTOR, pointer)
        if argument["vector"] < FIRST_UPCALL_VECTOR:
            raise XenError(Errno.EINVAL)
        state = self.domain.find_vcpu(argument["vcpu"])
        state.upcall_vector = argument["vector"]
        self._upcalls.attach(state)
        if self.domain.is_upcall_pending(state):
            self._upcalls.notify(state)
        return 0

    @command(24)
    def guest_request_vm_event(self, caller: Caller, pointer: int) -> int:
        """Nobody monitors the guest."""
        if pointer:
            raise XenError(Errno.EINVAL)
        return 0
