"""Compares how cases ended on two processors, and knows what is wrong with the other one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from . import layout as at
from .image import Case, Record

RF = 1 << 16
ZERO_FLAG = 1 << 6
ACCESSED_CODE = 1 << 8
PAGE_FAULT = 14
PF_PRESENT, PF_WRITE, PF_USER, PF_RESERVED, PF_KEY = 1, 2, 4, 8, 32
READ_AND_WRITE = ("add", "xchg", "cmpxchg", "shift by 0", "bts")
STACK_AREA = range(at.STACKS, at.USER_STACK_TOP)


@dataclass(frozen=True)
class Difference:
    """What differs between two records, resume flags left out."""

    case: Case
    ours: Record
    theirs: Record
    fields: frozenset[str]
    addresses: frozenset[int]
    host: str

    def __bool__(self) -> bool:
        return bool(self.fields or self.addresses)

    def both(self, name: str) -> tuple[int, int]:
        """Return a field of both."""
        return self.ours.fields.get(name, -1), self.theirs.fields.get(name, -1)

    def describe(self) -> str:
        """Say what differs, in several lines."""
        code = self.case.memory.get(at.CODE, b"").hex()
        lines = [f"{self.case.label}; code {code}"]
        for who, record in (("ours", self.ours), ("theirs", self.theirs)):
            fields = [f"{name}={record.fields.get(name, -1):x}" for name in ("vector", "error", *sorted(self.fields))]
            changes = [f"[{address:x}]={record.changes.get(address, -1):x}" for address in sorted(self.addresses)]
            lines.append(f"  {who}: {' '.join(fields + changes)}")
        return "\n".join(lines)


def compare(case: Case, ours: Record, theirs: Record, host: str) -> Difference:
    """Compare two records; host is the vendor of our silicon.

    The processor pushes RF with faults (SDM vol. 3 section 18.3.1.1), QEMU does not; so it is not compared, neither in
    the frame nor on the stack.
    """
    names = ours.fields.keys() | theirs.fields.keys()
    fields = {name for name in names if ours.fields.get(name) != theirs.fields.get(name)}
    if "rflags" in fields and (ours.fields.get("rflags", 0) ^ theirs.fields.get("rflags", 0)) == RF:
        fields.discard("rflags")
    addresses = {
        address
        for address in ours.changes.keys() | theirs.changes.keys()
        if ours.changes.get(address) != theirs.changes.get(address)
        and not _is_resume_flag(ours, theirs, address)
        and not _is_accessed_code(case, ours, theirs, address)
    }
    difference = Difference(case, ours, theirs, frozenset(fields), frozenset(addresses), host)
    return _without_error_code(difference)


def _is_resume_flag(ours: Record, theirs: Record, address: int) -> bool:
    different = ours.changes.get(address, 0) ^ theirs.changes.get(address, 0)
    return different == RF or (different == 1 and address in STACK_AREA)  # The latter on a stack that is not aligned.


def _is_accessed_code(case: Case, ours: Record, theirs: Record, address: int) -> bool:
    """Whether it is an accessed bit: loads of CS set it, too (SDM vol. 3 section 3.4.5.1), but not in QEMU."""
    before = _dword_before(case, address)
    old = theirs.changes.get(address, before)
    new = ours.changes.get(address, before)
    return (
        address in range(at.GDT, at.IDT)
        and new is not None
        and old is not None
        and new == old | ACCESSED_CODE
        and new >> 11 & 3 == 3
    )


def _dword_before(case: Case, address: int) -> int | None:
    """Return what the case itself stored there."""
    for start, data in case.memory.items():
        if start <= address and address + 4 <= start + len(data):
            return int.from_bytes(data[address - start : address - start + 4], "little")
    return None


def code_limit(case: Case, selector: int) -> int | None:
    """Return the limit of a tested segment."""
    table = at.LDT if selector & 4 else at.GDT
    low, high = (_dword_before(case, table + (selector & ~7) + 4 * i) for i in range(2))
    if low is None or high is None:
        return None
    limit = low & 0xFFFF | high & 0xF0000
    return limit << 12 | 0xFFF if high & 1 << 23 else limit


def _without_error_code(difference: Difference) -> Difference:
    """Where error codes differ, so do their copies on the stack."""
    if "error" not in difference.fields:
        return difference
    ours, theirs = difference.ours, difference.theirs
    pair = difference.both("error")
    copies = {
        address
        for address in difference.addresses
        if address in STACK_AREA and (ours.changes.get(address, 0), theirs.changes.get(address, 0)) == pair
    }
    return replace(difference, addresses=difference.addresses - copies)


def without_pdptes(difference: Difference) -> Difference:
    """Leave out PDPTEs in PAE mode: they have no accessed flag (SDM vol. 3 table 4-8), but QEMU sets it."""
    if not difference.case.label.startswith("PAE"):
        return difference
    return replace(difference, addresses=difference.addresses - frozenset(range(at.PDPT, at.PDPT + 32)))


@dataclass(frozen=True)
class Explanation:
    """Why QEMU differs, and where to read that it is wrong."""

    reason: str
    applies: Callable[[Difference], bool]


def _reads_first(difference: Difference) -> bool:
    vectors, errors = difference.both("vector"), difference.both("error")
    if difference.fields == {"error"} and vectors == (PAGE_FAULT, PAGE_FAULT):
        implied = PF_WRITE | (PF_PRESENT if errors[0] & PF_RESERVED else 0)
        return errors[0] == errors[1] | implied and bool(errors[1] & PF_WRITE) != bool(errors[0] & PF_WRITE)
    if not any(f" {name} at " in difference.case.label for name in READ_AND_WRITE):
        return False
    return vectors[0] == PAGE_FAULT and bool(errors[0] & PF_WRITE)


def _reserved_without_present(difference: Difference) -> bool:
    ours, theirs = difference.both("error")
    return (
        difference.fields == {"error"}
        and difference.both("vector") == (PAGE_FAULT, PAGE_FAULT)
        and ours ^ theirs == PF_PRESENT
        and bool(ours & theirs & PF_RESERVED)
    )


def _marks_huge_page(difference: Difference) -> bool:
    return (
        difference.case.long
        and not difference.fields
        and difference.both("vector") == (PAGE_FAULT, PAGE_FAULT)
        and bool(difference.both("error")[0] & PF_PRESENT)
        and difference.addresses <= {at.PDPT}
    )


def _is_canonical(address: int, cr4: int) -> bool:
    top = address >> (56 if cr4 & 1 << 12 else 47)
    return top in {0, (1 << 64) - 1 >> (56 if cr4 & 1 << 12 else 47)}


def _branches_out(difference: Difference) -> bool:
    _, theirs = difference.both("rip")
    return (
        difference.case.long
        and difference.both("vector") == (13, 13)
        and not _is_canonical(theirs, difference.case.cr4)
    )


TASK_GATED = {0x108, 0x10A, 0x10C}
"""#DF, #TS and #SS in 32-bit mode, which task gates handle."""
DOUBLE_FAULT, NOT_PRESENT, STACK_FAULT, GENERAL_PROTECTION = 8, 11, 12, 13


