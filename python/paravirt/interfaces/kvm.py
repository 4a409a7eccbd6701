"""The KVM interface, as Linux guests of today know it.

Sources: Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst and arch/x86/include/uapi/asm/kvm_para.h.

What is not announced does not exist: its MSRs give #GP(0) and its hypercalls -KVM_ENOSYS. The one exception is
SEND_IPI, which answers in any case, as in KVM; test kernels call it without asking.

vCPUs take turns in virtual time, which stands still for a vCPU that waits its turn. So there is no stolen time to
report, nobody is ever preempted, and one formula from TSC to nanoseconds holds for all vCPUs for ever.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from functools import reduce
from operator import or_
from typing import ClassVar

from paravirt.cpuid import HYPERVISOR_BASE, LAPIC_TIMER_HZ
from paravirt.errors import ConfigurationError, GuestFault, GuestMemoryError
from paravirt.hypercalls.arguments import GpaPtr, layout_of, u32
from paravirt.hypercalls.fixup import Policy
from paravirt.interfaces.base import CpuidLeaf, Interface, hypercall, msr_read, msr_write, parse_options
from paravirt.interfaces.pvclock import TSC_STABLE, VcpuTimeInfo, time_scale
from paravirt.vcpu import Vcpu

__all__ = ["KVM", "Feature", "Hint"]

# -- definitions


class Feature(IntFlag):
    """Feature bits, leaf base+1 EAX."""

    CLOCKSOURCE = 1 << 0
    NOP_IO_DELAY = 1 << 1
    CLOCKSOURCE2 = 1 << 3
    STEAL_TIME = 1 << 5
    PV_EOI = 1 << 6
    PV_UNHALT = 1 << 7
    PV_SEND_IPI = 1 << 11
    POLL_CONTROL = 1 << 12
    PV_SCHED_YIELD = 1 << 13
    HC_MAP_GPA_RANGE = 1 << 16
    MIGRATION_CONTROL = 1 << 17
    CLOCKSOURCE_STABLE = 1 << 24


class Hint(IntFlag):
    """Hint bits, leaf base+1 EDX."""

    REALTIME = 1 << 0


IMPLEMENTED_FEATURES = reduce(or_, Feature)
"""All of the above; others are refused."""

ON_REQUEST = Feature.HC_MAP_GPA_RANGE | Feature.MIGRATION_CONTROL
"""Announced only if asked for: they are for guests with encrypted memory."""

LEAF_FEATURES = 0x01
LEAF_LINUX_PV = 0x06
PV_LEAF_REPAIRS = 1 << 0
"""Foreign hypercall instructions work."""
LEAF_FREQUENCIES = 0x10

KVM_EPERM = 1
KVM_EFAULT = 14
KVM_EINVAL = 22
KVM_EOPNOTSUPP = 95
KVM_ENOSYS = 1000

KVM_HC_VAPIC_POLL_IRQ = 1
KVM_HC_KICK_CPU = 5
KVM_HC_CLOCK_PAIRING = 9
KVM_HC_SEND_IPI = 10
KVM_HC_SCHED_YIELD = 11
KVM_HC_MAP_GPA_RANGE = 12

KVM_CLOCK_PAIRING_WALLCLOCK = 0

MSR_TSC = 0x10
MSR_TSC_ADJUST = 0x3B
MSR_KVM_WALL_CLOCK = 0x11
MSR_KVM_SYSTEM_TIME = 0x12
MSR_KVM_WALL_CLOCK_NEW = 0x4B56_4D00
MSR_KVM_SYSTEM_TIME_NEW = 0x4B56_4D01
MSR_KVM_STEAL_TIME = 0x4B56_4D03
MSR_KVM_PV_EOI_EN = 0x4B56_4D04
MSR_KVM_POLL_CONTROL = 0x4B56_4D05
MSR_KVM_MIGRATION_CONTROL = 0x4B56_4D08

KVM_MSR_ENABLED = 1 << 0
STEAL_TIME_RESERVED = 0b11_1110
"""MSR_KVM_STEAL_TIME: the area is aligned to 64 bytes, bits 5:1 must be 0."""
PV_EOI_RESERVED = 0b10
POLL_CONTROL_RESERVED = ~1
MIGRATION_READY = 1 << 0
MAP_GPA_RANGE_RESERVED = ~0x1F
"""Bits 3:0 of the attributes are the size of pages, bit 4 whether they are encrypted."""
PAGE_SIZE = 4096


ICR_VECTOR = 0xFF
ICR_DELIVERY_MODE_SHIFT = 8
ICR_LOGICAL = 1 << 11
ICR_SHORTHAND = 0b11 << 18
DELIVERY_FIXED, DELIVERY_LOWEST, DELIVERY_NMI = 0, 1, 4

NS_PER_S = 10**9


class PvclockWallClock(ctypes.LittleEndianStructure):
    """`struct pvclock_wall_clock`: the date when the guest booted."""

    _pack_ = 1
    _fields_: ClassVar = [("version", ctypes.c_uint32), ("sec", ctypes.c_uint32), ("nsec", ctypes.c_uint32)]


class KvmStealTime(ctypes.LittleEndianStructure):
    """`struct kvm_steal_time`."""

    _pack_ = 1
    _fields_: ClassVar = [
        ("steal", ctypes.c_uint64),
        ("version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("preempted", ctypes.c_uint8),
        ("u8_pad", ctypes.c_uint8 * 3),
        ("pad", ctypes.c_uint32 * 11),
    ]


class KvmClockPairing(ctypes.LittleEndianStructure):
    """`struct kvm_clock_pairing`: the date and the TSC at one instant."""

    _pack_ = 1
    _fields_: ClassVar = [
        ("sec", ctypes.c_int64),
        ("nsec", ctypes.c_int64),
        ("tsc", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("pad", ctypes.c_uint32 * 9),
    ]


# -- behaviour


@dataclass(slots=True)
class _VcpuState:
    """What a vCPU has written to its MSRs."""

    system_time: int = 0
    steal_time: int = 0
    pv_eoi: int = 0
    poll_control: int = 1
    migration_control: int = MIGRATION_READY


class KVM(Interface):
    """KVM as Linux guests know it.

    features: what is announced, as flags or as text, `"clocksource2+pv-eoi"`; by default all that is implemented but
    what serves guests with encrypted memory. without: features left out of that. realtime: announce that vCPUs are
    never preempted for long. linux_pv_leaf: leaf base+6 tells features where all hypervisors could, as was proposed
    in 2007.

    Raises ConfigurationError for features that are not implemented.
    """

    name = "kvm"
    signature = b"KVMKVMKVM\0\0\0"
    unknown_call = -KVM_ENOSYS
    denied_call = -KVM_EPERM
    bad_pointer = -KVM_EFAULT

    def __init__(
        self,
        *,
        features: Feature | int | str | None = None,
        without: Feature | int | str = "",
        realtime: bool = False,
        linux_pv_leaf: bool = False,
    ) -> None:
        chosen = IMPLEMENTED_FEATURES & ~ON_REQUEST if features is None else _parse_features(features)
        self.features = chosen & ~_parse_features(without)
        self.hints = Hint.REALTIME if realtime else Hint(0)
        self._linux_pv_leaf = linux_pv_leaf
        self._wall_clock = 0
        self._vcpus: list[_VcpuState] = []

    @classmethod
    def from_options(cls, options: str) -> KVM:
        """Make one from the command line's options: `features=A+B`, `without=A+B`, `realtime`, `pv-leaf`."""
        values = parse_options(cls.name, options, known=("features", "without", "realtime", "pv-leaf"))
        return cls(
            features=values.get("features"),
            without=values.get("without", ""),
            realtime="realtime" in values,
            linux_pv_leaf="pv-leaf" in values,
        )

    def offers(self, feature: object) -> bool:
        """Whether a feature is announced."""
        return isinstance(feature, Feature) and feature in self.features

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """Features and hints; frequencies too where guests look for them, which is at 0x40000000 only."""
        leaves = {LEAF_FEATURES: (int(self.features), 0, 0, int(self.hints))}
        if self._linux_pv_leaf:
            repairs = self._machine is not None and self.machine.policy in (Policy.PATCH, Policy.EMULATE)
            leaves[LEAF_LINUX_PV] = (0, int(self.features), 0, PV_LEAF_REPAIRS if repairs else 0)
        if self.base == HYPERVISOR_BASE and self._machine is not None:
            leaves[LEAF_FREQUENCIES] = (self.machine.tsc_khz, LAPIC_TIMER_HZ // 1000, 0, 0)
        return leaves

    def reset(self) -> None:
        """Forget all areas that the guest has registered."""
        self._wall_clock = 0
        self._vcpus = [_VcpuState() for _ in self.machine.vcpus]
        for vcpu in self.machine.vcpus:
            vcpu.set_pv_eoi(None)

    # -- clocks

    @msr_read(MSR_KVM_WALL_CLOCK, feature=Feature.CLOCKSOURCE)
    @msr_read(MSR_KVM_WALL_CLOCK_NEW, feature=Feature.CLOCKSOURCE2)
    def read_wall_clock(self, vcpu: Vcpu) -> int:
        """Return the last value written by any vCPU."""
        return self._wall_clock

    @msr_write(MSR_KVM_WALL_CLOCK, feature=Feature.CLOCKSOURCE)
    @msr_write(MSR_KVM_WALL_CLOCK_NEW, feature=Feature.CLOCKSOURCE2)
    def write_wall_clock(self, vcpu: Vcpu, gpa: int) -> None:
        """Write the date of boot to `gpa`, once. Nothing happens if there is no RAM."""
        self._wall_clock = gpa
        if gpa == 0:
            return
        area = GpaPtr[bytes](vcpu, gpa)
        try:
            version = int.from_bytes(area.read_bytes(4), "little")
            version += version & 1
            seconds, nanoseconds = divmod(vcpu.machine.start_unix_ns, NS_PER_S)
            area.write_bytes(bytes(PvclockWallClock(version + 2, seconds & 0xFFFF_FFFF, nanoseconds)))
        except GuestMemoryError:
            return

    @msr_read(MSR_KVM_SYSTEM_TIME, feature=Feature.CLOCKSOURCE)
    @msr_read(MSR_KVM_SYSTEM_TIME_NEW, feature=Feature.CLOCKSOURCE2)
    def read_system_time(self, vcpu: Vcpu) -> int:
        """Return the last value written."""
        return self._vcpus[vcpu.index].system_time

    @msr_write(MSR_KVM_SYSTEM_TIME, feature=Feature.CLOCKSOURCE)
    @msr_write(MSR_KVM_SYSTEM_TIME_NEW, feature=Feature.CLOCKSOURCE2)
    def write_system_time(self, vcpu: Vcpu, value: int) -> None:
        """Bit 0 enables the clock; the rest is the GPA of its structure."""
        self._vcpus[vcpu.index].system_time = value
        if value & KVM_MSR_ENABLED:
            self._write_clock(vcpu, value & ~KVM_MSR_ENABLED)

    @msr_read(MSR_TSC, MSR_TSC)
    @msr_read(MSR_TSC_ADJUST, MSR_TSC_ADJUST)
    def read_tsc(self, vcpu: Vcpu, index: int) -> int:
        """Return what the CPU has."""
        try:
            return vcpu.rdmsr(index)
        except KeyError:
            raise GuestFault from None

    @msr_write(MSR_TSC, MSR_TSC)
    @msr_write(MSR_TSC_ADJUST, MSR_TSC_ADJUST)
    def write_tsc(self, vcpu: Vcpu, index: int, value: int) -> None:
        """Let the CPU do it. A clock that counts from the TSC is then written anew, so that time goes on evenly."""
        try:
            vcpu.wrmsr(index, value)
        except KeyError:
            raise GuestFault from None
        system_time = self._vcpus[vcpu.index].system_time
        if system_time & KVM_MSR_ENABLED:
            self._write_clock(vcpu, system_time & ~KVM_MSR_ENABLED)

    def _write_clock(self, vcpu: Vcpu, gpa: int) -> None:
        """The origin is virtual time 0, where the reference TSC was 0: the same for all vCPUs unless a guest has set
        one's TSC, so that it is stable. Virtual time never goes back, so no later update is needed."""
        area = GpaPtr[bytes](vcpu, gpa)
        mul, shift = time_scale(vcpu.machine.tsc_khz)
        flags = TSC_STABLE if Feature.CLOCKSOURCE_STABLE in self.features else 0
        try:
            version = int.from_bytes(area.read_bytes(4), "little")
            version += version & 1
            area.write_bytes(bytes(VcpuTimeInfo(version + 2, 0, vcpu.tsc_offset, 0, mul, shift, flags)))
        except GuestMemoryError:
            return

    # -- steal time, interrupts, halt polling

    @msr_read(MSR_KVM_STEAL_TIME, feature=Feature.STEAL_TIME)
    def read_steal_time(self, vcpu: Vcpu) -> int:
        """Return the last value written."""
        return self._vcpus[vcpu.index].steal_time

    @msr_write(MSR_KVM_STEAL_TIME, feature=Feature.STEAL_TIME)
    def write_steal_time(self, vcpu: Vcpu, value: int) -> None:
        """Bit 0 enables it; bits 63:6 are the GPA of the structure, updated once: nothing is ever stolen."""
        if value & STEAL_TIME_RESERVED:
            raise GuestFault
        self._vcpus[vcpu.index].steal_time = value
        if not value & KVM_MSR_ENABLED:
            return
        area = GpaPtr[KvmStealTime](vcpu, value & ~KVM_MSR_ENABLED, layout_of(KvmStealTime))
        try:
            steal_time = area.read()
            steal_time.preempted = 0
            steal_time.version += 2 - (steal_time.version & 1)
            area.write(steal_time)
        except GuestMemoryError:
            return

    @msr_read(MSR_KVM_PV_EOI_EN, feature=Feature.PV_EOI)
    def read_pv_eoi(self, vcpu: Vcpu) -> int:
        """Return the last value written."""
        return self._vcpus[vcpu.index].pv_eoi

    @msr_write(MSR_KVM_PV_EOI_EN, feature=Feature.PV_EOI)
    def write_pv_eoi(self, vcpu: Vcpu, value: int) -> None:
        """Bit 0 enables it; bits 63:2 are the GPA of a 4-byte word that spares the guest its EOI."""
        if value & PV_EOI_RESERVED:
            raise GuestFault
        gpa = value & ~KVM_MSR_ENABLED
        if value & KVM_MSR_ENABLED:
            try:
                vcpu.machine.memory.read_int(gpa, 4)
            except GuestMemoryError:
                raise GuestFault from None
        self._vcpus[vcpu.index].pv_eoi = value
        vcpu.set_pv_eoi(gpa if value & KVM_MSR_ENABLED else None)

    @msr_read(MSR_KVM_POLL_CONTROL, feature=Feature.POLL_CONTROL)
    def read_poll_control(self, vcpu: Vcpu) -> int:
        """Return whether the host may poll when the vCPU halts."""
        return self._vcpus[vcpu.index].poll_control

    @msr_write(MSR_KVM_POLL_CONTROL, feature=Feature.POLL_CONTROL)
    def write_poll_control(self, vcpu: Vcpu, value: int) -> None:
        """Bit 0 lets the host poll. There is nothing to poll for in virtual time."""
        if value & POLL_CONTROL_RESERVED:
            raise GuestFault
        self._vcpus[vcpu.index].poll_control = value

    @msr_read(MSR_KVM_MIGRATION_CONTROL, feature=Feature.MIGRATION_CONTROL)
    def read_migration_control(self, vcpu: Vcpu) -> int:
        """Return whether the guest lets itself be migrated; it does at first, for nothing of it is encrypted."""
        return self._vcpus[vcpu.index].migration_control

    @msr_write(MSR_KVM_MIGRATION_CONTROL, feature=Feature.MIGRATION_CONTROL)
    def write_migration_control(self, vcpu: Vcpu, value: int) -> None:
        """Bit 0: the guest may be migrated."""
        if value & ~MIGRATION_READY:
            raise GuestFault
        self._vcpus[vcpu.index].migration_control = value

    @property
    def may_migrate(self) -> bool:
        """Whether the guest lets itself be migrated: no vCPU has said otherwise."""
        return all(state.migration_control & MIGRATION_READY for state in self._vcpus)

    # -- hypercalls

    @hypercall(KVM_HC_VAPIC_POLL_IRQ, overridable=True)
    def vapic_poll_irq(self, vcpu: Vcpu) -> int:
        """Do nothing: the exit was the purpose."""
        return 0

    @hypercall(KVM_HC_KICK_CPU, feature=Feature.PV_UNHALT)
    def kick_cpu(self, vcpu: Vcpu, flags: int, apic_id: int) -> int:
        """Wake a vCPU from HLT, with IF clear too; if it is not in HLT, its next one returns at once."""
        target = _find_vcpu(vcpu, apic_id)
        if target is not None:
            target.wake()
        return 0

    @hypercall(KVM_HC_CLOCK_PAIRING)
    def clock_pairing(self, vcpu: Vcpu, area: GpaPtr[KvmClockPairing], clock_type: int) -> int:
        """Tell the date and the TSC at one instant."""
        if clock_type != KVM_CLOCK_PAIRING_WALLCLOCK:
            return -KVM_EOPNOTSUPP
        machine = vcpu.machine
        seconds, nanoseconds = divmod(machine.start_unix_ns + machine.now_ns, NS_PER_S)
        area.write(KvmClockPairing(seconds, nanoseconds, vcpu.tsc, 0))
        return 0

    @hypercall(KVM_HC_SEND_IPI)
    def send_ipi(self, vcpu: Vcpu, low: int, high: int, first_id: u32, icr: int) -> int:
        """Send an interrupt to a set of APIC ids, from `first_id` upwards by two bitmaps. Returns how many got it."""
        if icr & (ICR_LOGICAL | ICR_SHORTHAND):
            return -KVM_EINVAL
        mode = icr >> ICR_DELIVERY_MODE_SHIFT & 7
        if mode not in (DELIVERY_FIXED, DELIVERY_LOWEST, DELIVERY_NMI):
            return -KVM_EINVAL
        # To one APIC, lowest priority is fixed.
        mode = DELIVERY_NMI if mode == DELIVERY_NMI else DELIVERY_FIXED
        word_bits = 64 if vcpu.is_64bit else 32
        bitmap = high << word_bits | low
        machine = vcpu.machine
        return sum(
            machine.deliver_interrupt(apic_id, icr & ICR_VECTOR, mode)
            for apic_id in machine.apic_ids
            if apic_id >= first_id and bitmap >> (apic_id - first_id) & 1
        )

    @hypercall(KVM_HC_SCHED_YIELD, feature=Feature.PV_SCHED_YIELD)
    def sched_yield(self, vcpu: Vcpu, apic_id: int) -> int:
        """Do nothing: every vCPU gets its turn anyway."""
        return 0

    @hypercall(KVM_HC_MAP_GPA_RANGE, feature=Feature.HC_MAP_GPA_RANGE)
    def map_gpa_range(self, vcpu: Vcpu, gpa: int, num_pages: int, attributes: int) -> int:
        """Take note that pages become encrypted or shared. Nothing is encrypted here, so nothing changes; what is no
        range of pages is refused as in KVM."""
        end = gpa + num_pages * PAGE_SIZE
        if gpa % PAGE_SIZE or not num_pages or end >= 1 << 64 or attributes & MAP_GPA_RANGE_RESERVED:
            return -KVM_EINVAL
        return 0


def _find_vcpu(caller: Vcpu, apic_id: int) -> Vcpu | None:
    machine = caller.machine
    try:
        return machine.vcpus[machine.apic_ids.index(apic_id)]
    except ValueError:
        return None


# -- options


def _parse_features(features: Feature | int | str) -> Feature:
    """Return features from flags, a number, or names joined by `+`. Raises ConfigurationError for others."""
    if isinstance(features, str) and not features[:1].isdigit():
        return _features_by_name(features)
    try:
        bits = int(features, 0) if isinstance(features, str) else int(features)
    except ValueError:
        raise ConfigurationError(f"kvm features {features!r} are not a number", option="features") from None
    if bits & ~IMPLEMENTED_FEATURES or bits < 0:
        raise ConfigurationError(
            f"kvm features {bits & ~IMPLEMENTED_FEATURES:#x} are not implemented; leave them out", option="features"
        )
    return Feature(bits)


def _features_by_name(text: str) -> Feature:
    chosen = Feature(0)
    for name in filter(None, text.split("+")):
        try:
            chosen |= Feature[name.strip().upper().replace("-", "_")]
        except KeyError:
            known = ", ".join(str(feature.name).lower().replace("_", "-") for feature in Feature)
            raise ConfigurationError(f"unknown kvm feature {name!r}; known: {known}", option="features") from None
    return chosen
