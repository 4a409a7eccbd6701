"""Hypervisors that guests look for, and that offer no hypercalls here: their signature and the leaves that are read.

Sources: Linux arch/x86/kernel/cpu/{acrn,bhyve,mshyperv}.c and jailhouse.c, QEMU target/i386/cpu.c, NetBSD and OpenBSD
sys/arch/x86. A hypercall, which these hypervisors would take, is answered as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from paravirt.cpuid import LAPIC_TIMER_HZ
from paravirt.interfaces.base import CpuidLeaf, Interface

__all__ = ["ACRN", "QNX", "TCG", "Bhyve", "Jailhouse", "Parallels", "VirtualBox"]


class _Announced(Interface):
    """A signature, and leaves by their offset: those of features are 0, for nothing is offered."""

    empty_leaves: ClassVar[int] = 0
    """How many leaves behind the first have nothing in them."""
    frequencies: ClassVar[bool] = False
    """Whether leaf base+0x10 tells the frequencies of the TSC and the local APIC's timer, in kHz."""

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """The leaves that its guests read."""
        leaves = dict.fromkeys(range(1, self.empty_leaves + 1), (0, 0, 0, 0))
        if self.frequencies and self._machine is not None:
            leaves[0x10] = (self.machine.tsc_khz, LAPIC_TIMER_HZ // 1000, 0, 0)
        return leaves


class ACRN(_Announced):
    """ACRN: Linux reads features (base+1) and the frequency of the TSC (base+0x10)."""

    signature = b"ACRNACRNACRN"
    empty_leaves = 1
    frequencies = True


class Bhyve(_Announced):
    """bhyve: base+1 has features of interrupts beyond 255 APIC ids, which no machine here needs."""

    signature = b"bhyve bhyve "
    empty_leaves = 1


class Jailhouse(_Announced):
    """Jailhouse, as a cell's guest sees it: base+1 has features."""

    signature = b"Jailhouse\0\0\0"
    empty_leaves = 1


class Parallels(_Announced):
    """Parallels."""

    signature = b" lrpepyh  vr"


class QNX(_Announced):
    """QNX Hypervisor."""

    signature = b" QNXQVMBSQG "


class TCG(_Announced):
    """QEMU without an accelerator: base+1 is there and empty (QEMU target/i386/cpu.c)."""

    signature = b"TCGTCGTCGTCG"
    empty_leaves = 1


class VirtualBox(_Announced):
    """VirtualBox with its minimal interface: the frequencies (VirtualBox GIMMinimal)."""

    signature = b"VBoxVBoxVBox"
    frequencies = True
