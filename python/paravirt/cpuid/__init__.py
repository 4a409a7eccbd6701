"""The guest CPU: its features, its model, the leaves that CPUID shows, and the hypervisors' name space among them.

`features` has the bits and what the software CPU implements of them, `models` the CPUs by name, `options` the text of
`--cpu`, `leaves` the whole table that a machine's CPUs show, `namespace` what interfaces add to it.
"""

from __future__ import annotations

from paravirt.cpuid.features import FEATURES, IMPLEMENTED, Feature
from paravirt.cpuid.leaves import LAPIC_TIMER_HZ, Row, build_cpuid
from paravirt.cpuid.models import ALIASES, CPU_MODELS, CpuModel, find_model
from paravirt.cpuid.namespace import HYPERVISOR_BASE, collect_subleaves, place_interfaces
from paravirt.cpuid.options import parse_cpu

__all__ = [
    "ALIASES",
    "CPU_MODELS",
    "FEATURES",
    "HYPERVISOR_BASE",
    "IMPLEMENTED",
    "LAPIC_TIMER_HZ",
    "CpuModel",
    "Feature",
    "Row",
    "build_cpuid",
    "collect_subleaves",
    "find_model",
    "parse_cpu",
    "place_interfaces",
]
