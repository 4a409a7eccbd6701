"""VMware's interface: the signature with its frequency leaf, the backdoor by port and by hypercall, pseudo counters.

Sources: Linux arch/x86/kernel/cpu/vmware.c and include/asm/vmware.h; open-vm-tools backdoor_def.h.

The backdoor is for user programs too: its ports, and the pseudo performance counters, are exempt from IOPL, the TSS's
bitmap and CR4.PCE. A guest process that reaches them has caused a #GP, which is looked at before the guest gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paravirt.cpuid import HYPERVISOR_BASE, LAPIC_TIMER_HZ
from paravirt.errors import GuestMemoryError
from paravirt.hypercalls.dispatch import Call
from paravirt.interfaces.base import CpuidLeaf, Interface
from paravirt.vcpu import Vcpu

__all__ = ["VMware", "VMwareBackdoor"]

MAGIC = 0x564D_5868
"""`VMXh`, in EAX."""
PORT, HIGH_BANDWIDTH_PORT = 0x5658, 0x5659

LEAF_FREQUENCIES = 0x10
HAS_VMMCALL, HAS_VMCALL = 1 << 0, 1 << 1

PRODUCT_ESX = 2
VERSION = 6
MAX_LAG_US = 1_000_000
VCPU_LEGACY_X2APIC_OK = 1 << 3
UNKNOWN = 0xFFFF_FFFF

PSEUDO_COUNTERS = range(0x1_0000, 0x1_0003)
"""RDPMC: the host's TSC, real time and apparent time in ns."""

GP_VECTOR = 13
MASK32 = (1 << 32) - 1
MAX_INSTRUCTION_LENGTH = 15
NS_PER_S = 10**9


_Results = dict[str, int]
"""Registers that a command changes besides EAX; others keep all their 64 bits."""


class VMwareBackdoor(Interface):
    """The backdoor alone, beside other interfaces: QEMU's `vmport`."""

    name = "vmware-backdoor"
    exceptions: frozenset[int] = frozenset((GP_VECTOR,))

    def attached(self) -> None:
        """Be a device at the backdoor's ports."""
        self.machine.serve_ports(PORT, HIGH_BANDWIDTH_PORT, read=self._read_port, write=self._write_port)

    # -- ways in

    def _read_port(self, vcpu: Vcpu, port: int, size: int) -> int:
        if port != PORT or size != 4:
            return UNKNOWN  # Nothing drives the bus; high bandwidth is not offered.
        return self._run_command(vcpu)

    def _write_port(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """OUT is a command too, whose result goes to EAX all the same (QEMU hw/i386/vmport.c)."""
        if port == PORT and size == 4:
            vcpu.rax = self._run_command(vcpu)

    def claims_call(self, vcpu: Vcpu, call: Call) -> bool:
        """A hypercall with the magic in EAX is a command, of any privilege."""
        return call.registers[0] & MASK32 == MAGIC

    def answers_unclaimed(self, vcpu: Vcpu) -> bool:
        """All of its calls carry the magic."""
        return False

    def answer_call(self, vcpu: Vcpu, call: Call) -> int | None:
        """Run the command. Without the magic it is no call of ours."""
        return self._run_command(vcpu)

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None) -> bool:
        """Do for a user program what its privilege forbids: access to the backdoor's ports and the pseudo counters."""
        if error_code:
            return False
        access = _decode(self._read_code(vcpu))
        if access is None:
            return False
        if access.is_rdpmc:
            return self._read_counter(vcpu, access.length)
        if vcpu.rdx & 0xFFFF != PORT or access.size != 4:
            return False
        vcpu.rax = self._run_command(vcpu)
        vcpu.skip_instruction(access.length)
        return True

    @staticmethod
    def _read_code(vcpu: Vcpu) -> bytes:
        code = b""
        try:
            for offset in range(MAX_INSTRUCTION_LENGTH):
                code += vcpu.read(vcpu.linear_rip + offset, 1)
        except GuestMemoryError:
            pass  # The instruction may end before the page that is not there.
        return code

    def _read_counter(self, vcpu: Vcpu, length: int) -> bool:
        index = vcpu.rcx & MASK32
        if index not in PSEUDO_COUNTERS:
            return False
        machine = vcpu.machine
        value = vcpu.tsc - vcpu.tsc_offset if index == PSEUDO_COUNTERS[0] else machine.now_ns
        vcpu.rax, vcpu.rdx = value & MASK32, value >> 32 & MASK32
        vcpu.skip_instruction(length)
        return True

    # -- commands

    def _run_command(self, vcpu: Vcpu) -> int:
        """Run the command in ECX; return EAX. An unknown one changes no other register."""
        if vcpu.rax & MASK32 != MAGIC:
            return UNKNOWN
        handler = _COMMANDS.get(vcpu.rcx & 0xFFFF)
        if handler is None:
            return UNKNOWN
        results: _Results = {}
        result = handler(self, vcpu, results)
        for name, value in results.items():
            setattr(vcpu, name, value & MASK32)
        return result & MASK32

    def _get_mhz(self, vcpu: Vcpu, results: _Results) -> int:
        return vcpu.machine.tsc_khz // 1000

    def _get_version(self, vcpu: Vcpu, results: _Results) -> int:
        results.update(rbx=MAGIC, rcx=PRODUCT_ESX)
        return VERSION

    def _get_memory_size(self, vcpu: Vcpu, results: _Results) -> int:
        return vcpu.machine.memory.size >> 20

    def _get_time(self, vcpu: Vcpu, results: _Results) -> int:
        seconds, microseconds = self._date(vcpu)
        results.update(rbx=microseconds, rcx=MAX_LAG_US)
        return seconds

    def _get_time_full(self, vcpu: Vcpu, results: _Results) -> int:
        seconds, microseconds = self._date(vcpu)
        results.update(rsi=seconds >> 32, rdx=seconds, rbx=microseconds, rcx=MAX_LAG_US)
        return MAGIC

    @staticmethod
    def _date(vcpu: Vcpu) -> tuple[int, int]:
        machine = vcpu.machine
        seconds, ns = divmod(machine.start_unix_ns + machine.now_ns, NS_PER_S)
        return seconds, ns // 1000

    def _get_hz(self, vcpu: Vcpu, results: _Results) -> int:
        hz = vcpu.machine.tsc_khz * 1000
        results.update(rbx=hz >> 32, rcx=LAPIC_TIMER_HZ)
        return hz

    def _get_vcpu_info(self, vcpu: Vcpu, results: _Results) -> int:
        return VCPU_LEGACY_X2APIC_OK

    def _steal_clock(self, vcpu: Vcpu, results: _Results) -> int:
        """Nothing is ever stolen: every vCPU's time stands still while it waits its turn. So there is no clock."""
        return UNKNOWN


