"""The vendor-neutral interface at 0x40001000 that was proposed in 2007, so that one driver serves every hypervisor.

It has a signature of its own, feature bits, and one bit for each style of hypercall that others of the machine speak.
An MSR, whose number a leaf tells, selects the style of a vCPU; a guest probes all this without making a hypercall.
The thread left the numbers open; those that are ours are in `docs/interfaces.md`.

Features have KVM's numbering, and their MSRs are KVM's at another place; so they are there if the machine has KVM too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from paravirt.errors import GuestFault
from paravirt.hypercalls.dispatch import Call
from paravirt.interfaces.base import CpuidLeaf, Interface, MsrEntry, msr_read, msr_write
from paravirt.interfaces.kvm import KVM
from paravirt.vcpu import Vcpu

__all__ = ["Generic", "Style"]

BASE = 0x4000_1000
SIGNATURE = b"paravirt_ops"

LEAF_FEATURES, LEAF_MSRS = 1, 2
HAS_STYLE_MSR = 1 << 0

MSR_BASE = 0x4000_1000
NUM_MSRS = 0x20
MSR_STYLE = MSR_BASE + 0x10
KVM_MSRS = 0x4B56_4D00
"""KVM's MSRs from here on appear from MSR_BASE on, up to the one that selects the style (exclusive)."""

UD_VECTOR = 6


class Style(IntEnum):
    """How hypercalls are made: the convention of the interface that takes them."""

    NONE = 0
    KVM = 1
    XEN = 2
    HYPERV = 3
    KVM_LEGACY = 4


_STYLE_OF = {"kvm": Style.KVM, "xen": Style.XEN, "hyperv": Style.HYPERV, "kvm-legacy": Style.KVM_LEGACY}
"""By the name of an interface."""


class Generic(Interface):
    """The vendor-neutral interface, over whatever other interfaces the machine has."""

    name = "generic"
    signature = SIGNATURE
    fixed_base = BASE

    def __init__(self) -> None:
        self._styles: dict[Style, Interface] = {}
        self._default = Style.NONE
        self._selected: list[Style] = []
        self._mirrored: dict[tuple[int, bool], MsrEntry] = {}

    def attached(self) -> None:
        """Look who else is there."""
        for interface in self.machine.interfaces:
            style = _STYLE_OF.get(interface.name)
            if style is not None:
                self._styles.setdefault(style, interface)
        self._default = self._find_default()
        self._mirrored = {
            (entry.first - KVM_MSRS + MSR_BASE, entry.write): entry
            for interface in self.machine.interfaces
            if isinstance(interface, KVM)
            for entry in interface.msrs()
            if KVM_MSRS <= entry.first < KVM_MSRS + MSR_STYLE - MSR_BASE
        }

    def _find_default(self) -> Style:
        """After RESET: the convention of the interface at 0x40000000, else KVM's, else the lowest there is."""
        first = next((style for style in self._styles if self._is_first(self._styles[style])), None)
        if first is not None:
            return first
        return Style.KVM if Style.KVM in self._styles else min(self._styles, default=Style.NONE)

    @staticmethod
    def _is_first(interface: Interface) -> bool:
        return bool(interface.signature) and interface.base == 0x4000_0000

    def reset(self) -> None:
        """Every vCPU has the default style again; INIT changes none."""
        self._selected = [self._default for _ in self.machine.vcpus]

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """Features and hints as KVM has them, the styles, and where the MSRs are."""
        others = self.machine.interfaces if self._machine is not None else ()
        kvm = next((interface for interface in others if isinstance(interface, KVM)), None)
        features, hints = (int(kvm.features), int(kvm.hints)) if kvm is not None else (0, 0)
        styles = sum(1 << style for style in {_STYLE_OF.get(interface.name) for interface in others} if style)
        return {
            LEAF_FEATURES: (features, styles, HAS_STYLE_MSR, hints),
            LEAF_MSRS: (MSR_BASE, NUM_MSRS, 0, 0),
        }

    # -- MSRs

    @msr_read(MSR_STYLE)
    def read_style(self, vcpu: Vcpu) -> int:
        """Return the style of this vCPU."""
        return self._selected[vcpu.index]

    @msr_write(MSR_STYLE)
    def write_style(self, vcpu: Vcpu, value: int) -> None:
        """Select a style for this vCPU; #GP(0) for one that nobody here speaks."""
        if value not in (Style.NONE, *self._styles):
            raise GuestFault
        self._selected[vcpu.index] = Style(value)

    @msr_read(MSR_BASE, MSR_STYLE - 1)
    def read_mirrored(self, vcpu: Vcpu, index: int) -> int:
        """Read one of KVM's."""
        value: int = self._mirror(index, write=False).handler(vcpu)
        return value

    @msr_write(MSR_BASE, MSR_STYLE - 1)
    def write_mirrored(self, vcpu: Vcpu, index: int, value: int) -> None:
        """Write one of KVM's."""
        self._mirror(index, write=True).handler(vcpu, value)

    def _mirror(self, index: int, *, write: bool) -> MsrEntry:
        entry = self._mirrored.get((index, write))
        if entry is None:
            raise GuestFault
        return entry

    # -- hypercalls

    def route_call(self, vcpu: Vcpu, call: Call) -> Interface | None:
        """The interface whose style is selected. Style 0: the instruction is undefined."""
        style = self._selected[vcpu.index]
        if style is Style.NONE:
            return self
        return self._styles[style]

    def answers_unclaimed(self, vcpu: Vcpu) -> bool:
        """It has no calls of its own."""
        return False

    def answer_call(self, vcpu: Vcpu, call: Call) -> int | None:
        """No style is selected."""
        raise GuestFault(UD_VECTOR)
