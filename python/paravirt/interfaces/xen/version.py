"""xen_version: what hypervisor this is (public/version.h, public/features.h)."""

from __future__ import annotations

from paravirt import __version__
from paravirt.interfaces.xen.abi import MASK32, PAGE_SIZE, VERSION, Errno, Struct, XenError
from paravirt.interfaces.xen.caller import Caller
from paravirt.interfaces.xen.section import Section, command

__all__ = ["FEATURES", "Version"]

WRITABLE_PAGE_TABLES = 0
AUTO_TRANSLATED_PHYSMAP = 2
HVM_CALLBACK_VECTOR = 8
HVM_SAFE_PVCLOCK = 9
RUNSTATE_PHYS_AREA = 18
VCPU_TIME_PHYS_AREA = 19

FEATURES = sum(
    1 << bit
    for bit in (
        WRITABLE_PAGE_TABLES,
        AUTO_TRANSLATED_PHYSMAP,
        HVM_CALLBACK_VECTOR,
        HVM_SAFE_PVCLOCK,
        RUNSTATE_PHYS_AREA,
        VCPU_TIME_PHYS_AREA,
    )
)

EXTRA_VERSION_BYTES = 16
COMPILER_BYTES, COMPILE_BY_BYTES, COMPILE_DOMAIN_BYTES, COMPILE_DATE_BYTES = 64, 16, 32, 32
CAPABILITIES_BYTES = 1024
CHANGESET_BYTES = 64
CAPABILITIES = b"hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 "
DENIED = b"<denied>\0"

FEATURE_INFO = Struct(submap_idx="u32", submap="u32")


class Version(Section):
    """Hypercall 17."""

    @command(0)
    def version(self, caller: Caller, pointer: int) -> int:
        """Return major << 16 | minor."""
        return VERSION

    @command(1)
    def extraversion(self, caller: Caller, pointer: int) -> int:
        """Tell what stands behind major and minor."""
        caller.write(pointer, b".0-paravirt".ljust(EXTRA_VERSION_BYTES, b"\0"))
        return 0

    @command(2)
    def compile_info(self, caller: Caller, pointer: int) -> int:
        """Tell who made it: the package, and no date, so that every run is the same."""
        texts = (
            (f"paravirt {__version__}".encode(), COMPILER_BYTES),
            (b"paravirt", COMPILE_BY_BYTES),
            (b"", COMPILE_DOMAIN_BYTES),
            (b"", COMPILE_DATE_BYTES),
        )
        caller.write(pointer, b"".join(text[: size - 1].ljust(size, b"\0") for text, size in texts))
        return 0

    @command(3)
    def capabilities(self, caller: Caller, pointer: int) -> int:
        """Tell which guests can run."""
        caller.write(pointer, CAPABILITIES.ljust(CAPABILITIES_BYTES, b"\0"))
        return 0

    @command(4)
    def changeset(self, caller: Caller, pointer: int) -> int:
        """There is none to tell."""
        caller.write(pointer, b"unavailable".ljust(CHANGESET_BYTES, b"\0"))
        return 0

    @command(5)
    def platform_parameters(self, caller: Caller, pointer: int) -> int:
        """Tell where the hypervisor is in the guest's address space: nowhere."""
        caller.write_long(pointer, 0, 0)
        return 0

    @command(6)
    def get_features(self, caller: Caller, pointer: int) -> int:
        """Tell 32 feature bits."""
        info = caller.load(FEATURE_INFO, pointer)
        if info["submap_idx"]:
            raise XenError(Errno.EINVAL)
        info["submap"] = FEATURES & MASK32
        return 0

    @command(7)
    def pagesize(self, caller: Caller, pointer: int) -> int:
        """Return it."""
        if pointer:
            raise XenError(Errno.EINVAL)
        return PAGE_SIZE

    @command(8)
    def guest_handle(self, caller: Caller, pointer: int) -> int:
        """Tell the domain's UUID."""
        caller.write(pointer, self.domain.uuid.bytes)
        return 0

    @command(9)
    def commandline(self, caller: Caller, pointer: int) -> int:
        """Tell the hypervisor's command line: not to a guest."""
        caller.write(pointer, DENIED)
        return 0

    @command(10)
    def build_id(self, caller: Caller, pointer: int) -> int:
        """Tell the hypervisor's build: not to a guest."""
        raise XenError(Errno.EPERM)