_COMMANDS: dict[int, Callable[[VMwareBackdoor, Vcpu, _Results], int]] = {
    1: VMwareBackdoor._get_mhz,
    10: VMwareBackdoor._get_version,
    20: VMwareBackdoor._get_memory_size,
    23: VMwareBackdoor._get_time,
    45: VMwareBackdoor._get_hz,
    46: VMwareBackdoor._get_time_full,
    68: VMwareBackdoor._get_vcpu_info,
    91: VMwareBackdoor._steal_clock,
}
"""By number in ECX bits 15:0."""


class VMware(VMwareBackdoor):
    """VMware as guests know it, at the start of the name space."""

    name = "vmware"
    signature = b"VMwareVMware"
    fixed_base = HYPERVISOR_BASE

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """The frequencies in kHz, and which hypercall: the guest CPU's, repaired where the host has the other."""
        if self._machine is None:
            return {}
        form = HAS_VMMCALL if self.machine.cpu_vendor in ("AuthenticAMD", "HygonGenuine") else HAS_VMCALL
        return {LEAF_FREQUENCIES: (self.machine.tsc_khz, LAPIC_TIMER_HZ // 1000, form, 0)}


# -- the instructions that reach it


@dataclass(frozen=True, slots=True)
class _Access:
    """IN or OUT by DX, or RDPMC. size: bytes of the port access."""

    length: int
    size: int = 0
    is_rdpmc: bool = False


_PREFIXES = frozenset((0x66, 0x67, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0xF2, 0xF3, *range(0x40, 0x50)))


def _decode(code: bytes) -> _Access | None:
    """Recognise `in eax, dx`, `out dx, eax` and `rdpmc`. With a prefix that makes them something else: None."""
    length = 0
    while length < len(code) and code[length] in _PREFIXES:
        length += 1
    operation = code[length : length + 2]
    if operation == b"\x0f\x33":
        return _Access(length + 2, is_rdpmc=True)
    if operation[:1] in (b"\xed", b"\xef") and 0x66 not in code[:length]:
        return _Access(length + 1, size=4)
    return None
