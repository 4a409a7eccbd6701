"""The text of `--cpu`: a model, and what is to be different from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from paravirt.cpuid.features import ALIASES, FEATURES, HIDDEN_BY_HYPERVISORS, IMPLEMENTED, needed_by, needs
from paravirt.cpuid.models import CPU_MODELS, CpuModel, find_model, is_amd
from paravirt.errors import ConfigurationError, UnknownFeatureError

if TYPE_CHECKING:
    from paravirt.host import Host

__all__ = ["parse_cpu"]

_STANDS_FOR = {False: "Skylake-Server", True: "EPYC-Rome"}
"""The model whose signature, caches and leaves a CPU without its own has, by whether it is AMD's."""
_GENERIC_BRAND = "paravirt virtual CPU"

_NUMBERS = frozenset(("phys-bits", "family", "model", "stepping"))
_TEXTS = frozenset(("vendor", "model-id"))
_IGNORED = frozenset(("host-phys-bits", "migratable"))
"""QEMU's; the software CPU has no width of its own to pass on, and nothing that could not move."""


def parse_cpu(text: str, host: Host, *, under_hypervisor: bool = False) -> CpuModel:
    """Return the guest CPU that `--cpu` text describes: a model, then `+feature`, `-feature`, `feature=on|off`,
    `vendor=`, `phys-bits=`, `family=`, `model=`, `stepping=`, `model-id=`.

    A feature brings with it what it needs, and takes away with it what needs it; the last word about a feature counts.
    under_hypervisor: the guest will find a hypervisor, which hides the invariant TSC unless it is asked for by name, as
    KVM and Xen do: a guest that may move must not rely on one TSC, and takes the paravirtual clock.

    Raises UnknownFeatureError for a name that does not exist or that the software CPU does not implement, and
    ConfigurationError for a value that does not fit, and for features that exclude each other.
    """
    first, *options = (part.strip() for part in text.split(","))
    name, row = find_model(first)
    settings = _Settings(options)
    vendor = settings.texts.get("vendor") or row.vendor or host.vendor
    if len(vendor.encode()) != 12:
        raise ConfigurationError(f"cpu vendor {vendor!r} is not 12 characters long", option="cpu", value=vendor)
    body = row if row.caches else CPU_MODELS[_STANDS_FOR[is_amd(vendor)]]
    family, number, stepping = row.signature if row.signature[0] else body.signature
    brand = f"{name} ({_GENERIC_BRAND})" if row is body else _GENERIC_BRAND
    model = CpuModel(
        name=name,
        vendor=vendor,
        family=settings.number("family", family, 0, 270),
        model=settings.number("model", number, 0, 255),
        stepping=settings.number("stepping", stepping, 0, 15),
        features=frozenset(),
        brand=settings.texts.get("model-id", brand),
        caches=body.caches,
        basic_leaves=body.basic_leaves,
        extended_leaves=body.extended_leaves,
    )
    if len(model.brand.encode()) > _BRAND_BYTES:
        raise ConfigurationError(
            f"cpu model-id {model.brand!r} is longer than {_BRAND_BYTES} bytes", option="cpu", value=model.brand
        )
    features = row.default_features(vendor)
    if under_hypervisor:
        features -= HIDDEN_BY_HYPERVISORS
    return replace(
        model,
        phys_bits=settings.number("phys-bits", model.phys_bits, 32, 52),
        features=_switch(features, settings.switches),
    )


_BRAND_BYTES = 47
"""Leaves 0x80000002 to 0x80000004 have room for as many, and a NUL."""


class _Settings:
    """The options behind a model's name."""

    def __init__(self, options: Iterable[str]) -> None:
        self.texts: dict[str, str] = {}
        self.switches: dict[str, bool] = {}
        for option in options:
            key, equals, value = option.partition("=")
            if option[:1] in ("+", "-"):
                self._switch(option[1:], option[0] == "+")
            elif equals and key in _NUMBERS | _TEXTS:
                self.texts[key] = value
            elif key not in _IGNORED:
                if equals and value not in ("on", "off"):
                    raise UnknownFeatureError(f"unknown cpu option {option!r}; write '+{key}' or '-{key}'", key)
                self._switch(key, value != "off")

    def _switch(self, text: str, wanted: bool) -> None:
        name = ALIASES.get(text, text)
        if name not in FEATURES:
            raise UnknownFeatureError(f"unknown cpu feature {text!r}; `paravirt cpu` lists them", text)
        if wanted and name not in IMPLEMENTED:
            raise UnknownFeatureError(
                f"the software CPU does not implement {name!r}; it implements {', '.join(sorted(IMPLEMENTED))}", name
            )
        self.switches[name] = wanted

    def number(self, key: str, default: int, least: int, most: int) -> int:
        """The value of an option that is a number."""
        text = self.texts.get(key)
        if text is None:
            return default
        try:
            number = int(text, 0)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ConfigurationError(
                f"cpu {key}={text!r} is not a number from {least} to {most}", option="cpu", value=text
            )
        return number


def _switch(features: frozenset[str], switches: dict[str, bool]) -> frozenset[str]:
    """A model's features with some of them switched: what depends on them follows."""
    wanted = [name for name, on in switches.items() if on]
    chosen = features | needs(wanted)
    for name, on in switches.items():
        if on:
            continue
        without = needed_by(name)
        if contradiction := without.intersection(wanted):
            dependent = min(contradiction)
            raise ConfigurationError(
                f"cpu feature {dependent!r} needs {name!r}: '+{dependent}' and '-{name}' exclude each other",
                option="cpu",
                value=dependent,
            )
        chosen -= without
    return chosen
