"""Boot protocols: reading a kernel's file, placing it and what it expects in guest memory, and its entry state.

One file per protocol; `layout` has the guest's memory map, `firmware`, `acpi` and `mptable` what a BIOS would have left
behind.
"""

from __future__ import annotations

from paravirt.boot.flat import FlatKernel
from paravirt.boot.image import Entry, Kernel, KernelFile
from paravirt.boot.multiboot import MultibootKernel, find_header
from paravirt.errors import ConfigurationError, ImageError

__all__ = ["PROTOCOLS", "Entry", "Kernel", "KernelFile", "open_kernel"]

PROTOCOLS = ("multiboot", "flat")


def open_kernel(
    file: KernelFile,
    *,
    command_line: str,
    initrd: KernelFile | None,
    protocol: str | None = None,
    address: int | None = None,
) -> Kernel:
    """Return a kernel ready to be loaded.

    protocol: None finds it out. address: where a flat binary goes. Raises ImageError if the file is no kernel of that
    kind, ConfigurationError for an unknown protocol.
    """
    if protocol not in (None, *PROTOCOLS):
        raise ConfigurationError(
            f"unknown boot protocol {protocol!r}; known: {', '.join(PROTOCOLS)}", option="protocol", value=protocol
        )
    if not file.data:
        raise ImageError(file.name, "the file is empty")
    if protocol == "flat":
        if initrd is not None:
            raise ConfigurationError("a flat binary takes no initrd", option="initrd")
        return FlatKernel(file, FlatKernel.DEFAULT_ADDRESS if address is None else address)
    if protocol == "multiboot" or find_header(file.data) is not None:
        return MultibootKernel(file, command_line, initrd)
    if file.data[:4] == b"\x7fELF":
        raise ImageError(file.name, MultibootKernel.describe_elf_without_header(file))
    raise ImageError(file.name, "neither a multiboot image nor an ELF file")
