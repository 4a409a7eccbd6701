"""The Xen interface: one file for each section of Xen's public headers, put together in `interface`."""

from paravirt.interfaces.xen.interface import Xen

__all__ = ["Xen"]
