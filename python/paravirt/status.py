"""Where a machine is, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt.machine import Machine

__all__ = ["describe_blocks", "describe_place", "describe_vcpus"]


def describe_place(machine: Machine, address: int) -> str:
    """Return a linear address, with the kernel's symbol there if it has one."""
    symbol = machine.symbols.find(address)
    return f"{address:#x}" + (f" <{symbol}>" if symbol else "")


def describe_vcpus(machine: Machine) -> str:
    """Say where each vCPU is, a line for each."""
    lines = [f"{machine.now_ns / 1e9:.6f} s of guest time, {machine.stats['instructions']:,} instructions"]
    for vcpu in machine.vcpus:
        does = "halted" if vcpu.is_halted else f"at CPL {vcpu.cpl}"
        lines.append(f"cpu{vcpu.index}: {describe_place(machine, vcpu.linear_rip)}, {does}")
    return "\n".join(lines) + "\n"


def describe_blocks(machine: Machine) -> str:
    """Show the last basic blocks of each vCPU, the latest at the end."""
    lines = []
    for vcpu in machine.vcpus:
        lines.append(f"cpu{vcpu.index}:")
        for address, length, instructions in vcpu.recent_blocks():
            lines.append(f"  {describe_place(machine, address)}: {instructions} instructions, {length} bytes")
    return "\n".join(lines) + "\n"
