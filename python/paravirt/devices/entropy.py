"""A source of random bytes: a virtio entropy device."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from paravirt.devices.base import Device, Plugged

if TYPE_CHECKING:
    from paravirt._native import Vm

__all__ = ["Entropy"]


class Entropy(Device):
    """A virtio entropy device (Linux: `/dev/hwrng`).

    real: whether its bytes come from the host's own source, so that runs differ. By default they depend on the
    machine's seed alone: equal runs, and nothing that could keep a secret.
    """

    def __init__(self, *, real: bool = False) -> None:
        self.real = real

    def plug(self, vm: Vm, seed: int) -> Plugged:
        """Add it to a machine."""
        key = os.urandom(32) if self.real else hashlib.sha256(b"entropy %d" % seed).digest()
        return Plugged(self, vm.add_entropy(key))

    def __repr__(self) -> str:
        return "Entropy(real=True)" if self.real else "Entropy()"
