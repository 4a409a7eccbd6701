"""The clock that Xen invented and KVM took over: a structure by which a guest makes nanoseconds of its TSC.

Sources: Xen's public/xen.h (vcpu_time_info); Linux arch/x86/include/asm/pvclock-abi.h.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

__all__ = ["TSC_STABLE", "VcpuTimeInfo", "time_scale"]

TSC_STABLE = 1 << 0
"""Flag: the clocks of all vCPUs agree."""

NS_PER_S = 10**9


class VcpuTimeInfo(ctypes.LittleEndianStructure):
    """KVM's `struct pvclock_vcpu_time_info`, Xen's `struct vcpu_time_info`: how to make nanoseconds of a TSC value."""

    _pack_ = 1
    _fields_: ClassVar = [
        ("version", ctypes.c_uint32),
        ("pad0", ctypes.c_uint32),
        ("tsc_timestamp", ctypes.c_uint64),
        ("system_time", ctypes.c_uint64),
        ("tsc_to_system_mul", ctypes.c_uint32),
        ("tsc_shift", ctypes.c_int8),
        ("flags", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 2),
    ]


def time_scale(tsc_khz: int) -> tuple[int, int]:
    """Return (tsc_to_system_mul, tsc_shift) for a TSC frequency.

    ns = ((ticks << shift) * mul) >> 32, to the right for a negative shift; as KVM computes them.
    """
    ticks_per_s, shift = tsc_khz * 1000, 0
    while ticks_per_s > 2 * NS_PER_S or ticks_per_s >= 1 << 32:
        ticks_per_s >>= 1
        shift -= 1
    while ticks_per_s <= NS_PER_S:
        ticks_per_s <<= 1
        shift += 1
    return (NS_PER_S << 32) // ticks_per_s, shift
