"""Fix-up: what is done when a guest uses another vendor's hypercall instruction.

The instruction raises #UD (or #GP(0) on a host without virtualization), which the engine reports before it is
delivered; the other vCPUs stand still meanwhile. From there:

1. Read the instruction at CS:RIP through the guest's page tables. If it is no hypercall instruction, the guest gets
   its exception, error code and all.
2. Not at CPL 0, or in virtual-8086 mode: the guest gets its exception. A user process must not make the hypervisor
   write to pages that are read-only to it.
3. If the bytes are the host's own by now, another vCPU was faster: resume.
4. The policy decides: `patch` stores the host's instruction and resumes at the same RIP, `emulate` and `strict` carry
the
   call out and go on behind it, `reject` gives the guest its exception.

VMCALL and VMMCALL differ in their last byte only, so a patch is one store of one byte: never torn, never in two pages.
It goes to guest-physical memory, so read-only text is no obstacle and nothing of the guest's state (CR2, accessed and
dirty bits, RF) is touched. The engine drops decoded code on every such write.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from paravirt import _native
from paravirt.errors import ConfigurationError
from paravirt.host import INT_1F, UD_VECTOR, VMCALL, VMMCALL, Host
from paravirt.hypercalls.dispatch import Dispatcher, registers_of
from paravirt.hypercalls.instruction import MAX_INSTRUCTION_LENGTH, HypercallInstruction, recognise

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["FixUp", "FixUpLog", "Policy", "find_policy"]

PAGE_MASK = 0xFFF
MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1

LOG_LENGTH = 10_000
"""Records kept; a guest can cause any number of them. The oldest goes first, counts go on."""


class Policy(StrEnum):
    """What is done with a foreign hypercall instruction."""

    PATCH = "patch"
    """Rewrite it, once per place."""
    EMULATE = "emulate"
    """Carry the call out, never touch the text."""
    STRICT = "strict"
    """The instruction of the vendor that the guest's CPUID names works on every host, the other on none."""
    REJECT = "reject"
    """Only the host's own instruction works."""


def find_policy(policy: str | Policy) -> Policy:
    """Return the policy of that name. Raises ConfigurationError if there is none."""
    try:
        return Policy(policy)
    except ValueError:
        known = ", ".join(Policy)
        raise ConfigurationError(
            f"unknown policy {str(policy)!r}; known: {known}", option="policy", value=policy
        ) from None


@dataclass(frozen=True, slots=True)
class FixUp:
    """What was done with one foreign hypercall instruction.

    rip: its linear address, prefixes included. gpa: guest-physical address of its last byte, the one that differs.
    symbol: what the kernel's symbol table calls the place, if it does. found: the opcode's three bytes. replaced:
    those written instead, None if nothing was. action: `"patch"`, `"emulate"` or `"reject"`. time_ns: virtual
    time.
    """

    vcpu: int
    rip: int
    gpa: int
    symbol: str | None
    found: bytes
    replaced: bytes | None
    action: str
    time_ns: int


class FixUpLog:
    """Every fix-up of a machine: counted without limit, the last 10000 kept."""

    def __init__(self) -> None:
        self._records: deque[FixUp] = deque(maxlen=LOG_LENGTH)
        self._counts: Counter[str] = Counter()
        self.observers: list[Callable[[FixUp], None]] = []

    def add(self, record: FixUp) -> None:
        """Count and keep a record, and tell it to the observers."""
        self._counts[record.action] += 1
        self._records.append(record)
        for observer in self.observers:
            observer(record)

    @property
    def records(self) -> tuple[FixUp, ...]:
        """The last records, oldest first."""
        return tuple(self._records)

    @property
    def counts(self) -> dict[str, int]:
        """How many by action, since the machine was made."""
        return dict(self._counts)

    @property
    def total(self) -> int:
        """How many were patched or emulated since the machine was made."""
        return self._counts["patch"] + self._counts["emulate"]


