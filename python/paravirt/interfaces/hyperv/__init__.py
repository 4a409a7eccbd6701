"""Microsoft Hyper-V's interface, as the Hypervisor Top Level Functional Specification (TLFS) has it.

`interface` puts it together, `enlightenments` says what can be turned off, `definitions` has the numbers, `hypercalls`
the calling convention. Every other file is a section of the specification: its MSRs, its hypercalls, their state.
"""

from __future__ import annotations

from paravirt.interfaces.hyperv.enlightenments import Enlightenment
from paravirt.interfaces.hyperv.interface import HyperV

__all__ = ["Enlightenment", "HyperV"]
