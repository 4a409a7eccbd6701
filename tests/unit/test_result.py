"""Process statuses of runs, and names for addresses."""

from __future__ import annotations

import pytest

import paravirt as pv
from paravirt.result import Result, StopReason


def make_result(reason: StopReason, debug_exit: int | None = None) -> Result:
    return Result(reason, 0, {}, 0, 0, 0.0, "soft", debug_exit)


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (38, 77), (63, 127), (0x80, 1), (0xFFFF_FFFF, 255)])
def test_debug_exit(value: int, status: int) -> None:
    """As QEMU's: (value << 1) | 1, of which a process keeps 8 bits."""
    assert make_result(StopReason.DEBUG_EXIT, value).status == status


@pytest.mark.parametrize(
    ("reason", "status", "ok"),
    [
        ("power-off", 0, True),
        ("halted", 0, True),
        ("reset", 0, True),
        ("crash", 120, False),
        ("triple-fault", 122, False),
        ("max-instructions", 124, False),
        ("timeout", 124, False),
    ],
)
def test_other_ends(reason: str, status: int, ok: bool) -> None:
    """Orderly ends are 0; others are even, so that no guest's status can be meant."""
    result = make_result(StopReason(reason))
    assert (result.status, result.ok) == (status, ok)


def test_symbols() -> None:
    """Inside a symbol its name and the distance; outside nothing; unknown sizes reach to the next one."""
    table = pv.SymbolTable([("main", 0x1000, 0x10), ("alias", 0x1000, 0x10), ("label", 0x2000, 0), ("last", 0x2100, 0)])
    assert [table.find(address) for address in (0xFFF, 0x1000, 0x100F, 0x1010)] == [None, "main", "main+0xf", None]
    assert [table.find(address) for address in (0x20FF, 0x2100, 0x30FF, 0x3100)] == [
        "label+0xff",
        "last",
        "last+0xfff",
        None,
    ]
    assert table["alias"] == 0x1000
    assert "nobody" not in table
    assert len(table) == 4


def test_sized_symbol_wins_over_a_label() -> None:
    """A label at a function's start does not hide the function."""
    assert pv.SymbolTable([("label", 0x1000, 0), ("main", 0x1000, 8)]).find(0x1004) == "main+0x4"