class FixUpEngine:
    """Handles intercepted exceptions of one machine on one host, under one policy.

    guest_vendor: the vendor string that the guest's CPUID shows. symbol_for: from a linear address to a name.
    """

    def __init__(
        self,
        *,
        vm: _native.Vm,
        vcpus: Sequence[Vcpu],
        host: Host,
        guest_vendor: str,
        policy: Policy,
        dispatcher: Dispatcher,
        log: FixUpLog,
        symbol_for: Callable[[int], str | None],
        real_mode: bool = True,
    ) -> None:
        if policy is Policy.STRICT and host.hypercall == INT_1F:
            raise ConfigurationError(
                f"policy 'strict' goes by the guest CPU's vendor, and host {host.name!r} runs neither vendor's"
                " instruction; choose another policy or host",
                option="policy",
                value=policy,
            )
        self._vm = vm
        self._vcpus = vcpus
        self._host = host
        self._guest_hypercall = guest_hypercall(guest_vendor)
        self._policy = policy
        self._dispatcher = dispatcher
        self._log = log
        self._symbol_for = symbol_for
        self._real_mode = real_mode
        # Where each vCPU was last resumed without a change, and how many instructions had been executed then.
        self._resumed: dict[int, tuple[int, int]] = {}

    @property
    def native_is_undefined(self) -> bool:
        """Whether even the host's own instruction must fault: `strict`, and the guest's CPU is of the other vendor."""
        return self._policy is Policy.STRICT and self._host.hypercall != self._guest_hypercall

    def on_undefined_native(self, exit: _native.Exit) -> None:
        """Complete a HYPERCALL exit whose instruction the guest's CPU does not have."""
        self._vm.inject_exception(exit.vcpu, UD_VECTOR)

    def on_exception(self, exit: _native.Exit) -> None:
        """Complete an EXCEPTION exit: repair, emulate, or give the guest its exception."""
        vcpu = self._vcpus[exit.vcpu]
        if not self._is_candidate(vcpu, exit) or not self._repair(vcpu):
            self._vm.answer_default()

    def _is_candidate(self, vcpu: Vcpu, exit: _native.Exit) -> bool:
        if exit.address not in self._host.fault_vectors or exit.value:
            return False
        return vcpu.cpl == 0 and (self._real_mode or bool(vcpu.cr0 & 1))

    def _repair(self, vcpu: Vcpu) -> bool:
        """Do what the policy says. False: the guest must get its exception."""
        linear = vcpu.linear_rip
        found = recognise(self._read_code(vcpu, linear), is_64bit=vcpu.is_64bit)
        if found is None:
            return False
        gpa = self._opcode_gpas(vcpu, linear, found)[-1]
        if gpa is None:
            return False
        if found.opcode == self._host.hypercall:
            if self._resume(vcpu, linear):
                return True
            # The host refuses its own instruction, with a prefix that it does not take for redundant.
            return self._policy is Policy.PATCH and self._emulate(vcpu, linear, gpa, found)
        match self._policy:
            case Policy.PATCH:
                if self._patch(vcpu, linear, found):
                    self._record(vcpu, linear, gpa, found, "patch", self._host.hypercall)
                    return True
                # Text that cannot be written, as a ROM's: resuming would fault for ever.
                return self._emulate(vcpu, linear, gpa, found)
            case Policy.EMULATE:
                return self._emulate(vcpu, linear, gpa, found)
            case Policy.STRICT if found.opcode == self._guest_hypercall:
                return self._emulate(vcpu, linear, gpa, found)
            case _:
                self._record(vcpu, linear, gpa, found, "reject", None)
                return False

    def _resume(self, vcpu: Vcpu, linear: int) -> bool:
        """Another vCPU has patched it meanwhile: go on. False if that was so the last time too and nothing has been
        executed since: it would fault for ever."""
        state = (linear, self._vm.instructions())
        if self._resumed.get(vcpu.index) == state:
            return False
        self._resumed[vcpu.index] = state
        return True

    # -- the three ways

    def _patch(self, vcpu: Vcpu, linear: int, found: HypercallInstruction) -> bool:
        """Store the bytes that differ, and check that they are there. False if they are not: no RAM."""
        memory = self._vm.memory
        gpas = self._opcode_gpas(vcpu, linear, found)
        wanted = self._host.hypercall
        for gpa, old, new in zip(gpas, found.opcode, wanted, strict=True):
            if old == new:
                continue
            if gpa is None:
                return False
            try:
                memory.write_int(gpa, 1, new)
            except _native.MemoryRangeError:
                return False
        return self._read_code(vcpu, linear)[found.opcode_offset : found.length] == wanted

    def _emulate(self, vcpu: Vcpu, linear: int, gpa: int, found: HypercallInstruction) -> bool:
        if self._dispatcher.is_empty:
            return False
        registers = vcpu.registers
        is_64bit = vcpu.is_64bit
        result = self._dispatcher.call(vcpu, registers_of(registers), is_64bit=is_64bit, cpl=0)
        self._record(vcpu, linear, gpa, found, "emulate", None)
        if result is None:
            return True  # The guest got an exception from the call itself.
        vcpu.rax = result if is_64bit else result & MASK32
        vcpu.skip_instruction(found.length)
        return True

    # -- the guest's text

    def _read_code(self, vcpu: Vcpu, linear: int) -> bytes:
        """Return the bytes at a linear address, at most 15; fewer if the next page is not there."""
        in_page = min(MAX_INSTRUCTION_LENGTH, PAGE_MASK + 1 - (linear & PAGE_MASK))
        code = self._read_in_page(vcpu, linear, in_page)
        if len(code) == in_page < MAX_INSTRUCTION_LENGTH:
            code += self._read_in_page(vcpu, self._advance(vcpu, linear, in_page), MAX_INSTRUCTION_LENGTH - in_page)
        return code

    def _read_in_page(self, vcpu: Vcpu, linear: int, length: int) -> bytes:
        gpa = vcpu.translate(linear)
        if gpa is None:
            return b""
        try:
            return self._vm.memory.read(gpa, length)
        except _native.MemoryRangeError:
            return b""

    def _opcode_gpas(self, vcpu: Vcpu, linear: int, found: HypercallInstruction) -> list[int | None]:
        """Return the GPA of each opcode byte: they may lie in two pages that are no neighbours in memory."""
        return [
            vcpu.translate(self._advance(vcpu, linear, offset)) for offset in range(found.opcode_offset, found.length)
        ]

    @staticmethod
    def _advance(vcpu: Vcpu, linear: int, offset: int) -> int:
        return (linear + offset) & (MASK64 if vcpu.is_64bit else MASK32)

    def _record(
        self, vcpu: Vcpu, linear: int, gpa: int, found: HypercallInstruction, action: str, replaced: bytes | None
    ) -> None:
        symbol = self._symbol_for(linear)
        self._log.add(FixUp(vcpu.index, linear, gpa, symbol, found.opcode, replaced, action, self._vm.now_ns()))


_AMD_LIKE = frozenset(("AuthenticAMD", "HygonGenuine", "AMDisbetter!"))


def guest_hypercall(vendor: str) -> bytes:
    """Return the instruction that a guest CPU of this vendor has: VMMCALL for AMD and those like it, else VMCALL."""
    return VMMCALL if vendor in _AMD_LIKE else VMCALL
