"""Virtual time beside a wall clock."""

from __future__ import annotations

from paravirt.pacing import MAX_LAG_NS, Pacer

MS = 1_000_000


class Clock:
    """A wall clock that one sets."""

    def __init__(self) -> None:
        self.now_ns = 5_000 * MS

    def __call__(self) -> int:
        return self.now_ns


def make_pacer() -> tuple[Clock, Pacer]:
    clock = Clock()
    pacer = Pacer(clock)
    pacer.start(100 * MS)
    return clock, pacer


def test_waits_for_the_clock() -> None:
    """Idle time lasts as long on the host; work that was faster than real counts."""
    clock, pacer = make_pacer()
    assert pacer.ahead_ns(130 * MS) == 30 * MS
    clock.now_ns += 10 * MS
    assert pacer.ahead_ns(130 * MS) == 20 * MS
    assert pacer.now_ns() == 110 * MS


def test_catches_up_a_little() -> None:
    """Somewhat late: the next idle time is shorter, and the guest's clock right again."""
    clock, pacer = make_pacer()
    clock.now_ns += 50 * MS
    assert pacer.ahead_ns(110 * MS) == -40 * MS
    assert pacer.ahead_ns(170 * MS) == 20 * MS


def test_gives_up_what_is_lost() -> None:
    """After a long computation a sleep of a second lasts nearly a second: time followed execution."""
    clock, pacer = make_pacer()
    clock.now_ns += 20_000 * MS
    assert pacer.ahead_ns(200 * MS) == -MAX_LAG_NS
    assert pacer.ahead_ns(1_200 * MS) == 1_000 * MS - MAX_LAG_NS


def test_a_pause_is_no_time() -> None:
    """Between two runs the guest's time stands still."""
    clock, pacer = make_pacer()
    clock.now_ns += 60_000 * MS
    pacer.start(120 * MS)
    assert pacer.ahead_ns(150 * MS) == 30 * MS
