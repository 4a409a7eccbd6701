"""The Hyper-V interface, put together of its sections, and what CPUID says of it.

Source: TLFS chapter "Feature and interface discovery".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paravirt.cpuid import HYPERVISOR_BASE
from paravirt.interfaces.base import CpuidLeaf, Interface, parse_options
from paravirt.interfaces.hyperv.apic import LocalApic
from paravirt.interfaces.hyperv.connections import Connections
from paravirt.interfaces.hyperv.definitions import (
    INTERFACE_ID,
    LEAF_FEATURES,
    LEAF_INTERFACE,
    LEAF_LIMITS,
    LEAF_RECOMMENDATIONS,
    LEAF_VERSION,
    Feature,
    Privilege,
    Recommendation,
)
from paravirt.interfaces.hyperv.enlightenments import (
    DEFAULT_ENLIGHTENMENTS,
    Enlightenment,
    announce,
    parse_enlightenments,
    without_orphans,
)
from paravirt.interfaces.hyperv.hypercall_page import HypercallPage
from paravirt.interfaces.hyperv.hypercalls import Hypercalls
from paravirt.interfaces.hyperv.partition import Partition
from paravirt.interfaces.hyperv.reference_time import ReferenceTime
from paravirt.interfaces.hyperv.stimers import SyntheticTimers
from paravirt.interfaces.hyperv.synic import SyntheticController
from paravirt.interfaces.hyperv.testdev import TestDevice
from paravirt.interfaces.hyperv.tlb import VirtualMmu
from paravirt.interfaces.hyperv.virtual_processors import VirtualProcessors
from paravirt.interfaces.hyperv.vp_registers import VpRegisters

if TYPE_CHECKING:
    from paravirt.hypercalls.dispatch import Call
    from paravirt.vcpu import Vcpu

__all__ = ["HyperV"]

VERSION_BUILD = 14393
VERSION_MAJOR_MINOR = 10 << 16
"""10.0.14393, Windows Server 2016: the first whose guests know all that is here. KVM says the same."""
SPINS_BEFORE_NOTIFYING = 0xFFF
NEVER_NOTIFY = 0xFFFF_FFFF
MAX_VPS = 255


class HyperV(Interface):
    """Hyper-V's interface, as Windows and Linux guests know it.

    features: what is announced, as flags or as text, `"default+avic"`; all by default but `avic`, `tsc-invariant`
    and `vp-registers`.
    without: features left out of that, and with them what needs them. testdev: whether the device of kvm-unit-tests is
    there that makes connections.

    Raises ConfigurationError for features that do not exist.
    """

    name = "hyperv"
    signature = b"Microsoft Hv"
    fixed_base = HYPERVISOR_BASE
    """Guests look nowhere else."""

    def __init__(
        self,
        *,
        features: Enlightenment | str | None = None,
        without: Enlightenment | str = "",
        testdev: bool = False,
    ) -> None:
        chosen = DEFAULT_ENLIGHTENMENTS if features is None else parse_enlightenments(features)
        self.enlightenments = without_orphans(chosen & ~parse_enlightenments(without))
        self.announced = announce(self.enlightenments)
        self.page = HypercallPage(self)
        self.processors = VirtualProcessors(self)
        self.time = ReferenceTime(self)
        self.synic = SyntheticController(self)
        self.connections = Connections(self)
        self._sections = (
            self.page,
            self.processors,
            self.time,
            LocalApic(self),
            VirtualMmu(self),
            SyntheticTimers(self),
            self.synic,
            self.connections,
            Partition(self),
            VpRegisters(self),
        )
        self._hypercalls = Hypercalls(self)
        self._with_testdev = testdev
        self._testdev: TestDevice | None = None

    @classmethod
    def from_options(cls, options: str) -> HyperV:
        """Make one from the command line's options: `features=A+B`, `without=A+B`, `testdev`."""
        values = parse_options(cls.name, options, known=("features", "without", "testdev"))
        return cls(features=values.get("features"), without=values.get("without", ""), testdev="testdev" in values)

    # -- what it consists of

    def parts(self) -> Sequence[object]:
        """Its sections."""
        return self._sections

    def offers(self, feature: object) -> bool:
        """Whether CPUID announces a privilege, a feature or a recommendation."""
        match feature:
            case Privilege():
                return feature in self.announced.privileges
            case Feature():
                return feature in self.announced.features
            case Recommendation():
                return feature in self.announced.recommendations
        return False

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """Who it is, what a guest may use, and what it had better use."""
        privileges = int(self.announced.privileges)
        spins = SPINS_BEFORE_NOTIFYING if Enlightenment.SPINLOCKS in self.enlightenments else NEVER_NOTIFY
        return {
            LEAF_INTERFACE: (INTERFACE_ID, 0, 0, 0),
            LEAF_VERSION: (VERSION_BUILD, VERSION_MAJOR_MINOR, 0, 0),
            LEAF_FEATURES: (privileges & 0xFFFF_FFFF, privileges >> 32, 0, int(self.announced.features)),
            LEAF_RECOMMENDATIONS: (int(self.announced.recommendations), spins, 0, 0),
            LEAF_LIMITS: (MAX_VPS, MAX_VPS, 0, 0),
        }

    # -- its life

    def attached(self) -> None:
        """Plug in the test device, if it is wanted."""
        self.time.attached()
        if self._with_testdev:
            self._testdev = TestDevice(self)

    def reset(self) -> None:
        """Forget all that the guest has set up."""
        for section in self._sections:
            section.reset()
        if self._testdev is not None:
            self._testdev.reset()

    def host_changed(self) -> None:
        """Put the new host's instruction into the hypercall page."""
        self.page.host_changed()

    # -- hypercalls

    def claims_call(self, vcpu: Vcpu, call: Call) -> bool:
        """Whether a call comes from the hypercall page, or carries bit 31 of EAX as a mark."""
        return self.page.claims(call)

    def answers_unclaimed(self, vcpu: Vcpu) -> bool:
        """Whether the guest has said who it is, and has no page from which its calls would come."""
        return self.page.is_open and self.page.gpa is None

    def answer_call(self, vcpu: Vcpu, call: Call) -> int | None:
        """Carry out a call."""
        return self._hypercalls.answer(vcpu, call)