def _segment_access(difference: Difference) -> bool:
    ours, _ = difference.both("vector")
    return "; access" in difference.case.label and ours in {GENERAL_PROTECTION, STACK_FAULT, 0x100 | STACK_FAULT}


def _fault_in_new_task(difference: Difference) -> bool:
    return difference.both("vector")[0] in TASK_GATED and difference.addresses <= {
        *(base + field for base in (at.OTHER_TSS, at.TSS) for field in (0x20, 0x24)),
        *(at.TSS_16 + field for field in (0x0C, 0x10)),
    }


def _virtual_8086_eip(difference: Difference) -> bool:
    return "IRET" in difference.case.label and bool(difference.both("rflags")[1] & at.EFLAGS_VM)


def _offset_beyond_code(difference: Difference) -> bool:
    ours, theirs = difference.both("error")
    label = difference.case.label
    return (
        difference.both("vector") == (GENERAL_PROTECTION, GENERAL_PROTECTION)
        and ours in {0, 1}
        and theirs & ~7 in {value & ~7 for value in _selectors(label)}
        and label.startswith(("CALL FAR", "JMP FAR"))
    )


def _handler_beyond_code(difference: Difference) -> bool:
    limit = code_limit(difference.case, difference.both("cs")[1])
    ours, _ = difference.both("vector")
    return (
        ours in {GENERAL_PROTECTION, DOUBLE_FAULT, 0x100 | DOUBLE_FAULT}
        and difference.both("error")[0] in {0, 1}
        and limit is not None
        and difference.both("rip")[1] > limit
    )


