"""The native module: guest memory, the software CPU and the board, without policy.

Everything here is private to the package. `Vm` is one machine on the software engine. It is driven by exits: `run`
returns when something above the engine must be decided, and the next `run` carries the answer.
"""

from collections.abc import Sequence
from typing import Final, Self, final

__all__ = [
    "PROFILE",
    "VERSION",
    "Exit",
    "ExitKind",
    "GdbProtocolError",
    "GdbSession",
    "HostError",
    "Memory",
    "MemoryRangeError",
    "NativeError",
    "Vm",
]

VERSION: Final[str]
"""Version of the package that the module was built for; `paravirt` refuses another."""
PROFILE: Final[str]
"""`"release"` or `"debug"`."""

class NativeError(Exception):
    """Base of what the native module raises by itself; `paravirt.errors` translates."""

class MemoryRangeError(NativeError):
    """Some byte of a range is not RAM, or not mapped. `args[1]` is the address, `args[2]` the length."""

class HostError(NativeError):
    """The host refused something: a mapping, a write to the console."""

class GdbProtocolError(NativeError):
    """What came from gdb is not its protocol."""

@final
class ExitKind:
    """Numbers of `Exit.kind`."""

    HYPERCALL: Final = 0
    EXCEPTION: Final = 1
    PORT_READ: Final = 2
    PORT_WRITE: Final = 3
    MMIO_READ: Final = 4
    MMIO_WRITE: Final = 5
    MSR_READ: Final = 6
    MSR_WRITE: Final = 7
    CPUID: Final = 8
    HALT: Final = 9
    BREAKPOINT: Final = 10
    STEP: Final = 11
    SHUTDOWN: Final = 12
    DEADLOCK: Final = 13
    BUDGET: Final = 14
    DEBUG_EXIT: Final = 15
    RESET: Final = 16
    SOFT_RESET: Final = 17
    POWER_OFF: Final = 18
    SUSPEND: Final = 19
    ALARM: Final = 20
    END_OF_INTERRUPT: Final = 21
    """`address` is the vector."""
    IDLE: Final = 22
    CONSOLE_TEXT: Final = 23

@final
class Exit:
    """One exit. Fields that a kind does not use are 0."""

    @property
    def kind(self) -> int: ...
    @property
    def vcpu(self) -> int:
        """Index of the vCPU; 0 where the whole machine exits."""
    @property
    def address(self) -> int:
        """Port, MSR index, GPA, exception vector, or CPUID leaf."""
    @property
    def size(self) -> int:
        """Bytes of a port or MMIO access."""
    @property
    def value(self) -> int:
        """What is written; an exception's error code; a CPUID subleaf; what was written to `isa-debug-exit`; when idle time
        ends, in ns of virtual time, 2**64-1 if only something from outside can end it; the number of a console text."""
    @property
    def has_error_code(self) -> bool: ...
    @property
    def registers(self) -> tuple[int, int, int, int, int, int, int, int, int, int, int]:
        """Of a hypercall: rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10 (full width), rip."""
    @property
    def cpl(self) -> int:
        """Of a hypercall: current privilege level, 0..=3."""
    @property
    def mode(self) -> int:
        """Of a hypercall: code width of the caller in bits, 16, 32 or 64; 0 in real and virtual-8086 mode."""

@final
class Memory:
    """RAM by guest-physical address. Writes mark pages dirty and drop decoded code."""

    @property
    def size(self) -> int:
        """Bytes of RAM."""
    def ranges(self) -> list[tuple[int, int]]:
        """RAM as (gpa, length), ascending; two entries when it goes on above the hole at 3 GiB."""
    def read(self, gpa: int, length: int) -> bytes:
        """Raises MemoryRangeError."""
    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """All or nothing. Raises MemoryRangeError."""
    def clear(self, gpa: int, length: int) -> None:
        """Zero a range, all or nothing; pages that are zero anyway cost nothing. Raises MemoryRangeError."""
    def read_int(self, gpa: int, size: int) -> int:
        """Little-endian, size 1, 2, 4 or 8. Raises MemoryRangeError."""
    def write_int(self, gpa: int, size: int, value: int) -> None:
        """As `read_int`; `value` is truncated to `size`."""
    def take_dirty_pages(self) -> list[int]:
        """GPAs of the 4096-byte pages written since the last call, ascending."""

