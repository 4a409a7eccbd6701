"""The pytest plugin: `paravirt_machine` makes machines in a test, and a failure shows what their guests printed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from paravirt.machine import Machine

_MACHINES: pytest.StashKey[list[Machine]] = pytest.StashKey()


@pytest.fixture
def paravirt_machine(request: pytest.FixtureRequest) -> Iterator[Callable[..., Machine]]:
    """Make machines, with the arguments of `paravirt.Machine`; they are closed when the test ends.

    def test_boots(paravirt_machine):
        vm = paravirt_machine(host="amd")
        vm.boot("kernel.elf")
        assert vm.run(timeout=10).ok
    """
    from paravirt.machine import Machine  # Only when it is used: the plugin is loaded by every pytest run.

    machines = request.node.stash.setdefault(_MACHINES, [])

    def make(**options: Any) -> Machine:
        machine = Machine(**options)
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        machine.close()


def _machines_of(item: pytest.Item) -> list[Machine]:
    machines: list[Machine] = []
    return item.stash.get(_MACHINES, machines)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the consoles of a failed test's machines into its report."""
    report = yield
    if report.when == "call" and report.failed:
        for number, machine in enumerate(_machines_of(item)):
            output = machine.console.text
            if output:
                report.sections.append((f"console of machine {number}", output))
    return report
