"""A hypervisor one can `pip install`: it runs x86 guests under the paravirtual interface that you choose.

import paravirt as pv

vm = pv.Machine(host="intel", cpus=2, memory="64M", interfaces=[pv.KVM()])
vm.boot("kernel.elf")
result = vm.run()
"""

from paravirt._version import __version__
from paravirt.boot.image import Kernel
from paravirt.console import Console
from paravirt.devices import Device, Disk, Entropy, VirtioConsole
from paravirt.errors import (
    BreakpointError,
    BuildError,
    ConfigurationError,
    EngineError,
    GuestFault,
    GuestMemoryError,
    GuestPointerError,
    ImageError,
    MachineStateError,
    ParavirtError,
    PlacementError,
    UnknownFeatureError,
    UnknownInterfaceError,
)
from paravirt.exits import Hook
from paravirt.host import Host
from paravirt.hypercalls.arguments import GpaPtr, GvaPtr, i8, i16, i32, i64, u8, u16, u32, u64
from paravirt.hypercalls.dispatch import Call
from paravirt.hypercalls.fixup import FixUp, Policy
from paravirt.hypercalls.registers import Convention
from paravirt.interfaces.base import CpuidLeaf, Interface, hypercall, msr_read, msr_write
from paravirt.interfaces.kvm import KVM
from paravirt.machine import Breakpoint, Machine
from paravirt.memory import GuestMemory
from paravirt.result import Result, StopReason
from paravirt.symbols import SymbolTable
from paravirt.timers import Timer
from paravirt.trace import Tracer
from paravirt.vcpu import Vcpu

__all__ = [
    "KVM",
    "Breakpoint",
    "BreakpointError",
    "BuildError",
    "Call",
    "ConfigurationError",
    "Console",
    "Convention",
    "CpuidLeaf",
    "Device",
    "Disk",
    "EngineError",
    "Entropy",
    "FixUp",
    "GpaPtr",
    "GuestFault",
    "GuestMemory",
    "GuestMemoryError",
    "GuestPointerError",
    "GvaPtr",
    "Hook",
    "Host",
    "ImageError",
    "Interface",
    "Kernel",
    "Machine",
    "MachineStateError",
    "ParavirtError",
    "PlacementError",
    "Policy",
    "Result",
    "StopReason",
    "SymbolTable",
    "Timer",
    "Tracer",
    "UnknownFeatureError",
    "UnknownInterfaceError",
    "Vcpu",
    "VirtioConsole",
    "__version__",
    "hypercall",
    "i8",
    "i16",
    "i32",
    "i64",
    "msr_read",
    "msr_write",
    "u8",
    "u16",
    "u32",
    "u64",
]