@final
class Vm:
    """A machine on the software engine."""

    def __new__(
        cls,
        *,
        cpus: int,
        memory_bytes: int,
        host: str,
        seed: int,
        slice_instructions: tuple[int, int] = ...,
        tsc_khz: int = 1_000_000,
        start_unix_ns: int = 0,
    ) -> Self:
        """Make the machine, all vCPUs in their reset state (boot processor 0 at the reset vector, others waiting for SIPI).

        host: `"intel"`, `"amd"` or `"lguest"`: what silicon does. slice_instructions: least and most
        instructions (inclusive) that a vCPU runs before the next gets its turn, (500, 4000) by default; `seed` draws from it. start_unix_ns: what
        the CMOS clock and `wall clock` show at virtual time 0. Raises HostError, ValueError.
        """

    memory: Final[Memory]

    # -- running
    def run(self, max_instructions: int | None = None, answer: int | None = None) -> Exit:
        """Run until the next exit. Releases the interpreter lock; checks for signals (raises KeyboardInterrupt).

        max_instructions: of all vCPUs together; then the exit is BUDGET. answer: completes the last exit: for a hypercall, a
        read, or RDMSR the value (a hypercall's goes to RAX, zero-extended EAX outside 64-bit code); for writes any number.
        None after an exit that wants an answer: the instruction is restarted and exits again, unless RIP was set.
        """
    def answer_cpuid(self, eax: int, ebx: int, ecx: int, edx: int) -> None:
        """Complete a CPUID exit; then call `run` without an answer."""
    def answer_fault(self) -> None:
        """Complete the last exit by #GP(0) at the instruction; then call `run` without an answer."""
    def answer_default(self) -> int | None:
        """Complete an exception, port, MMIO, MSR, CPUID or HLT exit as it would have been without the claim or interception
        (the board or the CPU does it); then call `run` without an answer. Returns what was read, any number for what was
        written; None for the others and if the guest gets #GP."""
    def answer_done(self) -> None:
        """Complete a hypercall and change no register; then call `run` without an answer."""
    def inject_exception(self, vcpu: int, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
        """Deliver an exception at the vCPU's RIP before anything else; interception does not apply to it."""
    def step(self, vcpu: int, answer: int | None = None) -> Exit:
        """Execute one instruction of one vCPU; STEP, or the exit that it caused. `answer` as for `run`."""
    def step_in_turn(self, vcpu: int, answer: int | None = None) -> Exit:
        """Run all vCPUs as `run` does until this one has executed an instruction: STEP, or the exit that came before. BUDGET
        if it does not get its turn for long; then call it again. `answer` as for `run`."""
    def current_vcpu(self) -> int:
        """The vCPU whose turn it is."""
    def interrupt(self) -> None:
        """From another thread or a signal handler: make `run` return BUDGET soon."""

    # -- what the engine may decide by itself, and what exits
    def set_host(self, host: str) -> None:
        """Change the silicon beneath the guest, as a migration does. CPUID stays what the guest was told."""
    def set_cpuid(
        self, leaves: Sequence[tuple[int, int | None, int, int, int, int]], arch_capabilities: int = 0
    ) -> None:
        """The whole CPUID table of every vCPU: (leaf, subleaf or None for any, eax, ebx, ecx, edx).

        The engine itself fills in what changes while running: APIC ids (leaf 1 EBX, 0xB/0x1F EDX, 0x8000001E EAX),
        OSXSAVE, OSPKE, and the APIC bit. Features are available to the guest iff announced here. A leaf with subleaves of
        which none fits reads as zeros. Leaves not in the table: 0x40000000..=0x4FFFFFFF read as zeros when leaf 1 ECX bit 31
        (a hypervisor is present) is announced; all others as the vendor does: zeros within the maximum of their range,
        beyond it zeros on AMD and the data of the highest basic leaf on Intel (SDM vol. 2 CPUID).

        arch_capabilities: what IA32_ARCH_CAPABILITIES reads as, if leaf 7 EDX announces it."""
    def intercept_exception(self, vector: int, enabled: bool) -> None: ...
    def intercept_cpuid(self, enabled: bool) -> None: ...
    def intercept_halt(self, enabled: bool) -> None: ...
    def intercept_idle(self, enabled: bool) -> None:
        """Exit IDLE when every vCPU sleeps, instead of skipping the time; the caller waits, and lets it pass by `pass_time`."""
    def claim_ports(self, first: int, last: int) -> None:
        """I/O ports first..=last exit to the caller, whatever device of the board is there."""
    def claim_msrs(self, first: int, last: int) -> None: ...
    def claim_mmio(self, gpa: int, length: int) -> None: ...
    def release_ports(self, first: int, last: int) -> None: ...
    def release_msrs(self, first: int, last: int) -> None: ...
    def release_mmio(self, gpa: int, length: int) -> None: ...
    def add_breakpoint(self, gva: int) -> None:
        """Exit BREAKPOINT before the instruction at this linear address, on any vCPU; `run` then goes on past it."""
    def remove_breakpoint(self, gva: int) -> None: ...
    def set_policy_port(self, name: str, enabled: bool) -> None:
        """Turn an optional device on or off before the first run: `"testdev"`, `"debug-exit"`, `"debugcon"`, `"pci-testdev"`."""

    # -- state
    def get_register(self, vcpu: int, name: str) -> int:
        """Names as in crates/vcpu/src/register.rs: "rax", "rip", "cs_base", "cr3", "efer" ... KeyError for others."""
    def set_register(self, vcpu: int, name: str, value: int) -> None:
        """Setting "rip" (any 64-bit value, canonical or not) abandons an unanswered exit and ends an STI or MOV SS shadow.
        Raises KeyError for an unknown name, ValueError for a value that the register cannot hold."""
    def get_registers(self, vcpu: int) -> dict[str, int]: ...
    def get_xsave_image(self, vcpu: int) -> bytes:
        """x87, MMX, SSE, AVX and PKRU state as XSAVE64 stores it in the standard format, whatever XCR0 has enabled: the legacy
        region (512 bytes), the header (64) whose XSTATE_BV names what is not in its initial configuration, then the
        components where CPUID leaf 0xD says. Every register is there, in any mode."""
    def set_xsave_image(self, vcpu: int, image: bytes) -> None:
        """Replace all of that; a component that XSTATE_BV does not name gets its initial configuration, MXCSR apart. Raises
        ValueError, and changes nothing, for a wrong length, a header with unknown bits, or reserved bits in MXCSR."""
    def get_msr(self, vcpu: int, index: int) -> int:
        """As RDMSR would read it, bypassing exits. KeyError if the MSR does not exist."""
    def set_msr(self, vcpu: int, index: int, value: int) -> None: ...
    def translate(self, vcpu: int, gva: int, write: bool = False, user: bool | None = None) -> int | None:
        """GPA of a linear address by the vCPU's page tables, without setting A or D; None if not mapped so.
        user: check rights as CPL 3 (True), CPL 0 (False) or not at all (None)."""
    def read_virtual(self, vcpu: int, gva: int, length: int) -> bytes:
        """Raises MemoryRangeError with the first address that is not mapped."""
    def write_virtual(self, vcpu: int, gva: int, data: bytes) -> None: ...
    def is_halted(self, vcpu: int) -> bool: ...
    def activity(self, vcpu: int) -> str:
        """`"running"`, `"halted"` (in HLT), `"not started"` (waits for SIPI) or `"shut down"` (after a triple fault)."""
    def wake(self, vcpu: int) -> None:
        """End HLT as a kick does; if not in HLT, the next HLT returns at once."""
    def doze(self, vcpu: int) -> None:
        """Sleep behind the instruction that is being executed, until its local APIC has an interrupt for it, even with IF
        clear, or what else ends HLT comes."""
    def run_ns(self, vcpu: int) -> int:
        """Virtual time that it has been running, until its last exit or turn."""
    def park(self, vcpu: int, parked: bool) -> None:
        """Stop it until it is told to go on from where it is; interrupts stay pending, INIT is obeyed. A hypercall
        that is being answered is completed first. It can also start a vCPU whose registers have been set."""
    def flush_tlb(self, vcpu: int) -> None: ...
    def reset_vcpu(self, vcpu: int) -> None: ...
    def suspend(self) -> bool:
        """Sleep in ACPI's S3 until what the guest has enabled wakes the machine: time passes, then all vCPUs and the board
        are as after a hard reset, but for RAM, the clock and the ACPI registers. Returns False, with nothing changed, if
        nothing will ever wake it."""
    def reset(self, hard: bool) -> None:
        """Reset every vCPU and the board, as at power-on with its firmware's traces (hard) or INIT-like: vCPUs only (not
        hard). RAM, virtual time, claims, CPUID and the console stay."""
    def boot_protected32(self, vcpu: int, entry: int, eax: int, ebx: int) -> None:
        """Multiboot's entry state: flat 32-bit protected mode, interrupts off."""
    def recent_blocks(self, vcpu: int) -> list[tuple[int, int, int]]:
        """The last (up to 16) basic blocks executed, oldest first: (linear address, bytes, instructions)."""
    def state_hash(self) -> int:
        """64-bit hash of all vCPU, board state and RAM pages ever written: equal runs give equal hashes."""

    # -- interrupts
    def deliver_interrupt(self, apic_id: int, vector: int, delivery_mode: int = 0) -> bool:
        """Fixed (0) or NMI (4) by local APIC id, as an IPI with physical destination. False if there is no such APIC."""
    def set_irq(self, gsi: int, level: bool) -> None: ...
    def apic_ids(self) -> list[int]: ...
    def read_apic(self, vcpu: int, offset: int) -> int:
        """A register of its local APIC by its offset in the xAPIC page, in either mode; ICR (0x300) as one of 64 bits. KeyError
        if there is none, or the APIC is off."""
    def write_apic(self, vcpu: int, offset: int, value: int) -> None:
        """As `read_apic`; KeyError also if the register refuses the value."""
    def apic_eoi_state(self, vcpu: int) -> tuple[int, bool]:
        """(number of bits set in ISR, IRR is empty); for PV EOI."""
    def set_pv_eoi(self, vcpu: int, gpa: int | None) -> None:
        """PV EOI area of a vCPU (a 4-byte word in RAM, 4-byte aligned) or None. The board sets and honours its bit 0."""

    def set_upcall(self, vcpu: int, target: tuple[int, int] | None) -> None:
        """(vector, GPA of the byte that says whether it is wanted): an interrupt beside the local APIC; or None."""
    def raise_upcall(self, vcpu: int) -> None:
        """The byte may have been set: deliver the upcall, once, if it still is when the vCPU can take it."""
    def watch_end_of_interrupt(self, vcpu: int, vector: int, watched: bool) -> None:
        """END_OF_INTERRUPT exits for the vector. A reset ends them."""
    def set_auto_eoi(self, vcpu: int, vector: int, enabled: bool) -> None:
        """Interrupts with the vector end as soon as they are taken. A reset ends that."""
    def set_alarm(self, deadline_ns: int | None) -> None:
        """One ALARM exit when virtual time has reached it. Replaces the last one."""

    # -- time
    def now_ns(self) -> int:
        """Virtual time since power-on."""
    def pass_time(self, until_ns: int) -> None:
        """Let virtual time pass without anybody running. Not beyond the end of the IDLE exit that it answers: timers in
        between would come late. Nothing happens if it is later already."""
    def tsc(self, vcpu: int) -> int: ...
    def tsc_offset(self, vcpu: int) -> int:
        """Guest TSC minus reference TSC, modulo 2**64."""
    def instructions(self) -> int:
        """Instructions retired by all vCPUs."""

    # -- board
    def set_console_fd(self, fd: int | None) -> None:
        """Where serial port 1 writes, unbuffered. None: keep it for `take_console`. The fd stays the caller's."""
    def take_console(self) -> bytes: ...
    def print_console(self, data: bytes) -> None:
        """Print for the guest, as if it had written to serial port 1. Raises HostError."""
    def recent_console(self) -> bytes:
        """The last bytes of the console's output, at most 8 KiB, wherever they went."""
    def watch_console(self, texts: Sequence[bytes]) -> None:
        """Exit CONSOLE_TEXT, its value the text's number, when the guest's kernel ends a line on serial port 1 that begins
        with one of these texts; a timestamp in brackets may stand before it. What programs print does not count: drivers
        send it by interrupt, the kernel by polling."""
    def console_input(self, data: bytes) -> None:
        """Bytes for the guest to receive on the virtio console if there is one, else on serial port 1; queued without limit."""
    def console_break(self) -> None:
        """A break on its wire, behind all input."""
    def console_room(self) -> int:
        """How many bytes of input the guest would take now; 0 while it does not listen, or has not taken all it was sent."""
    def add_disk(self, fd: int, *, readonly: bool = False, snapshot_bytes: int | None = None, id: str = "") -> int:
        """Plug in a virtio disk with the file's bytes, in whole sectors of 512; returns its PCI slot. The fd stays the caller's.
        snapshot_bytes: keep writes in memory, up to so many, and leave the file alone. id: text of which 20 bytes count.
        Before the first run. Raises OSError, HostError if all slots are taken."""
    def take_disk_failures(self, slot: int) -> tuple[int, str] | None:
        """How many requests to a disk the host could not carry out since the last call, and why not the first; None: all went
        well."""
    def add_entropy(self, seed: bytes) -> int:
        """Plug in a virtio entropy device; its bytes depend on the 32 bytes of seed alone. Raises as `add_disk`."""
    def add_virtio_console(self) -> int:
        """Plug in a virtio console: its output goes where the serial port's goes, and all input comes to it.
        Raises as `add_disk`."""
    def set_fw_cfg(self, key: int, data: bytes) -> None:
        """Content of a fw_cfg item, at most 1 MiB."""
    def set_fw_cfg_file(self, name: str, data: bytes) -> int:
        """Content of a named fw_cfg file, at most 1 MiB; returns its key. Raises ValueError for a name that is none."""
    def set_debug_console_fd(self, fd: int | None) -> None:
        """Where the debug consoles (ports 0xE9 and 0x402) write; None keeps up to 64 MiB for `take_debug_console`."""
    def take_debug_console(self) -> bytes: ...
    def set_rom(self, image: bytes) -> None:
        """Put firmware's image where it ends at 4 GiB and below 1 MiB, or take it away (empty); to be followed by a hard
        reset. Raises ValueError unless it is a multiple of 4096 bytes up to 16 MiB."""
    def set_cmos(self, index: int, value: int) -> None: ...
    def get_cmos(self, index: int) -> int: ...
    def statistics(self) -> dict[str, int]:
        """Counters: instructions, blocks_decoded, blocks_invalidated, exits_<kind>, interrupts, page_walks ..."""

@final
class GdbSession:
    """One connection of gdb, without the connection: bytes in, bytes out, and what it wants next.

    Methods raise GdbProtocolError, after which the session is over, and what the owner raised.
    """

    def __new__(cls, vm: Vm, owner: object) -> Self:
        """gdb has connected; the machine stands still. owner: has `insert_breakpoint(gva)`, `remove_breakpoint(gva)`, and
        `monitor(command) -> str` for gdb's command of that name."""
    def feed(self, data: bytes) -> None:
        """Bytes have come from gdb."""
    def take_output(self) -> bytes:
        """What is to be sent to it."""
    @property
    def state(self) -> str:
        """`"stopped"`: gdb asks. `"running"`: the machine is to run as `resume` says; `"interrupted"`: and to stop soon. The end:
        `"detached"`, the machine is to run on; `"killed"`, it is to end; `"exited"`; `"broken"`."""
    @property
    def resume(self) -> tuple[int | None, tuple[int, int] | None, bool]:
        """Which vCPU is to be stepped, if one is; while its RIP is in which range, end excluded, at least once; and whether
        no other may run."""
    def report_breakpoint(self, vcpu: int, gva: int) -> None:
        """The machine has stopped at a breakpoint."""
    def report_signal(self, vcpu: int, signal: int) -> None:
        """The machine has stopped: 2 interrupted, 5 stepped, 11 a fault."""
    def report_exit(self, status: int) -> None:
        """The machine has ended."""
    def clear(self) -> None:
        """Take gdb's breakpoints away: it has gone."""
