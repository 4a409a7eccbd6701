"""A machine: memory, vCPUs, interfaces and a host, put together and run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import IO, TYPE_CHECKING, NamedTuple, Self

from paravirt import _native
from paravirt._native import ExitKind
from paravirt.attendant import Attendant
from paravirt.boot import acpi, firmware, layout, mptable, open_kernel
from paravirt.boot.entry import enter
from paravirt.boot.image import Entry, Kernel, KernelFile, PanicLines, RealModeEntry
from paravirt.boot.rom import FirmwareImage, firmware_files
from paravirt.boot.symbol_file import read_symbol_file
from paravirt.console import Console
from paravirt.cpuid import build_cpuid, collect_subleaves, parse_cpu, place_interfaces
from paravirt.debug_console import DebugConsole
from paravirt.devices import BOARD_DEVICES, Device, Plugged, plug_devices, unplug_devices
from paravirt.engine import find_engine
from paravirt.errors import BreakpointError, ConfigurationError, EngineError, MachineStateError
from paravirt.exits import ExitRouter, Hook
from paravirt.host import Host, find_host
from paravirt.host_events import HostEvents
from paravirt.hypercalls.dispatch import Dispatcher
from paravirt.hypercalls.fixup import FixUp, FixUpEngine, FixUpLog, Policy, find_policy
from paravirt.interfaces import make_interfaces
from paravirt.memory import MIB, GuestMemory, parse_memory_size
from paravirt.pacing import Pacer
from paravirt.result import Result, StopReason
from paravirt.symbols import SymbolTable
from paravirt.timers import Timer, Timers
from paravirt.trace import Tracer, describe_fixup
from paravirt.vcpu import CR0_PE, Vcpu

if TYPE_CHECKING:
    from paravirt._native import Exit
    from paravirt.interfaces.base import Interface

__all__ = ["Breakpoint", "Machine"]

MAX_CPUS = 255
"""Local APIC ids of 8 bits, of which 255 is the broadcast address."""
DEFAULT_TSC_KHZ = 1_000_000
DEFAULT_START_UNIX_NS = 1_767_225_600 * 10**9
"""2026-01-01 00:00 UTC. Fixed, so that two runs are the same; in real time it is now."""
PUMP_INSTRUCTIONS = 20_000_000
"""How often output is taken from the board, unless it writes to a file descriptor."""

RESET_VECTORS = (layout.BIOS_RESET_VECTOR, layout.RESET_VECTOR)

PANIC_ENDS = frozenset({StopReason.RESET, StopReason.HALTED, StopReason.TRIPLE_FAULT})
"""What a kernel does after a panic, if it does not go round for ever."""

FW_CFG_RAM_SIZE = 0x03
FW_CFG_NUM_CPUS = 0x05
FW_CFG_MAX_CPUS = 0x0F
FW_CFG_MAX_RAM = 0x11

CMOS_SHUTDOWN_STATUS = 0x0F
RESUME_BY_FAR_POINTER = 0x0A
WARM_RESET_VECTOR = 0x467
"""Where the far pointer is that a BIOS jumps to after a reset with that shutdown status."""


class Breakpoint:
    """A breakpoint of the host at a linear address, on every vCPU. hits: how often it was reached."""

    def __init__(self, machine: Machine, address: int, function: Callable[[Vcpu], object] | None) -> None:
        self._machine = machine
        self.address = address
        self.function = function
        self.hits = 0

    def remove(self) -> None:
        """Take it away. Does nothing the second time."""
        self._machine._remove_breakpoint(self)

    def __repr__(self) -> str:
        return f"<Breakpoint {self.address:#x} hits={self.hits}>"


class _Stop(NamedTuple):
    """Why the run loop ends."""

    reason: StopReason
    vcpu: int | None = None
    debug_exit: int | None = None
    message: str = ""


class Machine:
    """A machine with one guest.

        vm = pv.Machine(host="amd", cpus=2, memory="64M", interfaces=[pv.KVM()])
        vm.boot("kernel.elf", args=["--verbose"])
        result = vm.run()

    host: `"intel"`, `"amd"` or `"lguest"`: what silicon does. cpus: 1 to 255. memory: bytes, or text such as `"64M"`.
    interfaces: in the order of their CPUID leaves, as objects or names; None means KVM, an empty list no hypervisor.
    policy: what to do with the other vendor's hypercall instruction: `"patch"`, `"emulate"`, `"strict"`, `"reject"`.
    cpu: the guest CPU, a model and features as for QEMU's `-cpu`. seed: chooses how vCPUs interleave; the same seed
    gives the same run. console: where serial port 1 goes: a file descriptor or stream, None to keep it for `console`.
    debug_console: where the debug ports 0xE9 and 0x402 go: a file descriptor, None to keep it for `debug_console`.
    trace: a Tracer. reboot: whether a reset that the guest asks for restarts it; otherwise the run ends. tsc_khz:
    frequency of the TSC. realtime: whether the guest's time goes with the wall clock; virtual time otherwise, which
    jumps over idle time. start_unix_ns: the date that the guest's clocks show at power-on, in ns since 1970; by default
    now in real time, else the first day of 2026. devices: what is plugged in: `Disk`, `Entropy` and `VirtioConsole` in
    the order of their PCI slots, and by name the board's test devices (`"testdev"`, `"debug-exit"`, `"debugcon"`,
    `"pci-testdev"`), which are all there if nothing is said. engine: what executes vCPUs.

    Raises ConfigurationError (and those below it) for what cannot be given, EngineError if the host has no room.
    """

    def __init__(
        self,
        *,
        host: str | Host = "intel",
        cpus: int = 1,
        memory: int | str = "128M",
        interfaces: Iterable[Interface | str] | None = None,
        policy: str | Policy = Policy.PATCH,
        cpu: str = "default",
        seed: int = 0,
        console: int | IO[str] | IO[bytes] | None = None,
        debug_console: int | None = None,
        trace: Tracer | None = None,
        reboot: bool = False,
        tsc_khz: int = DEFAULT_TSC_KHZ,
        realtime: bool = False,
        start_unix_ns: int | None = None,
        devices: Iterable[Device | str] = BOARD_DEVICES,
        engine: str = "soft",
    ) -> None:
        self._host = find_host(host)
        self._policy = find_policy(policy)
        self._engine = find_engine(engine)
        memory_bytes = parse_memory_size(memory)
        _check_number("cpus", cpus, 1, MAX_CPUS)
        _check_number("seed", seed, 0, (1 << 64) - 1)
        _check_number("tsc_khz", tsc_khz, 1_000, 4_000_000)
        if start_unix_ns is None:
            start_unix_ns = time.time_ns() if realtime else DEFAULT_START_UNIX_NS
        _check_number("start_unix_ns", start_unix_ns, 0, (1 << 63) - 1)
        self.interfaces: tuple[Interface, ...] = tuple(make_interfaces(interfaces))
        self._cpu = parse_cpu(cpu, self._host, under_hypervisor=bool(self.interfaces))
        self.tsc_khz = tsc_khz
        self.start_unix_ns = start_unix_ns
        self.reboot = reboot
        self._vm = self._engine.create_vm(
            cpus=cpus,
            memory_bytes=memory_bytes,
            host=self._host.name,
            seed=seed,
            tsc_khz=tsc_khz,
            start_unix_ns=start_unix_ns,
        )
        self.memory = GuestMemory(self._vm.memory)
        self.vcpus: tuple[Vcpu, ...] = tuple(Vcpu(self, self._vm, index) for index in range(cpus))
        self._events = HostEvents()
        self._attendant = Attendant(self._vm, self._events, Pacer() if realtime else None)
        self.console = Console(self._vm, console, self._events)
        self.debug_console = DebugConsole(self._vm, debug_console)
        self.devices: tuple[Plugged, ...] = plug_devices(self._vm, devices, seed)
        self._set_firmware_configuration()

        self._kernel: Kernel | None = None
        self._has_firmware = False
        self._given_symbols: SymbolTable | None = None
        self._symbols: SymbolTable | None = None
        self._panic_message: str | None = None
        self._breakpoints: dict[int, list[Breakpoint]] = {}
        self._is_running = False
        self._is_closed = False
        self._stops: list[_Stop] = []
        self._target: int | None = None

        self._timers = Timers(self._vm)
        self._end_watchers: dict[tuple[int, int], Callable[[], object]] = {}
        self._tracer = trace
        self._fixup_log = FixUpLog()
        self._router = ExitRouter(self._vm, self.vcpus, trace)
        self._set_exit_handlers()
        self._dispatcher = self._add_interfaces()
        if trace is not None and "fixup" in trace.kinds:
            self._fixup_log.observers.append(
                lambda record: trace.emit(record.time_ns, record.vcpu, "fixup", describe_fixup(record))
            )
        self._bind_host()
        for address in RESET_VECTORS:
            self._vm.add_breakpoint(address)

    # -- composition

    def _set_firmware_configuration(self) -> None:
        """What kernels without firmware ask QEMU's fw_cfg device for."""
        num_cpus = len(self.vcpus).to_bytes(2, "little")
        self._vm.set_fw_cfg(FW_CFG_RAM_SIZE, self.memory.size.to_bytes(8, "little"))
        self._vm.set_fw_cfg(FW_CFG_NUM_CPUS, num_cpus)
        self._vm.set_fw_cfg(FW_CFG_MAX_CPUS, num_cpus)
        self._vm.set_fw_cfg(FW_CFG_MAX_RAM, bytes(8))  # No limit.

    def _add_interfaces(self) -> Dispatcher:
        """Give each interface its leaves, MSRs and hypercalls. Raises PlacementError if they do not get along."""
        attached: list[Interface] = []
        try:
            for interface in self.interfaces:
                interface.attach(self)
                attached.append(interface)
            leaves = place_interfaces(self.interfaces)
            for interface in self.interfaces:
                self._router.serve_msrs(interface)
            dispatcher = Dispatcher(self.interfaces, self.vcpus)
        except ConfigurationError:
            for interface in attached:
                interface.detach()  # It can be used in another machine.
            raise
        self._hypervisor_leaves = leaves
        self._show_cpu()
        for interface in self.interfaces:
            interface.attached()
            interface.reset()
        return dispatcher

    def _show_cpu(self) -> None:
        table = build_cpuid(
            self._cpu,
            cpus=len(self.vcpus),
            tsc_khz=self.tsc_khz,
            hypervisor=self._hypervisor_leaves,
            subleaves=collect_subleaves(self.interfaces),
        )
        self._vm.set_cpuid(table, self._cpu.arch_capabilities)

    def show_cpu_feature(self, name: str, shown: bool) -> bool:
        """Let CPUID announce a feature of the guest CPU, or no longer: for guests that ask their hypervisor for it.
        Return whether it did before."""
        self._check_usable()
        before = self._cpu.features
        features = before | {name} if shown else before - {name}
        if features != before:
            self._cpu = replace(self._cpu, features=features)
            self._show_cpu()
        return name in before

    def _set_exit_handlers(self) -> None:
        for kind, handler in (
            (ExitKind.BREAKPOINT, self._on_breakpoint),
            (ExitKind.STEP, self._on_step),
            (ExitKind.SHUTDOWN, lambda exit: self._end(StopReason.TRIPLE_FAULT, exit.vcpu)),
            (ExitKind.DEADLOCK, lambda _exit: self._end(StopReason.HALTED)),
            (ExitKind.BUDGET, self._on_budget),
            (ExitKind.IDLE, self._on_idle),
            (ExitKind.DEBUG_EXIT, lambda exit: self._end(StopReason.DEBUG_EXIT, exit.vcpu, exit.value)),
            (ExitKind.RESET, self._on_reset),
            (ExitKind.SOFT_RESET, self._on_soft_reset),
            (ExitKind.SUSPEND, self._on_suspend),
            (ExitKind.POWER_OFF, lambda exit: self._end(StopReason.POWER_OFF, exit.vcpu)),
            (ExitKind.CONSOLE_TEXT, self._on_panic_line),
            (ExitKind.ALARM, self._timers.on_alarm),
            (ExitKind.END_OF_INTERRUPT, self._on_end_of_interrupt),
        ):
            self._router.set_handler(kind, handler)

    def _bind_host(self) -> None:
        """Bind what depends on the host: which instruction is native, and what is done with the other."""
        fixup = FixUpEngine(
            vm=self._vm,
            vcpus=self.vcpus,
            host=self._host,
            guest_vendor=self._cpu.vendor,
            policy=self._policy,
            dispatcher=self._dispatcher,
            log=self._fixup_log,
            symbol_for=lambda address: self.symbols.find(address),
            real_mode=all(interface.real_mode for interface in self.interfaces),
        )
        # Without a hypervisor the instruction is undefined in either form.
        is_undefined = self._dispatcher.is_empty or fixup.native_is_undefined
        handler = fixup.on_undefined_native if is_undefined else self._dispatcher.handler()
        self._router.set_handler(ExitKind.HYPERCALL, handler)
        self._fixup = fixup
        self._router.set_handler(ExitKind.EXCEPTION, self._on_exception)
        vectors = frozenset() if self._dispatcher.is_empty else frozenset(self._host.fault_vectors)
        self._router.set_exceptions(vectors.union(*(interface.exceptions for interface in self.interfaces)))

    # -- booting

    def boot(
        self,
        kernel: str | os.PathLike[str] | bytes,
        args: Sequence[str] = (),
        *,
        append: str = "",
        initrd: str | os.PathLike[str] | bytes | None = None,
        protocol: str | None = None,
        address: int | None = None,
        symbols: str | os.PathLike[str] | bytes | None = None,
    ) -> None:
        """Load a kernel, so that `run` starts it. Booting again resets the machine; RAM keeps what it has.

        kernel: a file's name or its content. args: words of the kernel's command line; append: more of it as text, as
        for QEMU's `-append`. A multiboot kernel gets its file's name before them. initrd: an initial RAM disk or
        module, likewise a file's name or content. protocol: `"multiboot"`, `"pvh"`, `"linux"` (the kernel places and
        unpacks itself), `"flat"` for raw real-mode code, or `"firmware"` for what starts at the reset vector as a BIOS
        does; None finds it out, but for the last two. address: where a flat binary goes, 0x7C00 by default. symbols: a
        file with the kernel's symbols, if its own does not have them: a System.map, the output of nm, or an ELF file.
        Raises ImageError if a file is not what it should be or does not fit, OSError if it cannot be read.
        """
        self._check_usable()
        file = KernelFile.read(kernel, "kernel")
        module = None if initrd is None else KernelFile.read(initrd, "initrd")
        new_kernel = open_kernel(
            file,
            command_line=" ".join(filter(None, (*args, append))),
            initrd=module,
            protocol=protocol,
            address=address,
        )
        given_symbols = None if symbols is None else read_symbol_file(KernelFile.read(symbols, "symbols"))
        self._insert_firmware(new_kernel)
        if self._kernel is not None or self._has_firmware:
            self._reset_hardware()
        self._given_symbols, self._symbols = given_symbols, None
        self._load(new_kernel)
        self._kernel = new_kernel
        for interface in self.interfaces:
            interface.started()

    def reset(self) -> None:
        """Reset the machine and start its kernel anew, as the reset button does; RAM keeps what the kernel's file does
        not overwrite."""
        self._check_usable()
        if self._kernel is None:
            raise MachineStateError("nothing to reset: call boot() first")
        self._reset_hardware()
        self._load(self._kernel)
        for interface in self.interfaces:
            interface.started()

    def _reset_hardware(self) -> None:
        self._vm.reset(hard=True)
        self._end_watchers.clear()
        for interface in self.interfaces:
            interface.reset()

    def _insert_firmware(self, kernel: Kernel) -> None:
        """Put firmware into its ROM, and what it asks for into fw_cfg; or take out what is there. With firmware, what
        happens at the reset vector is its own affair."""
        had_firmware, self._has_firmware = self._has_firmware, isinstance(kernel, FirmwareImage)
        self._vm.set_rom(kernel.data if isinstance(kernel, FirmwareImage) else b"")
        if self._has_firmware:
            for name, data in firmware_files(self.memory.ranges(), self._vm.apic_ids()).items():
                self._vm.set_fw_cfg_file(name, data)
        if had_firmware != self._has_firmware:
            change = self._vm.remove_breakpoint if self._has_firmware else self._vm.add_breakpoint
            for address in RESET_VECTORS:
                change(address)

    def _load(self, kernel: Kernel) -> None:
        """Do what a BIOS does until it enters the kernel, if there is none."""
        self._panic_message = None
        self._vm.watch_console(kernel.panic_lines or ())
        if not self._has_firmware:
            firmware.write_firmware_state(self.memory)
            apic_ids = self._vm.apic_ids()
            acpi.write_tables(self.memory, apic_ids)
            mptable.write_mp_table(self.memory, apic_ids)
        self._enter(kernel.load(self.memory))

    def _enter(self, entry: Entry) -> None:
        enter(self._vm, self.vcpus[0], entry)

    # -- running

    def run(self, max_instructions: int | None = None, timeout: float | None = None) -> Result:
        """Run the guest until it ends, or a limit is reached; then it can be run on.

        max_instructions: of all vCPUs together. timeout: in seconds of the host's time. The interpreter lock is
        released while guest code runs. What a handler or hook raises comes out unchanged, and so does
        KeyboardInterrupt; the machine can be run on after both. Raises MachineStateError if nothing was booted or it
        runs already.
        """
        self._check_runnable()
        if max_instructions is not None:
            _check_number("max_instructions", max_instructions, 1, (1 << 63) - 1)
        if timeout is not None and not timeout > 0:
            raise ConfigurationError(f"timeout {timeout!r} is not above 0 seconds", option="timeout", value=timeout)
        with self._running() as meter, self._timer(timeout):
            self._target = None if max_instructions is None else meter.instructions + max_instructions
            self._loop()
            return meter.result(self, self._stops[0])

    def step(self, vcpu: int = 0, count: int = 1, *, alone: bool = True) -> Result:
        """Execute `count` instructions of one vCPU. The reason is STEP unless it ended.

        alone: no other vCPU runs meanwhile. False: each takes its turn as in a run, and the machine stops behind an
        instruction of this one.
        """
        self._check_runnable()
        _check_number("vcpu", vcpu, 0, len(self.vcpus) - 1)
        with self._running() as meter:
            self._target = None
            self._attendant.begin()
            for _ in range(count):
                self._step_once(vcpu, alone)
                if self._stops:
                    break
            return meter.result(self, self._stops[0] if self._stops else _Stop(StopReason.STEP, vcpu))

    def debug(self, address: str = "1234") -> Result:
        """Wait for gdb at `"PORT"` of the loopback or `"HOST:PORT"`, and run as it wants until the guest ends, or gdb
        kills it (reason STOPPED).

        See `paravirt.debugger.GdbServer`. Raises ConfigurationError if one cannot listen there.
        """
        from paravirt.debugger import GdbServer  # With what it imports it would be a tenth of an empty guest's run.

        with GdbServer(self, address) as server:
            return server.run()

    def stop(self) -> None:
        """Make `run` return soon, with reason STOPPED. For handlers, hooks, and other threads."""
        if self._is_running:
            self._end(StopReason.STOPPED)
            self._interrupt()

    def _interrupt(self) -> None:
        """Make the run loop look whether it has to end: a guest that makes no exit, and a loop that waits."""
        self._vm.interrupt()
        self._events.wake()

    def shut_down(self, reason: StopReason, vcpu: Vcpu | None = None, message: str = "") -> None:
        """End the run, or with RESET restart the machine if it reboots: for interfaces whose guests ask for that.

        vcpu: which asked. message: what the guest says about it, `Result.message`.
        """
        if reason is StopReason.RESET and self.reboot:
            self.call_at(self.now_ns, self.reset)  # Not in the middle of the instruction that asks for it.
        else:
            self._end(reason, None if vcpu is None else vcpu.index, message=message)

    def _loop(self) -> None:
        """The heart: an exit, its handler, the answer, until somebody asks to stop."""
        run = self._vm.run
        handlers = self._router.handlers
        stops = self._stops
        self._attendant.begin()
        is_bounded = self._target is not None or self._attendant.is_needed
        limit = self._next_limit()
        answer = None
        while not stops:
            exit = run(limit, answer)
            answer = handlers[exit.kind](exit)
            if is_bounded:
                limit = self._next_limit()
        # Whoever stops the machine in a handler finds the instruction behind it, with its answer.
        while answer is not None:
            exit = self._vm.step(exit.vcpu, answer)
            answer = handlers[exit.kind](exit)

    def _next_limit(self) -> int | None:
        """How many instructions may run until somebody must look."""
        instructions = self._vm.instructions()
        limits = (
            PUMP_INSTRUCTIONS if self.console.needs_pump else None,
            None if self._target is None else max(self._target - instructions, 0),
            self._attendant.left(instructions),
        )
        return min((limit for limit in limits if limit is not None), default=None)

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Serve the host's events until a condition holds, the guest standing still. False if somebody stops it."""
        with self._running():
            while not self._stops and not condition():
                self._events.poll(None)
            return not self._stops

    def _step_once(self, vcpu: int, alone: bool) -> None:
        step = self._vm.step if alone else self._vm.step_in_turn
        answer = None
        while answer is not None or not self._stops:
            exit = step(vcpu, answer)
            answer = self._router.handlers[exit.kind](exit)
            if exit.kind == ExitKind.STEP:
                return

    @contextmanager
    def _running(self) -> Iterator[_Meter]:
        self._stops.clear()
        self._is_running = True
        try:
            yield _Meter(self)
        except _native.HostError as error:
            raise EngineError(str(error)) from error
        finally:
            self._is_running = False
            self.console.pump()
            if self._tracer is not None:
                self._tracer.flush()

    @contextmanager
    def _timer(self, timeout: float | None) -> Iterator[None]:
        if timeout is None:
            yield
            return
        timer = threading.Timer(timeout, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._end(StopReason.TIMEOUT)
        self._interrupt()

    # -- exits

    def _end(
        self, reason: StopReason, vcpu: int | None = None, debug_exit: int | None = None, message: str = ""
    ) -> None:
        if self._panic_message is not None and reason in PANIC_ENDS:
            reason, message = StopReason.CRASH, self._panic_message
        self._stops.append(_Stop(reason, vcpu, debug_exit, message))

    def _on_panic_line(self, exit: Exit) -> None:
        """The kernel's first words of a panic, or its last. The reset or halt behind the first is part of the panic."""
        if self._panic_message is None:
            self._panic_message = _last_line(self.console.recent)
        if exit.value == PanicLines._fields.index("last"):
            self._end(StopReason.CRASH, message=self._panic_message)

    def _on_step(self, _exit: Exit) -> None:
        pass

    def _on_budget(self, _exit: Exit) -> None:
        if self._target is not None and self._vm.instructions() >= self._target:
            self._end(StopReason.MAX_INSTRUCTIONS)
        else:
            self.console.pump()
            self._attendant.look()

    def _on_idle(self, exit: Exit) -> None:
        self.console.pump()
        if not self._attendant.idle(exit.value):
            self._end(StopReason.HALTED)

    def _on_breakpoint(self, exit: Exit) -> None:
        vcpu = self.vcpus[exit.vcpu]
        address = vcpu.linear_rip
        if address in RESET_VECTORS and not self._has_firmware and not vcpu.cr0 & CR0_PE:
            self._restart()
            return
        for breakpoint in tuple(self._breakpoints.get(address, ())):
            breakpoint.hits += 1
            if breakpoint.function is None or breakpoint.function(vcpu) is True:
                self._end(StopReason.BREAKPOINT, exit.vcpu)

    def _on_exception(self, exit: Exit) -> None:
        vcpu = self.vcpus[exit.vcpu]
        error_code = exit.value if exit.has_error_code else None
        for interface in self.interfaces:
            if exit.address in interface.exceptions and interface.exception(vcpu, exit.address, error_code):
                return
        self._fixup.on_exception(exit)

    def _on_end_of_interrupt(self, exit: Exit) -> None:
        watcher = self._end_watchers.get((exit.vcpu, exit.address))
        if watcher is not None:
            watcher()

    def _watch_end_of_interrupt(self, vcpu: int, vector: int, function: Callable[[], object] | None) -> None:
        if function is None:
            self._end_watchers.pop((vcpu, vector), None)
        else:
            self._end_watchers[vcpu, vector] = function
        self._vm.watch_end_of_interrupt(vcpu, vector, function is not None)

    def _on_reset(self, exit: Exit) -> None:
        if self.reboot:
            self.reset()
        else:
            self._end(StopReason.RESET, exit.vcpu)

    def _on_soft_reset(self, exit: Exit) -> None:
        """INIT of the processors, from which a BIOS goes where the guest has prepared, or else boots anew."""
        if self._has_firmware:
            self._vm.reset(hard=False)
        elif self._vm.get_cmos(CMOS_SHUTDOWN_STATUS) == RESUME_BY_FAR_POINTER:
            self._vm.reset(hard=False)
            self._restart()
        else:
            self._on_reset(exit)

    def _on_suspend(self, exit: Exit) -> None:
        """Suspend to RAM, and do what a BIOS does when the machine wakes (ACPI 6.5 section 16.3.2)."""
        if not self._vm.suspend():
            self._end(StopReason.HALTED, exit.vcpu)
            return
        for interface in self.interfaces:
            interface.reset()
        if self._has_firmware:
            return  # It finds out by itself, at the reset vector.
        vector = acpi.waking_vector(self.memory)
        if vector:
            self._enter(RealModeEntry(vector >> 4, vector & 0xF))
        else:
            self.reset()

    def _restart(self) -> None:
        """Do what a BIOS does at the reset vector when memory has been kept: go where the far pointer says if the
        shutdown status asks for that, else boot again."""
        if self._vm.get_cmos(CMOS_SHUTDOWN_STATUS) == RESUME_BY_FAR_POINTER:
            offset = self.memory.read_int(WARM_RESET_VECTOR, 2)
            selector = self.memory.read_int(WARM_RESET_VECTOR + 2, 2)
            self._enter(RealModeEntry(selector, offset))
        elif self._kernel is not None:
            self._vm.reset(hard=False)
            self._load(self._kernel)

    # -- looking inside

    def breakpoint(self, where: int | str, function: Callable[[Vcpu], object] | None = None) -> Breakpoint:
        """Stop before the instruction at a linear address or symbol, or call `function(vcpu)` there; any number of them
        at one place. The run ends if there is no function, or it returns True.

        Raises BreakpointError for an unknown symbol.
        """
        address = self._address_of(where)
        breakpoint = Breakpoint(self, address, function)
        if address not in self._breakpoints:
            self._vm.add_breakpoint(address)
        self._breakpoints.setdefault(address, []).append(breakpoint)
        return breakpoint

    def _address_of(self, where: int | str) -> int:
        if isinstance(where, str):
            if where not in self.symbols:
                hint = "boot a kernel with symbols first" if not len(self.symbols) else "the kernel has no such symbol"
                raise BreakpointError(f"no symbol {where!r}: {hint}", where)
            return self.symbols[where]
        if not 0 <= where < 1 << 64:
            raise BreakpointError(f"breakpoint address {where:#x} is not in 0 to 2**64-1", where)
        return where

    def _remove_breakpoint(self, breakpoint: Breakpoint) -> None:
        here = self._breakpoints.get(breakpoint.address, [])
        if breakpoint not in here:
            return
        here.remove(breakpoint)
        if not here:
            del self._breakpoints[breakpoint.address]
            if breakpoint.address not in RESET_VECTORS or self._has_firmware:
                self._vm.remove_breakpoint(breakpoint.address)

    def hook(self, kind: str, function: Callable[[Vcpu, Exit], object]) -> Hook:
        """Call `function(vcpu, exit)` before each exit of a kind is handled: `"hypercall"`, `"exception"`, `"port"`,
        `"mmio"`, `"msr"`, `"cpuid"` or `"halt"`. Any number of them; they change nothing. Raises ConfigurationError."""
        return self._router.add_hook(kind, function)

    def on_fixup(self, function: Callable[[FixUp], None]) -> None:
        """Call `function(fixup)` after each repaired or emulated hypercall instruction."""
        self._fixup_log.observers.append(function)

    def serve_ports(
        self,
        first: int,
        last: int | None = None,
        *,
        read: Callable[[Vcpu, int, int], int] | None = None,
        write: Callable[[Vcpu, int, int, int], None] | None = None,
    ) -> None:
        """Be a device at I/O ports first..=last: `read(vcpu, port, size)`, `write(vcpu, port, size, value)`, sizes in
        bytes. It hides what the board has there. Raises PlacementError if somebody serves one of them already."""
        self._router.serve_ports("serve_ports", first, first if last is None else last, read, write)

    def serve_mmio(
        self,
        gpa: int,
        length: int,
        *,
        read: Callable[[Vcpu, int, int], int] | None = None,
        write: Callable[[Vcpu, int, int, int], None] | None = None,
    ) -> None:
        """Be a device in guest-physical memory where there is no RAM; as `serve_ports`, with GPAs."""
        self._router.serve_mmio("serve_mmio", gpa, length, read, write)

    def watch_msr(self, index: int, function: Callable[[Vcpu], object]) -> None:
        """Call `function(vcpu)` after each WRMSR of the guest to an MSR, whoever has it."""
        self._router.watch_msr(index, function)

    @property
    def symbols(self) -> SymbolTable:
        """The kernel's symbols. None before `boot`, if its file has none, and while a kernel that places itself has not
        come far enough to say where it is."""
        if self._kernel is None:
            return SymbolTable()
        if self._symbols is None:
            if self._given_symbols is None:
                self._given_symbols = self._kernel.symbols()
            self._symbols = self._kernel.find_symbols(self._given_symbols, self.vcpus[0])
        return self._symbols or SymbolTable()

    @property
    def fixups(self) -> tuple[FixUp, ...]:
        """Foreign hypercall instructions met, oldest first; the last 10000."""
        return self._fixup_log.records

    @property
    def fixup_counts(self) -> dict[str, int]:
        """How many foreign hypercall instructions were met since power-on, by what was done with them."""
        return self._fixup_log.counts

    @property
    def stats(self) -> Mapping[str, int]:
        """The engine's counters since power-on."""
        return self._vm.statistics()

    @property
    def hypercalls(self) -> dict[int, Interface]:
        """Which interface answers which hypercall number."""
        return self._dispatcher.owners

    @property
    def now_ns(self) -> int:
        """Virtual time since power-on, in ns."""
        return self._vm.now_ns()

    @property
    def apic_ids(self) -> list[int]:
        """Local APIC ids, by vCPU."""
        return self._vm.apic_ids()

    def call_at(self, deadline_ns: int, function: Callable[[], object]) -> Timer:
        """Call `function()` when virtual time has reached `deadline_ns`, between two instructions of the guest."""
        return self._timers.call_at(deadline_ns, function)

    def deliver_interrupt(self, apic_id: int, vector: int, delivery_mode: int = 0) -> bool:
        """Send an interrupt to a local APIC by its id: fixed (0) or NMI (4). False if there is no such APIC."""
        return self._vm.deliver_interrupt(apic_id, vector, delivery_mode)

    def set_irq(self, gsi: int, level: bool) -> None:
        """Drive an interrupt line: an IOAPIC pin, and below 16 the 8259's."""
        self._vm.set_irq(gsi, level)

    def state_hash(self) -> int:
        """Return a 64-bit hash of vCPUs, board and RAM; equal for equal runs."""
        return self._vm.state_hash()

    # -- host

    @property
    def host(self) -> Host:
        """What is beneath the guest. Set it, by name or object, between runs: the guest meets another silicon as after
        a migration, and keeps the CPU that it was told of."""
        return self._host

    @host.setter
    def host(self, host: str | Host) -> None:
        self._check_usable()
        new_host, old_host = find_host(host), self._host
        self._host = new_host
        try:
            self._bind_host()
        except ConfigurationError:
            self._host = old_host
            raise
        self._vm.set_host(new_host.name)
        for interface in self.interfaces:
            interface.host_changed()

    @property
    def policy(self) -> Policy:
        """What is done with a foreign hypercall instruction."""
        return self._policy

    @property
    def cpu_vendor(self) -> str:
        """The vendor string that the guest's CPUID shows."""
        return self._cpu.vendor

    # -- life

    def close(self) -> None:
        """End the machine. It cannot be used any more; closing again does nothing."""
        if self._is_running:
            raise MachineStateError("the machine is running; stop() it first")
        if not self._is_closed:
            self._is_closed = True
            self.console.pump()
            for interface in self.interfaces:
                interface.detach()
            unplug_devices(self.devices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._is_closed:
            raise MachineStateError("the machine is closed")

    def _check_runnable(self) -> None:
        self._check_usable()
        if self._is_running:
            raise MachineStateError("the machine is already running")
        if self._kernel is None:
            raise MachineStateError("nothing to run: call boot() first")

    def __repr__(self) -> str:
        interfaces = ", ".join(interface.name for interface in self.interfaces) or "no interface"
        return (
            f"<Machine {self._engine.name} on {self._host}: {len(self.vcpus)} vCPUs, {self.memory.size // MIB} MiB,"
            f" {interfaces}, policy {self._policy}>"
        )


class _Meter:
    """What a machine's counters were when a run began."""

    def __init__(self, machine: Machine) -> None:
        self.instructions = machine._vm.instructions()
        self._exits = _count_exits(machine)
        self._fixups = machine._fixup_log.total
        self._virtual_ns = machine._vm.now_ns()
        self._wall_s = time.perf_counter()

    def result(self, machine: Machine, stop: _Stop) -> Result:
        """Return what has happened since."""
        return Result(
            reason=stop.reason,
            instructions=machine._vm.instructions() - self.instructions,
            exits={kind: count - self._exits.get(kind, 0) for kind, count in _count_exits(machine).items()},
            fixups=machine._fixup_log.total - self._fixups,
            virtual_ns=machine._vm.now_ns() - self._virtual_ns,
            wall_s=time.perf_counter() - self._wall_s,
            engine=machine._engine.name,
            debug_exit=stop.debug_exit,
            vcpu=stop.vcpu,
            message=stop.message,
        )


def _last_line(output: bytes) -> str:
    """The line that a console's output ends with, without the kernel's timestamp."""
    line = (output.splitlines() or [b""])[-1].decode("ascii", "replace")
    return line.partition("] ")[2] if line.startswith("[") else line


def _count_exits(machine: Machine) -> dict[str, int]:
    prefix = "exits_"
    return {
        name.removeprefix(prefix): count for name, count in machine._vm.statistics().items() if name.startswith(prefix)
    }


def _check_number(option: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(
            f"{option} {value!r} is not a number from {least} to {most}", option=option, value=value
        )
