"""Where a machine is, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt.machine import Machine
    from paravirt.vcpu import Vcpu

__all__ = ["describe_address", "describe_blocks", "describe_places", "describe_status"]


def describe_address(machine: Machine, address: int) -> str:
    """Return a linear address, with the kernel's symbol there if it has one."""
    symbol = machine.symbols.find(address)
    return f"{address:#x}" + (f" <{symbol}>" if symbol else "")


def describe_places(machine: Machine) -> str:
    """Say where each vCPU is, a line for each."""
    return "".join(f"  cpu{vcpu.index} {_describe_place(machine, vcpu)}\n" for vcpu in machine.vcpus)


def _describe_place(machine: Machine, vcpu: Vcpu) -> str:
    if vcpu.activity == "not started":
        return vcpu.activity
    # The kernel's symbols say nothing about a program's addresses.
    place = describe_address(machine, vcpu.linear_rip) if vcpu.cpl == 0 else f"{vcpu.linear_rip:#x}"
    return f"{vcpu.activity} at {place}, cpl {vcpu.cpl}"


def describe_status(machine: Machine) -> str:
    """Say how far the guest is, and where each vCPU is."""
    instructions = machine.stats["instructions"]
    return f"{machine.now_ns / 1e9:.6f} s of guest time, {instructions:,} instructions\n" + describe_places(machine)


def describe_blocks(machine: Machine) -> str:
    """Show the last basic blocks of each vCPU, the latest at the end."""
    lines = []
    for vcpu in machine.vcpus:
        lines.append(f"cpu{vcpu.index}:")
        for address, length, instructions in vcpu.recent_blocks():
            lines.append(f"  {describe_address(machine, address)}: {instructions} instructions, {length} bytes")
    return "\n".join(lines) + "\n"
