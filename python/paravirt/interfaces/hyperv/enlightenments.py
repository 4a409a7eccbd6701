"""Enlightenments: what a user turns on or off, by QEMU's names, and what each announces in CPUID.

What is not announced does not exist: its MSRs give #GP(0), its hypercalls HV_STATUS_ACCESS_DENIED.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from functools import reduce
from operator import or_

from paravirt.errors import ConfigurationError
from paravirt.interfaces.hyperv.definitions import Feature, Privilege, Recommendation

__all__ = [
    "DEFAULT_ENLIGHTENMENTS",
    "Announcement",
    "Enlightenment",
    "announce",
    "parse_enlightenments",
    "without_orphans",
]


class Enlightenment(Flag):
    """One feature of the interface, as users choose them. GUEST_OS_ID, HYPERCALL and the page are always there."""

    RELAXED = auto()
    """No watchdogs."""
    VAPIC = auto()
    """MSRs for EOI, ICR and TPR, and the VP assist page."""
    SPINLOCKS = auto()
    """NotifyLongSpinWait."""
    VPINDEX = auto()
    RUNTIME = auto()
    TIME = auto()
    """The reference counter and the reference TSC page."""
    FREQUENCIES = auto()
    SYNIC = auto()
    """The synthetic interrupt controller, PostMessage and SignalEvent."""
    STIMER = auto()
    STIMER_DIRECT = auto()
    """Timers that interrupt by a vector of their own, without a message."""
    TLBFLUSH = auto()
    TLBFLUSH_EXT = auto()
    """List flushes take large ranges."""
    IPI = auto()
    IDLE = auto()
    """The MSR that sleeps until an interrupt arrives."""
    RESET = auto()
    CRASH = auto()
    REENLIGHTENMENT = auto()
    XMM_INPUT = auto()
    XMM_OUTPUT = auto()
    EXT_HYPERCALLS = auto()
    HYPERCALL_LOCK = auto()
    AVIC = auto()
    """Asks guests not to use AutoEOI."""
    TSC_INVARIANT = auto()
    """The MSR by which a guest makes CPUID say that the TSC is invariant; Linux then prefers the TSC itself."""
    VP_REGISTERS = auto()
    """GetVpRegisters and SetVpRegisters."""


NO_PRIVILEGE, NO_FEATURE, NO_RECOMMENDATION = Privilege(0), Feature(0), Recommendation(0)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What CPUID says of one enlightenment, or of several."""

    privileges: Privilege = NO_PRIVILEGE
    features: Feature = NO_FEATURE
    recommendations: Recommendation = NO_RECOMMENDATION

    def __or__(self, other: Announcement) -> Announcement:
        return Announcement(
            self.privileges | other.privileges,
            self.features | other.features,
            self.recommendations | other.recommendations,
        )


_NOTHING = Announcement()
_BASE = Announcement(Privilege.ACCESS_HYPERCALL_MSRS)

