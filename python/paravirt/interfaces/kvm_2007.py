"""The KVM interface as it was first proposed in 2007: discovery by CPUID instead of a magic MSR, and inline hypercalls.

Its text names leaf 0x40000002 for the hypercalls that exist, and leaf 0x40000003 to be filled in by whoever runs the
guest; 0x40000000 and 0x40000001 were left because Xen had them. What leaf 2 held is not certain, so it serves both
readings: the signature, and a bit for each hypercall. There was none yet: every call returned -KVM_ENOSYS and never
reached user space, whatever the caller's privilege. The clock is the one that came a few releases later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paravirt.errors import ConfigurationError
from paravirt.interfaces.base import CpuidLeaf, HypercallEntry, parse_options, signature_words
from paravirt.interfaces.kvm import KVM, Feature

__all__ = ["KVM2007"]

LEAF_FEATURES, LEAF_HYPERCALLS, LEAF_USER = 1, 2, 3
FEATURES = Feature.CLOCKSOURCE | Feature.NOP_IO_DELAY


class KVM2007(KVM):
    """KVM's interface of 2007.

    features: what is announced, of CLOCKSOURCE and NOP_IO_DELAY. user_leaf: EAX, EBX, ECX, EDX of leaf base+3; the
    features in EAX by default.
    """

    name = "kvm-2007"
    denied_call = KVM.unknown_call

    def __init__(self, *, features: Feature | int | str = FEATURES, user_leaf: CpuidLeaf | None = None) -> None:
        super().__init__(features=features)
        if self.features & ~FEATURES:
            raise ConfigurationError("KVM of 2007 had clocksource and nop-io-delay only", option="features")
        self._user_leaf = (int(self.features), 0, 0, 0) if user_leaf is None else user_leaf

    @classmethod
    def from_options(cls, options: str) -> KVM2007:
        """Make one from the command line's options: `features=A+B`, `leaf3=EAX+EBX+ECX+EDX`."""
        values = parse_options(cls.name, options, known=("features", "leaf3"))
        leaf = values.get("leaf3")
        return cls(features=values.get("features", FEATURES), user_leaf=None if leaf is None else _parse_leaf(leaf))

    def cpuid_leaves(self) -> Mapping[int, CpuidLeaf]:
        """Features, the hypercalls that exist with the signature beside them, and the user's leaf."""
        ebx, ecx, edx = signature_words(self.signature)
        calls = sum(1 << entry.number for entry in self.hypercalls())
        return {
            LEAF_FEATURES: (int(self.features), 0, 0, 0),
            LEAF_HYPERCALLS: (calls, ebx, ecx, edx),
            LEAF_USER: self._user_leaf,
        }

    def hypercalls(self) -> Iterator[HypercallEntry]:
        """There are none."""
        return iter(())


def _parse_leaf(text: str) -> CpuidLeaf:
    try:
        eax, ebx, ecx, edx = (int(word, 0) for word in text.split("+"))
    except ValueError:
        raise ConfigurationError(f"leaf3 {text!r} is not EAX+EBX+ECX+EDX", option="leaf3", value=text) from None
    if any(not 0 <= word < 1 << 32 for word in (eax, ebx, ecx, edx)):
        raise ConfigurationError(f"leaf3 {text!r} has a register above 32 bits", option="leaf3", value=text)
    return eax, ebx, ecx, edx
