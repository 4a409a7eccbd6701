"""Flushes of other processors' translations.

Source: TLFS chapter "Virtual MMU". Any of these calls may flush more than it is asked for. What the guest's own
processor does on every change of CR3 is cheap here, so each flushes all translations of the processors that it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paravirt.interfaces.hyperv.definitions import (
    HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST,
    HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX,
    HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE,
    HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX,
    Recommendation,
    Status,
)
from paravirt.interfaces.hyperv.hypercalls import Refusal, Request, hv_call
from paravirt.interfaces.hyperv.section import Section
from paravirt.interfaces.hyperv.virtual_processors import in_mask, in_vp_set

if TYPE_CHECKING:
    from paravirt.vcpu import Vcpu

__all__ = ["VirtualMmu"]

FLUSH_ALL_PROCESSORS = 1 << 0
KNOWN_FLAGS = 0b1111
"""All processors, all address spaces, non-global translations only, extended range format."""


class VirtualMmu(Section):
    """FlushVirtualAddressSpace and FlushVirtualAddressList, with masks and with sparse sets."""

    @hv_call(HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE, header=24, requires=Recommendation.REMOTE_TLB_FLUSH)
    def flush_space(self, request: Request) -> None:
        """Flush an address space on the processors of a mask."""
        _flush(self._in_mask(request))

    @hv_call(HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST, header=24, element=8, requires=Recommendation.REMOTE_TLB_FLUSH)
    def flush_list(self, request: Request) -> None:
        """Flush ranges of pages on the processors of a mask."""
        _flush(self._in_mask(request))
        request.all_done()

    @hv_call(
        HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX,
        header=32,
        variable_header=True,
        requires=Recommendation.REMOTE_TLB_FLUSH,
    )
    def flush_space_ex(self, request: Request) -> None:
        """Flush an address space on the processors of a sparse set."""
        _flush(self._in_set(request))

    @hv_call(
        HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX,
        header=32,
        element=8,
        variable_header=True,
        requires=Recommendation.REMOTE_TLB_FLUSH,
    )
    def flush_list_ex(self, request: Request) -> None:
        """Flush ranges of pages on the processors of a sparse set."""
        _flush(self._in_set(request))
        request.all_done()

    def _in_mask(self, request: Request) -> Iterable[Vcpu]:
        vcpus, mask = self.machine.vcpus, request.u64(16)
        # No processor at all means all of them: an old Windows counts on it.
        return vcpus if _for_all(request) or not mask else in_mask(vcpus, mask)

    def _in_set(self, request: Request) -> Iterable[Vcpu]:
        chosen = in_vp_set(self.machine.vcpus, request.u64(16), request.u64(24), request.words)
        return self.machine.vcpus if _for_all(request) else chosen


def _for_all(request: Request) -> bool:
    flags = request.u64(8)
    if flags & ~KNOWN_FLAGS:
        raise Refusal(Status.INVALID_PARAMETER)
    return bool(flags & FLUSH_ALL_PROCESSORS)


def _flush(vcpus: Iterable[Vcpu]) -> None:
    for vcpu in vcpus:
        vcpu.flush_tlb()