def _rights(difference: Difference) -> bool:
    ours, theirs = difference.both("rcx")
    return "LAR" in difference.case.label and difference.fields == {"rcx"} and ours & ~0xF0000 == theirs


def _no_wide_pointer(difference: Difference) -> bool:
    code = difference.case.memory.get(at.CODE, b"")
    return difference.host == "amd" and code[:2] == b"\x48\xff" and difference.both("error")[0] == 0


def _system_type_of_long_mode(difference: Difference) -> bool:
    """A type that long mode has not: 16-bit TSSs and call gates, task gates."""
    label = difference.case.label.split(" at ")[0]
    if not difference.case.long or not label.startswith(("LAR", "LLDT, LTR")):
        return False
    selector = _selectors(label)[-1]
    high = _dword_before(difference.case, (at.LDT if selector & 4 else at.GDT) + (selector & ~7) + 4)
    return high is not None and high >> 8 & 0x1F in {1, 3, 4, 5}


def _absent_and_unfit(difference: Difference) -> bool:
    ours, theirs = difference.both("error")
    high = _dword_before(difference.case, (at.LDT if ours & 4 else at.GDT) + (ours & ~7) + 4)
    unfit = high is not None and high >> 21 & 3 != 1
    return (
        difference.case.long
        and difference.both("vector") == (GENERAL_PROTECTION, NOT_PRESENT)
        and ours == theirs
        and unfit
    )


def _handler_not_canonical(difference: Difference) -> bool:
    """A fault through a gate whose offset is not canonical."""
    words = difference.case.label.split()
    if not difference.case.long or words[0] != "fault" or difference.both("vector")[0] != DOUBLE_FAULT:
        return False
    high = _dword_before(difference.case, at.IDT + 16 * int(words[1]) + 8)
    return high is not None and not _is_canonical(high << 32, difference.case.cr4)


def _upper_half(difference: Difference) -> bool:
    """The other eight bytes of a descriptor: the wrong type, beyond the table, or a base that is not canonical."""
    label = difference.case.label.split(" at ")[0]
    ours, theirs = difference.both("rflags")
    refused = difference.both("vector")[0] == GENERAL_PROTECTION or (theirs & ~ours) & ZERO_FLAG != 0
    return difference.case.long and label.startswith(("LAR", "LLDT, LTR")) and refused


def _level_of_conforming(difference: Difference) -> bool:
    ours, theirs = difference.both("cs")
    return difference.fields == {"cs"} and ours & ~3 == theirs & ~3 and ours & 3 == difference.case.ring_of_code()


def _null_stack(difference: Difference) -> bool:
    ours, theirs = difference.both("vector")
    selector = difference.both("ss")[1]
    return (
        difference.case.long
        and (ours, difference.both("error")[0]) == (GENERAL_PROTECTION, 0)
        and theirs != GENERAL_PROTECTION
        and selector & ~3 == 0
        and selector & 3 != difference.both("cs")[1] & 3
    )


def _null_task(difference: Difference) -> bool:
    null = any(selector & ~3 == 0 for selector in _selectors(difference.case.label.split(" at ")[0])[-1:])
    return difference.case.label.startswith("LLDT, LTR") and null and difference.both("vector")[0] == GENERAL_PROTECTION


def _local_task(difference: Difference) -> bool:
    ours, _ = difference.both("error")
    label = difference.case.label
    return (
        label.startswith(("CALL FAR", "JMP FAR"))
        and bool(ours & 4)
        and difference.both("vector") in {(13, 0x10A), (13, 11)}
    )


def _small_task(difference: Difference) -> bool:
    if difference.both("rsi") == (0xFFFF0002, 2):
        return True  # From TSS_16; a stack far up may have followed.
    names = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"}
    return difference.fields <= names and all(
        (ours ^ theirs) & 0xFFFF == 0 and ours >> 16 == 0xFFFF
        for ours, theirs in map(difference.both, difference.fields)
    )


def _long_gate_error(difference: Difference) -> bool:
    ours, theirs = difference.both("error")
    return (
        difference.case.long and difference.fields == {"error"} and theirs >> 4 == ours >> 3 and bool(ours & theirs & 2)
    )


def _long_and_default(difference: Difference) -> bool:
    selector = difference.both("error")[0]
    table = at.LDT if selector & 4 else at.GDT
    high = _dword_before(difference.case, table + (selector & ~7) + 4)
    vectors = difference.both("vector")
    return difference.case.long and vectors[0] == GENERAL_PROTECTION and high is not None and high >> 21 & 3 == 3


