"""`paravirt cpu`: the CPUs that a guest can have, and what they are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import click

__all__ = ["cpu", "describe_models", "show_and_exit"]

WIDTH = 100


@click.command()
@click.argument("description", metavar="[CPU]", required=False)
@click.option("--host", default="intel", show_default=True, help="The vendor of CPUs that are nobody's: intel or amd.")
def cpu(description: str | None, host: str) -> None:
    """List the models and features that `paravirt run --cpu` takes, or show what CPU is: a model, and features to
    switch on and off, as haswell,-avx2,+pku."""
    click.echo(describe_models() if description is None else _describe_cpu(description, host), nl=False)


def show_and_exit(context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """For an option that takes a CPU: its value `help` lists them, and nothing else happens."""
    if value == "help":
        click.echo(describe_models(), nl=False)
        context.exit()
    return value


def describe_models() -> str:
    """Return all models and features, for people."""
    from paravirt.cpuid import ALIASES, CPU_MODELS, FEATURES, IMPLEMENTED  # Not needed for --help.

    lines = ["Models (upper and lower case are the same):"]
    for name, row in CPU_MODELS.items():
        others = [alias for alias, model in ALIASES.items() if model == name]
        also = f"; also {', '.join(others)}" if others else ""
        lines.append(f"  {name:15} {row.summary}{also}")
    lines += ["", "Features that can be switched on (+) and off (-):", _wrap(IMPLEMENTED)]
    lines += ["Features with a name that are not implemented:", _wrap(set(FEATURES) - IMPLEMENTED)]
    return "\n".join(lines)


def _describe_cpu(description: str, host: str) -> str:
    from paravirt.cpuid import find_model, parse_cpu
    from paravirt.host import find_host

    model = parse_cpu(description, find_host(host))
    left_out = find_model(description.partition(",")[0])[1].left_out
    lines = [
        f"{model.name}: {model.brand}",
        f"  {model.vendor}, family {model.family}, model {model.model}, stepping {model.stepping}",
        f"  addresses of {model.phys_bits} physical and {model.virt_bits} linear bits",
        "Features:",
        _wrap(model.features),
    ]
    if left_out:
        lines += ["What the silicon has besides, and the software CPU does not implement:", _wrap(left_out)]
    return "\n".join(lines)


def _wrap(names: Iterable[str]) -> str:
    text = " ".join(sorted(names))
    return textwrap.indent(textwrap.fill(text, WIDTH, break_on_hyphens=False), "  ") + "\n"