_ANNOUNCED = {
    Enlightenment.RELAXED: Announcement(recommendations=Recommendation.RELAXED_TIMING),
    Enlightenment.VAPIC: Announcement(Privilege.ACCESS_INTR_CTRL, recommendations=Recommendation.APIC_MSRS),
    Enlightenment.SPINLOCKS: _NOTHING,  # A number in leaf 4 EBX.
    Enlightenment.VPINDEX: Announcement(Privilege.ACCESS_VP_INDEX),
    Enlightenment.RUNTIME: Announcement(Privilege.ACCESS_VP_RUN_TIME),
    Enlightenment.TIME: Announcement(
        Privilege.ACCESS_PARTITION_REFERENCE_COUNTER | Privilege.ACCESS_PARTITION_REFERENCE_TSC
    ),
    Enlightenment.FREQUENCIES: Announcement(Privilege.ACCESS_FREQUENCIES, Feature.FREQUENCIES),
    Enlightenment.SYNIC: Announcement(Privilege.ACCESS_SYNIC | Privilege.POST_MESSAGES | Privilege.SIGNAL_EVENTS),
    Enlightenment.STIMER: Announcement(Privilege.ACCESS_SYNTHETIC_TIMERS),
    Enlightenment.STIMER_DIRECT: Announcement(features=Feature.DIRECT_TIMERS),
    Enlightenment.TLBFLUSH: Announcement(
        recommendations=Recommendation.REMOTE_TLB_FLUSH | Recommendation.EX_PROCESSOR_MASKS
    ),
    Enlightenment.TLBFLUSH_EXT: Announcement(features=Feature.EXTENDED_GVA_RANGES),
    Enlightenment.IPI: Announcement(recommendations=Recommendation.CLUSTER_IPI | Recommendation.EX_PROCESSOR_MASKS),
    Enlightenment.IDLE: Announcement(Privilege.ACCESS_GUEST_IDLE, Feature.GUEST_IDLE),
    Enlightenment.RESET: Announcement(Privilege.ACCESS_RESET),
    Enlightenment.CRASH: Announcement(features=Feature.CRASH),
    Enlightenment.REENLIGHTENMENT: Announcement(Privilege.ACCESS_REENLIGHTENMENT),
    Enlightenment.XMM_INPUT: Announcement(features=Feature.XMM_INPUT),
    Enlightenment.XMM_OUTPUT: Announcement(features=Feature.XMM_OUTPUT),
    Enlightenment.EXT_HYPERCALLS: Announcement(Privilege.ENABLE_EXTENDED_HYPERCALLS),
    Enlightenment.HYPERCALL_LOCK: Announcement(features=Feature.HYPERCALL_LOCK),
    Enlightenment.AVIC: Announcement(recommendations=Recommendation.DEPRECATE_AUTO_EOI),
    Enlightenment.TSC_INVARIANT: Announcement(Privilege.ACCESS_TSC_INVARIANT),
    Enlightenment.VP_REGISTERS: Announcement(Privilege.ACCESS_VP_REGISTERS),
}

_NEEDS = {
    Enlightenment.STIMER: Enlightenment.TIME,
    Enlightenment.STIMER_DIRECT: Enlightenment.STIMER,
    Enlightenment.TLBFLUSH_EXT: Enlightenment.TLBFLUSH,
    Enlightenment.SYNIC: Enlightenment.VPINDEX,
    Enlightenment.TLBFLUSH: Enlightenment.VPINDEX,
    Enlightenment.IPI: Enlightenment.VPINDEX,
}
"""What means nothing without another: leaving that out leaves this out."""

DEFAULT_ENLIGHTENMENTS = reduce(or_, Enlightenment) & ~(
    Enlightenment.AVIC | Enlightenment.TSC_INVARIANT | Enlightenment.VP_REGISTERS
)


_BY_NAME = {
    "default": DEFAULT_ENLIGHTENMENTS,
    **{str(each.name).lower().replace("_", "-"): each for each in Enlightenment},
}


def announce(chosen: Enlightenment) -> Announcement:
    """Return what CPUID says when these are chosen."""
    return reduce(or_, (_ANNOUNCED[enlightenment] for enlightenment in chosen), _BASE)


def parse_enlightenments(value: Enlightenment | str) -> Enlightenment:
    """Return enlightenments from themselves or from names, `"default+tsc-invariant"`. Raises ConfigurationError."""
    if isinstance(value, Enlightenment):
        return value
    names = [name.strip() for name in value.split("+")]
    return reduce(or_, (_find(name) for name in names if name), Enlightenment(0))


def _find(name: str) -> Enlightenment:
    if name not in _BY_NAME:
        raise ConfigurationError(f"unknown hyperv feature {name!r}; known: {', '.join(_BY_NAME)}", option="features")
    return _BY_NAME[name]


def without_orphans(chosen: Enlightenment) -> Enlightenment:
    """Leave out what needs something that is not there."""
    while True:
        orphans = [each for each, need in _NEEDS.items() if each in chosen and need not in chosen]
        if not orphans:
            return chosen
        chosen &= ~reduce(or_, orphans)