def _limit_in_long_code(difference: Difference) -> bool:
    selector = difference.both("cs")[0]
    limit = code_limit(difference.case, selector)
    vectors = difference.both("vector")
    return (
        difference.case.long
        and vectors[1] == GENERAL_PROTECTION
        and limit is not None
        and difference.both("rip")[0] > limit
    )


def _same_level_ist(difference: Difference) -> bool:
    return difference.case.long and difference.fields == {"ss"} and difference.both("ss")[1] & ~3 == 0


def _two_reasons(difference: Difference) -> bool:
    vectors = difference.both("vector")
    frame = "IRET" in difference.case.label or "RETF" in difference.case.label
    return frame and vectors == (GENERAL_PROTECTION, GENERAL_PROTECTION) and difference.both("error")[0] == 0


def _selectors(label: str) -> list[int]:
    return [int(word, 16) for word in label.replace(",", " ").split() if all(c in "0123456789abcdef" for c in word)]


SYSENTER_CS = 0x174
CR4_VME_PVI = 3
RFLAGS_RESERVED = 0xFFC08028
MOV_SS = b"\x8e\xd5"
STUBS = (at.STUBS32, at.STUBS64)
DR6_B, DR6_BS = 15, 1 << 14
VIF_VIP = 3 << 19
ARITHMETIC = 0x8D5
SYSCALL_LOSES = ARITHMETIC | 0x400
"""The arithmetic flags and DF."""


def _no_syscall_selector(difference: Difference) -> bool:
    selector = difference.case.msrs.get(SYSENTER_CS, -1)
    return "SYSE" in difference.case.label and not selector & 0xFFFC and difference.both("vector")[0] == 13


def _no_such_call(difference: Difference) -> bool:
    """System calls that the vendor's processors do not have in the mode."""
    words = difference.case.label.split(" at ")[0].split()
    ours = difference.both("vector")[0]
    code64 = "64-bit in" in difference.case.label
    if difference.host == "intel":
        return ours == 6 and words[-1] in {"SYSCALL", "SYSRET"} and not code64
    return ours == 6 and words[-1] in {"SYSENTER", "SYSEXIT"} and difference.case.long


def _loses_flags(difference: Difference) -> bool:
    ours, theirs = difference.both("rflags")
    return (
        "SYSCALL" in difference.case.label
        and (ours ^ theirs) & ~RF & ~SYSCALL_LOSES == 0
        and (difference.fields <= {"rflags"})
    )


def _system_return_out(difference: Difference) -> bool:
    registers = difference.case.registers
    out = not all(_is_canonical(registers.get(name, 0), 0) for name in ("rcx", "rdx"))
    label = difference.case.label
    return out and difference.both("vector")[0] == 13 and ("SYSRET" in label or "SYSEXIT" in label)


def _key_of_supervisor_page(difference: Difference) -> bool:
    ours, theirs = difference.both("error")
    return (
        difference.fields == {"error"}
        and difference.both("vector") == (PAGE_FAULT, PAGE_FAULT)
        and bool(difference.case.msrs)
        and (ours ^ theirs) & PF_KEY == ours & PF_KEY == PF_KEY
        and bool(ours & PF_USER)
    )


def _breakpoint(difference: Difference, number: int) -> tuple[int, int, int]:
    """Whether a breakpoint is enabled, its kind and its address."""
    dr7 = difference.case.dr7
    return dr7 >> 2 * number & 3, dr7 >> 16 + 4 * number & 3, difference.case.breakpoints[number]


def _wide_sysexit(difference: Difference) -> bool:
    words = difference.case.label.split()
    halves = all(ours == theirs & 0xFFFFFFFF for ours, theirs in map(difference.both, difference.fields))
    return words[0] == "SYSEXIT" and difference.fields <= {"rip", "rsp"} and halves


def _fault_and_breakpoint(difference: Difference) -> bool:
    ours, theirs = difference.both("vector")
    return ours in {0, 13, 14} and theirs == 1 and difference.both("rip")[1] in {stub + 16 * ours for stub in STUBS}


