"""Hosts: what the silicon beneath the guest does.

A host is not the guest's CPU. What the guest was told by CPUID stays; the host may change in a migration.
"""

from __future__ import annotations

from dataclasses import dataclass

from paravirt.errors import ConfigurationError

__all__ = ["AMD", "HOSTS", "INTEL", "LGUEST", "Host", "find_host"]

VMCALL = b"\x0f\x01\xc1"
VMMCALL = b"\x0f\x01\xd9"
INT_1F = b"\xcd\x1f\x90"
"""`int $0x1f; nop`: the call of a host without virtualization, padded to the length of the others."""


@dataclass(frozen=True, slots=True)
class Host:
    """One kind of host.

    hypercall: the bytes of its own hypercall instruction. vendor: the CPUID vendor string of its silicon, which is
    also what a guest CPU gets by default. fault_vectors: exceptions that a foreign hypercall instruction may raise
    (SDM vol. 3 "VMCALL", APM vol. 3 "VMMCALL"; a host without virtualization gives #GP to VMCALL above ring 0).
    """

    name: str
    vendor: str
    hypercall: bytes
    fault_vectors: tuple[int, ...]

    def __str__(self) -> str:
        return self.name


UD_VECTOR = 6
GP_VECTOR = 13

INTEL = Host("intel", "GenuineIntel", VMCALL, (UD_VECTOR,))
AMD = Host("amd", "AuthenticAMD", VMMCALL, (UD_VECTOR,))
LGUEST = Host("lguest", "GenuineIntel", INT_1F, (UD_VECTOR, GP_VECTOR))

HOSTS = {host.name: host for host in (INTEL, AMD, LGUEST)}


def find_host(host: str | Host) -> Host:
    """Return the host of that name. Raises ConfigurationError if there is none."""
    if isinstance(host, Host):
        return host
    try:
        return HOSTS[host]
    except KeyError:
        raise ConfigurationError(
            f"unknown host {host!r}; known: {', '.join(HOSTS)}", option="host", value=host
        ) from None
