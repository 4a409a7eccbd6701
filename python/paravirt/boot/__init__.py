"""Boot protocols: reading a kernel's file, placing it and what it expects in guest memory, and its entry state.

One file per protocol; `layout` has the guest's memory map, `firmware`, `acpi` and `mptable` what a BIOS would have left
behind.
"""

from __future__ import annotations

from paravirt.boot import elf
from paravirt.boot.bzimage import is_bzimage
from paravirt.boot.flat import FlatKernel
from paravirt.boot.image import Entry, Kernel, KernelFile
from paravirt.boot.linux import LinuxKernel, PvhKernel, is_linux, open_bzimage
from paravirt.boot.multiboot import MultibootKernel, find_header
from paravirt.boot.pvh import find_pvh_entry
from paravirt.boot.rom import FirmwareImage
from paravirt.errors import ConfigurationError, ImageError

__all__ = ["PROTOCOLS", "Entry", "Kernel", "KernelFile", "open_kernel"]

PROTOCOLS = ("multiboot", "pvh", "linux", "flat", "firmware")


def open_kernel(
    file: KernelFile,
    *,
    command_line: str,
    initrd: KernelFile | None,
    protocol: str | None = None,
    address: int | None = None,
) -> Kernel:
    """Return a kernel ready to be loaded.

    command_line: without the file's name. protocol: None finds it out. address: where a flat binary goes. Raises
    ImageError if the file is no kernel of that kind, ConfigurationError for an unknown protocol.
    """
    if protocol not in (None, *PROTOCOLS):
        raise ConfigurationError(
            f"unknown boot protocol {protocol!r}; known: {', '.join(PROTOCOLS)}", option="protocol", value=protocol
        )
    if not file.data:
        raise ImageError(file.name, "the file is empty")
    match protocol or _find_protocol(file):
        case "flat":
            if initrd is not None or command_line:
                raise ConfigurationError("a flat binary takes neither a command line nor an initrd", option="protocol")
            return FlatKernel(file, FlatKernel.DEFAULT_ADDRESS if address is None else address)
        case "firmware":
            if initrd is not None or command_line:
                raise ConfigurationError("firmware takes neither a command line nor an initrd", option="protocol")
            return FirmwareImage(file)
        case "multiboot":
            return MultibootKernel(file, command_line, initrd)
        case "bzimage":
            return open_bzimage(file, command_line, initrd)
        case "pvh":
            return PvhKernel(file, command_line, initrd)
        case _:
            return LinuxKernel(file, command_line, initrd)


def _find_protocol(file: KernelFile) -> str:
    """Return the protocol for a file that nobody has named one for; "bzimage" leaves it to the kernel inside. Raises
    ImageError for no kernel at all."""
    if is_bzimage(file.data):
        return "bzimage"
    if find_header(file.data) is not None:
        return "multiboot"
    if file.data[:4] != elf.MAGIC:
        raise ImageError(file.name, "no kernel: neither a Linux bzImage, a multiboot image nor an ELF file")
    image = elf.read_elf(file)
    if find_pvh_entry(image) is not None:
        return "pvh"
    if is_linux(image):
        return "linux"
    raise ImageError(file.name, "an ELF file with neither a multiboot header in its first 8192 bytes nor a PVH note")
