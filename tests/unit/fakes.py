"""Just enough of an engine to test what stands above it, state set and read as plain attributes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import paravirt as pv
from paravirt import _native
from paravirt.memory import GuestMemory

PAGE = 4096
CS_64BIT = 0xA09B
CS_32BIT = 0xC09B
CS_16BIT = 0x009B
EFER_LMA = 1 << 10


@dataclass
class FakeExit:
    """An exit with the fields of the real one."""

    kind: int = 0
    vcpu: int = 0
    address: int = 0
    size: int = 0
    value: int = 0
    has_error_code: bool = False
    registers: tuple[int, ...] = (0,) * 11
    cpl: int = 0
    mode: int = 64


class FakeMemory:
    """RAM from 0 to `size`, as one range. Bytes in `read_only` keep what they have."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.size = size
        self._data = bytearray(size)
        self.read_only: set[int] = set()

    def ranges(self) -> list[tuple[int, int]]:
        return [(0, self.size)]

    def _check(self, gpa: int, length: int) -> None:
        if gpa < 0 or gpa + length > self.size:
            raise _native.MemoryRangeError("not RAM", gpa, length)

    def read(self, gpa: int, length: int) -> bytes:
        self._check(gpa, length)
        return bytes(self._data[gpa : gpa + length])

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        self._check(gpa, len(data))
        for offset, byte in enumerate(bytes(data)):
            if gpa + offset not in self.read_only:
                self._data[gpa + offset] = byte

    def clear(self, gpa: int, length: int) -> None:
        self.write(gpa, bytes(length))

    def read_int(self, gpa: int, size: int) -> int:
        return int.from_bytes(self.read(gpa, size), "little")

    def write_int(self, gpa: int, size: int, value: int) -> None:
        self.write(gpa, value.to_bytes(size, "little"))