def _next_or_disabled(difference: Difference) -> bool:
    ours, theirs = difference.both("dr6")
    more = theirs & ~ours
    if not difference.case.breakpoints[0] or difference.fields != {"dr6"} or ours & ~theirs or more & ~DR6_B:
        return False
    rip = difference.both("rip")[0]
    breakpoints = (_breakpoint(difference, number) for number in range(4) if more >> number & 1)
    return all(not enabled or (kind == 0 and address == rip) for enabled, kind, address in breakpoints)


def _first_hit(difference: Difference) -> bool:
    ours, theirs = difference.both("dr6")
    data = sum(1 << number for number in range(4) if _breakpoint(difference, number)[1] in {1, 3})
    return (
        difference.fields == {"dr6"}
        and difference.both("vector") == (1, 1)
        and ours & ~theirs & ~data == 0
        and bool(theirs & DR6_B)
        and theirs & ~ours & ~DR6_B == 0
    )


def _two_debug_exceptions(difference: Difference) -> bool:
    vectors, rips = difference.both("vector"), difference.both("rip")
    return vectors == (1, 1) and rips[1] in {stub + 16 for stub in STUBS} and rips[0] in range(at.CODE, at.STACKS)


def _last_repetition(difference: Difference) -> bool:
    ours, theirs = difference.both("rip")
    done = difference.both("vector") == (1, 1) and difference.both("rcx") == (0, 0)
    dr6 = difference.both("dr6")
    return done and difference.fields <= {"rip", "dr6"} and ours == theirs + 2 and (dr6[0] ^ dr6[1]) & ~DR6_B == 0


def _hits_port(difference: Difference) -> bool:
    ports = (number for number in range(4) if _breakpoint(difference, number)[1] == 2)
    return any(difference.both("dr6")[0] >> number & 1 for number in ports)


def _port_and_step(difference: Difference) -> bool:
    ours, theirs = difference.both("dr6")
    return _hits_port(difference) and difference.fields == {"dr6"} and ours & ~theirs & ~DR6_B == DR6_BS


def _step_after_sti(difference: Difference) -> bool:
    ours, theirs = difference.both("vector")
    rips = difference.both("rip")
    words = difference.case.label.split()
    return "TF" in words and "sti" in words and ours == 1 and (theirs != 1 or rips[1] > rips[0])


def _behind_mov_ss(difference: Difference) -> bool:
    code, rip = difference.case.memory.get(at.CODE, b""), difference.both("rip")[1]
    return difference.host == "intel" and code[rip - at.CODE - 2 : rip - at.CODE] == MOV_SS


def _no_such_flags(difference: Difference) -> bool:
    return "rflags" in difference.fields and bool(difference.both("rflags")[1] & RFLAGS_RESERVED)


def _port_and_flags(difference: Difference) -> bool:
    ours, theirs = difference.both("rflags")
    arithmetic = difference.fields == {"rflags"} and (ours ^ theirs) & ~RF & ~ARITHMETIC == 0
    return arithmetic and difference.both("vector") == (1, 1) and _hits_port(difference)


def _inner_ring_of_virtual(difference: Difference) -> bool:
    ours, _ = difference.both("vector")
    theirs = difference.both("cs")[1]
    through_gate = "V86" in difference.case.label and "int " in difference.case.label
    return through_gate and ours == 13 and bool(theirs & 3) and difference.both("error")[0] == theirs & ~3


def _no_virtual_interrupts(difference: Difference) -> bool:
    return bool(difference.case.cr4 & CR4_VME_PVI)


def _old_virtual_flags(difference: Difference) -> bool:
    """Of RFLAGS, in the record and on the stack, VIF and VIP only."""
    ours, theirs = difference.both("rflags")
    stacked = (
        difference.ours.changes.get(address, 0) ^ difference.theirs.changes.get(address, 0)
        for address in difference.addresses
    )
    return (
        difference.fields <= {"rflags"}
        and (ours ^ theirs) & ~(VIF_VIP | RF) == 0
        and all(bits & ~(VIF_VIP | RF) == 0 for bits in stacked)
    )


