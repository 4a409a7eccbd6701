"""The pytest plugin, in a test run of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

TESTS = """
def test_fails(paravirt_machine):
    machine = paravirt_machine(memory="4M")
    machine.boot(bytes.fromhex("baf803b041eeb00aeefaf4"), protocol="flat")  # prints "A", halts
    machine.run(max_instructions=1000)
    assert not machine.console.text


def test_closes(paravirt_machine):
    test_closes.machine = paravirt_machine(memory="4M")


def test_is_closed(paravirt_machine):
    assert test_closes.machine._is_closed
"""


def test_failure_shows_the_console(pytester: pytest.Pytester) -> None:
    """A machine is closed behind its test, and what its guest printed is in the report of a failure."""
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.re_match_lines(["-* console of machine 0 -*", "A"])