class FakeVm:
    """One machine's engine: 64-bit code at CPL 0, identity-mapped but for what `pages` says."""

    def __init__(self, cpus: int = 1, memory: FakeMemory | None = None) -> None:
        self.memory = memory if memory is not None else FakeMemory()
        self.registers = [
            dict.fromkeys(("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "rip", "dr6"), 0)
            | {"cr0": 1, "efer": EFER_LMA, "cs": 8, "cs_base": 0, "cs_attributes": CS_64BIT, "rflags": 2}
            for _ in range(cpus)
        ]
        self.pages: dict[int, int | None] = {}
        self.injected: list[tuple[int, int, int | None]] = []
        self.intercepted_exception: tuple[int, int, int | None] | None = None
        self.interrupts: list[tuple[int, int, int]] = []
        self.woken: list[int] = []
        self.pv_eoi: dict[int, int | None] = {}
        self.offsets = [0] * cpus
        self.executed = 0
        self.time_ns = 0
        self.claims: dict[str, set[tuple[int, int]]] = {"ports": set(), "msrs": set(), "mmio": set()}
        self.intercepted: set[int | str] = set()
        self.done: list[str] = []
        self.printed = b""
        self.typed = b""
        self.room = 0
        self.console_fd: int | None = None

    def get_register(self, vcpu: int, name: str) -> int:
        return self.registers[vcpu][name]

    def set_register(self, vcpu: int, name: str, value: int) -> None:
        self.registers[vcpu][name] = value

    def get_registers(self, vcpu: int) -> dict[str, int]:
        return dict(self.registers[vcpu])

    def translate(self, vcpu: int, gva: int, write: bool = False, user: bool | None = None) -> int | None:
        page = self.pages.get(gva // PAGE, gva // PAGE * PAGE)
        return None if page is None else page + gva % PAGE

    def read_virtual(self, vcpu: int, gva: int, length: int) -> bytes:
        gpa = self.translate(vcpu, gva)
        if gpa is None:
            raise _native.MemoryRangeError("not mapped", gva, length)
        return self.memory.read(gpa, length)

    def write_virtual(self, vcpu: int, gva: int, data: bytes) -> None:
        gpa = self.translate(vcpu, gva)
        if gpa is None:
            raise _native.MemoryRangeError("not mapped", gva, len(data))
        self.memory.write(gpa, data)

    def inject_exception(self, vcpu: int, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
        self.injected.append((vcpu, vector, error_code))

    def instructions(self) -> int:
        return self.executed

    def now_ns(self) -> int:
        return self.time_ns

    def tsc(self, vcpu: int) -> int:
        return self.time_ns + self.offsets[vcpu]

    def tsc_offset(self, vcpu: int) -> int:
        return self.offsets[vcpu] % (1 << 64)

    def apic_ids(self) -> list[int]:
        return list(range(len(self.registers)))

    def deliver_interrupt(self, apic_id: int, vector: int, delivery_mode: int = 0) -> bool:
        self.interrupts.append((apic_id, vector, delivery_mode))
        return apic_id < len(self.registers)

    def wake(self, vcpu: int) -> None:
        self.woken.append(vcpu)

    def set_pv_eoi(self, vcpu: int, gpa: int | None) -> None:
        self.pv_eoi[vcpu] = gpa

    # -- claims and answers, for ExitRouter

    def claim_ports(self, first: int, last: int) -> None:
        self.claims["ports"].add((first, last))

    def release_ports(self, first: int, last: int) -> None:
        self.claims["ports"].clear()

    def claim_msrs(self, first: int, last: int) -> None:
        self.claims["msrs"].add((first, last))

    def release_msrs(self, first: int, last: int) -> None:
        self.claims["msrs"].clear()

    def claim_mmio(self, gpa: int, length: int) -> None:
        self.claims["mmio"].add((gpa, length))

    def release_mmio(self, gpa: int, length: int) -> None:
        self.claims["mmio"].clear()

    def intercept_exception(self, vector: int, enabled: bool) -> None:
        self._intercept(vector, enabled)

    def intercept_cpuid(self, enabled: bool) -> None:
        self._intercept("cpuid", enabled)

    def intercept_halt(self, enabled: bool) -> None:
        self._intercept("halt", enabled)

    def _intercept(self, what: int | str, enabled: bool) -> None:
        if enabled:
            self.intercepted.add(what)
        else:
            self.intercepted.discard(what)

    def answer_default(self) -> int | None:
        self.done.append("default")
        if self.intercepted_exception is not None:
            self.injected.append(self.intercepted_exception)
            return None
        return 0x77

    def answer_fault(self) -> None:
        self.done.append("fault")

    # -- the console

    def set_console_fd(self, fd: int | None) -> None:
        self.console_fd = fd

    def take_console(self) -> bytes:
        printed, self.printed = self.printed, b""
        return printed

    def console_room(self) -> int:
        return self.room

    def console_input(self, data: bytes) -> None:
        self.typed += data
        self.room = max(0, self.room - len(data))


class FakeMachine:
    """What interfaces see of a machine."""

    def __init__(self, vm: FakeVm, interfaces: Iterable[pv.Interface] = ()) -> None:
        self.vm = vm
        native = cast("_native.Vm", vm)
        self.memory = GuestMemory(cast("_native.Memory", vm.memory))
        self.vcpus = tuple(pv.Vcpu(cast(pv.Machine, self), native, index) for index in range(len(vm.registers)))
        self.tsc_khz = 1_000_000
        self.start_unix_ns = 1_700_000_000_250_000_000
        for interface in interfaces:
            interface.attach(cast(pv.Machine, self))
            interface.reset()

    @property
    def now_ns(self) -> int:
        return self.vm.time_ns

    @property
    def apic_ids(self) -> list[int]:
        return self.vm.apic_ids()

    def deliver_interrupt(self, *arguments: Any) -> bool:
        return self.vm.deliver_interrupt(*arguments)