EXPLANATIONS = (
    Explanation(
        "SYSENTER and SYSEXIT are #GP(0) if IA32_SYSENTER_CS has no selector in bits 15 to 2 (SDM vol. 2 SYSENTER, "
        "SYSEXIT); QEMU looks at all of its bits",
        _no_syscall_selector,
    ),
    Explanation(
        "Intel's processors have SYSCALL and SYSRET in 64-bit code only (SDM vol. 2), AMD's no SYSENTER and SYSEXIT "
        "in long mode (APM vol. 3); QEMU has them in compatibility mode too, or checks the privilege first",
        _no_such_call,
    ),
    Explanation(
        "SYSCALL clears the flags that SFMASK names (SDM vol. 2 SYSCALL); QEMU also DF and the arithmetic flags",
        _loses_flags,
    ),
    Explanation(
        "SYSRET and SYSEXIT to an address that is not canonical are #GP(0) (SDM vol. 2); QEMU faults afterwards",
        _system_return_out,
    ),
    Explanation(
        "without REX.W SYSEXIT takes ECX and EDX (SDM vol. 2 SYSEXIT); QEMU takes all of RCX and RDX",
        _wide_sysexit,
    ),
    Explanation(
        "an instruction that faults has not met its data breakpoints yet (SDM vol. 3 section 18.3.1.2, traps); QEMU "
        "raises #DB in the handler of the fault",
        _fault_and_breakpoint,
    ),
    Explanation(
        "PK is reported of each access that the key disallows, whatever else does (SDM vol. 3 section 4.7, PK flag); "
        "QEMU looks at the mode first",
        _key_of_supervisor_page,
    ),
    Explanation(
        "what has not been executed has met no condition, and whether breakpoints that are not enabled are reported is "
        "up to the processor (SDM vol. 3 section 18.2.3); QEMU reports both",
        _next_or_disabled,
    ),
    Explanation(
        "all breakpoints that an instruction meets are reported (SDM vol. 3 section 18.2.3); QEMU stops looking for "
        "data after the first access that meets one",
        _first_hit,
    ),
    Explanation(
        "single step and data breakpoints of one instruction are one exception (SDM vol. 3 section 18.3.1.4); QEMU "
        "raises a second one at the handler's first instruction",
        _two_debug_exceptions,
    ),
    Explanation(
        "a repeated string instruction has ended with its last repetition (SDM vol. 2 REP); in QEMU's debug exception "
        "it has yet to find that out",
        _last_repetition,
    ),
    Explanation(
        "single step and breakpoints at ports are one exception (SDM vol. 3 section 18.2.3, BS); QEMU forgets the step",
        _port_and_step,
    ),
    Explanation(
        "STI holds off interrupts for an instruction, not single steps (SDM vol. 2 STI, vol. 3 section 6.8.3); in QEMU "
        "both",
        _step_after_sti,
    ),
    Explanation(
        "Intel's processors hold off breakpoints behind MOV SS (SDM vol. 3 section 6.8.3); not QEMU",
        _behind_mov_ss,
    ),
    Explanation(
        "an interrupt of virtual-8086 mode is handled in ring 0, or is #GP(selector) (SDM vol. 2 INT n); QEMU enters "
        "other rings",
        _inner_ring_of_virtual,
    ),
    Explanation(
        "RFLAGS has no such bits (SDM vol. 1 section 3.4.3); QEMU forgets the flags of some instructions that are "
        "watched",
        _no_such_flags,
    ),
    Explanation(
        "IN, OUT and INS leave flags alone (SDM vol. 2); if their port is watched QEMU has those of an earlier moment",
        _port_and_flags,
    ),
    Explanation(
        "QEMU's translator has neither VME nor PVI, as its CPUID says",
        _no_virtual_interrupts,
    ),
    Explanation(
        "IRET and POPF at ring 0 load VIF and VIP, or clear them (SDM vol. 2 IRET, POPF); QEMU leaves them as they "
        "were",
        _old_virtual_flags,
    ),
    Explanation(
        "a handler at an address that is not canonical is #GP(EXT) while the first exception is delivered, thus #DF "
        "(SDM vol. 2 INT n, vol. 3 table 6-5); QEMU enters it, and faults again for ever if it handles #GP",
        _handler_not_canonical,
    ),
    Explanation(
        "a handler's code segment must be 64-bit code before it is looked at for presence (SDM vol. 2 INT n: #GP, then "
        "#NP); QEMU does it the other way round",
        _absent_and_unfit,
    ),
    Explanation(
        "system descriptors have 16 bytes in long mode, of which the upper type must be 0 and the base canonical (SDM "
        "vol. 3 sections 3.5.2 and 8.2.3); QEMU looks at 8 of them",
        _upper_half,
    ),
    Explanation(
        "a call gate to conforming code leaves CPL, which becomes the RPL of CS (SDM vol. 2 CALL); QEMU takes the DPL",
        _level_of_conforming,
    ),
    Explanation(
        "TSSs and gates of 16 bits, and task gates, are no types of long mode (SDM vol. 2 LAR, LSL, LTR); QEMU takes "
        "them",
        _system_type_of_long_mode,
    ),
    Explanation(
        "a null SS in 64-bit code must have the RPL of CPL (SDM vol. 2 LSS, IRET: #GP(0)); QEMU does not look",
        _null_stack,
    ),
    Explanation(
        "AMD's processors know no m16:64, REX.W means nothing to far CALL and JMP (APM vol. 3 CALL (Far), JMP "
        "(Far)); QEMU knows no such difference",
        _no_wide_pointer,
    ),
    Explanation(
        "instructions that read and write need the right to write from the start (SDM vol. 3 section 4.6.1, and "
        "what processors do); QEMU reads first, which can fault as a read and mark pages as accessed",
        _reads_first,
    ),
    Explanation(
        "reserved bits are reported together with P (SDM vol. 3 section 4.7, RSVD flag); QEMU reports RSVD alone",
        _reserved_without_present,
    ),
    Explanation(
        "an access that an entry for a page denies does not use it for a translation, and does not mark it as "
        "accessed (SDM vol. 3 section 4.8); QEMU marks those of 1 GiB, and those only",
        _marks_huge_page,
    ),
    Explanation(
        "limits and types of segments, and null selectors, are checked at each access (SDM vol. 3 sections 5.3 to "
        "5.5); QEMU's translator checks none of them",
        _segment_access,
    ),
    Explanation(
        "a fault after a task switch happens in the new task before its first instruction (SDM vol. 3 section "
        "7.3); QEMU saves the EIP of the instruction that switched",
        _fault_in_new_task,
    ),
    Explanation(
        "IRET enters virtual-8086 mode at CPL 0 only, and with an EIP of 16 bits (SDM vol. 2 IRET); QEMU checks "
        "neither",
        _virtual_8086_eip,
    ),
    Explanation(
        "a target beyond the limit of the code segment is #GP(0) (SDM vol. 2 CALL, JMP); QEMU reports the selector",
        _offset_beyond_code,
    ),
    Explanation(
        "a handler beyond the limit of its code segment is #GP(EXT) (SDM vol. 2 INT n); QEMU enters it",
        _handler_beyond_code,
    ),
    Explanation(
        "LAR leaves bits 19 to 16 undefined (SDM vol. 2 LAR); processors give those of the limit, QEMU zeros",
        _rights,
    ),
    Explanation(
        "error codes that name the IDT hold the vector times 8 in long mode too (SDM vol. 3 section 6.13); QEMU's 16",
        _long_gate_error,
    ),
    Explanation(
        "a code segment with L and D is #GP(selector) for every far transfer (SDM vol. 2 CALL, JMP, RET, IRET); "
        "not in QEMU",
        _long_and_default,
    ),
    Explanation(
        "64-bit code has no limit (SDM vol. 3 section 5.3.1); QEMU's far CALL and JMP check it",
        _limit_in_long_code,
    ),
    Explanation(
        "an interrupt stack at the same privilege level leaves SS (SDM vol. 3 section 6.14.4, APM vol. 2 section "
        "8.9.4); QEMU makes it null",
        _same_level_ist,
    ),
    Explanation(
        "both the instruction pointer and the stack segment are wrong; in which order they are looked at is not "
        "architectural",
        _two_reasons,
    ),
    Explanation(
        "LTR with a null selector is #GP(0) (SDM vol. 2 LTR); QEMU accepts it",
        _null_task,
    ),
    Explanation(
        "a TSS whose selector names the LDT is #GP(selector) (SDM vol. 2 CALL, JMP); QEMU has #TS",
        _local_task,
    ),
    Explanation(
        "a 16-bit TSS leaves the upper halves of registers undefined (SDM vol. 3 section 7.6); a 386 fills them "
        "with ones",
        _small_task,
    ),
    Explanation(
        "a near branch to an address that is not canonical faults itself (SDM vol. 2 CALL, JMP, RET); in QEMU its "
        "target does",
        _branches_out,
    ),
)


def explain(difference: Difference) -> str | None:
    """Return why QEMU differs, None if nobody knows."""
    return next((known.reason for known in EXPLANATIONS if known.applies(difference)), None)
