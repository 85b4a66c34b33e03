"""What is to be seen: whole screens kept as text, and that no text and no size breaks one.

After a change that is meant, `UPDATE_SNAPSHOTS=1 pytest tests/monitor/test_view.py` writes the
screens anew; look at the difference.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agent.monitor.lines import ASCII, Frame, width_of
from agent.monitor.observations import (
    Connected,
    EventSeen,
    FactsSeen,
    Observation,
    Refused,
    RetentionSeen,
    StatusSeen,
)
from agent.monitor.recording import read
from agent.monitor.ui import Page, Ui
from agent.monitor.view import frame
from memory_store.vocabulary import EventKind, FactState, LearnerState, RatePoint
from tests.monitor.session import (
    CURVE,
    at,
    detail,
    event,
    eventful,
    fact,
    folded,
    gone,
    learning,
    look,
    opening,
    point,
    status,
    step,
)
from tests.monitor.test_text import ODD

SNAPSHOTS = Path(__file__).parent / "snapshots"
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "monitor.jsonl"
SIZES = [(80, 24), (200, 50)]

RECOVERING, DOWN = LearnerState.RECOVERING, LearnerState.DOWN
OVERVIEW, FACTS = Ui(), Ui(page=Page.FACTS, selected="f3")
AGAIN = Connected(at=at(19), address="a", after_sequence=14)
REPLAYING = StatusSeen(at=at(20), status=status(learner=RECOVERING, updates_to_replay=7))
PAUSED = StatusSeen(at=at(17), status=status(learning_paused=True, snapshot_overdue="disk full"))
SCREENS: dict[str, tuple[list[Observation], Ui]] = {
    "empty": ([Connected(at=at(0), address="127.0.0.1:50051", after_sequence=0)], OVERVIEW),
    "learning": (eventful(), OVERVIEW),
    "lost": ([*eventful(), gone()], OVERVIEW),
    "again": ([*eventful(), gone(), AGAIN], OVERVIEW),
    "paused": ([*eventful(), PAUSED], Ui(filter="kyzara 1")),
    "facts": (eventful(), FACTS),
    "detail": ([*eventful(), detail(1)], Ui(page=Page.DETAIL, selected="f1")),
    "typing": (eventful(), Ui(page=Page.FACTS, filter="kyz", typing=True)),
}  # fmt: skip


def require_snapshot(name: str, drawn: Frame, size: tuple[int, int]) -> None:
    path = SNAPSHOTS / f"{name}-{size[0]}x{size[1]}.txt"
    text = drawn.plain() + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} differs"


def require_size(drawn: Frame, width: int, height: int) -> None:
    assert len(drawn.lines) == height
    assert {width_of(line) for line in drawn.lines} <= {width}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_it_was(name: str, size: tuple[int, int]) -> None:
    observed, ui = SCREENS[name]
    drawn = frame(folded(observed), ui, look(*size))
    require_size(drawn, *size)
    require_snapshot(name, drawn, size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("percent", [36, 100])
def test_a_real_run_is_shown_as_it_was(size: tuple[int, int], percent: int) -> None:
    observed = list(read(PICTURE))
    seen = observed[: len(observed) * percent // 100]
    width, height = size
    drawn = frame(folded(seen), OVERVIEW, replace(look(width, height), now=seen[-1].at))
    require_snapshot(f"run-{percent}", drawn, size)


def test_without_unicode_it_is_all_ascii() -> None:
    for observed, ui in SCREENS.values():
        assert frame(folded(observed), ui, look(glyphs=ASCII)).plain().isascii()


def render(drawn: Frame, **console: object) -> str:
    file = io.StringIO()
    Console(file=file, width=80, force_terminal=True, **console).print(drawn)  # type: ignore[arg-type]
    return file.getvalue()


def test_it_uses_no_more_colours_than_a_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = frame(folded(eventful()), OVERVIEW, look())
    sixteen = render(drawn, color_system="standard")
    assert "\x1b[32m" in sixteen
    assert "38;5;" not in sixteen
    assert "38;2;" not in sixteen
    monkeypatch.setenv("NO_COLOR", "1")
    plain = render(drawn)
    assert "\x1b[1m" in plain  # bold is no colour
    assert not any(f"\x1b[{code}" in plain for code in range(30, 50))


CRASHING = StatusSeen(at=at(20), status=status(learner=DOWN, learner_message="exit code 7"))


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (REPLAYING, "recovering, 7 to replay"),
        (
            StatusSeen(at=at(20), status=status(learner=DOWN)),
            "learner down: it is being started",
        ),
        (CRASHING, "learner down: exit code 7"),
        (gone(), "no server for 2 s, trying"),
        (Connected(at=at(10), address="a", after_sequence=14), "connected again"),
        (PAUSED, "snapshot late: disk full"),
        (PAUSED, "PAUSED"),
        (Refused(at=at(19), reason="this token may not"), "this token may not"),
        (event(19, EventKind.LEARNER_DOWN, message="killed by signal 9"), "killed by signal 9"),
    ],
)
def test_what_an_operator_must_see(told: Observation, shown: str) -> None:
    drawn = frame(folded([*eventful(), told]), OVERVIEW, look(120, 24))
    assert shown in drawn.plain()


def test_many_facts_share_columns_of_the_heat_map() -> None:
    ages = {f"f{n}": n for n in range(500)}
    points = {f"f{n}": (point(1, n / 500),) for n in range(500)}
    state = folded([RetentionSeen(at=at(1), ages=ages, points=points)])
    row = frame(state, OVERVIEW, look()).plain().split("\n")[3].partition("last ")[2]
    assert row[0] == "·"
    assert row[-1] == "█"
    assert len(row) <= 27


@pytest.mark.parametrize("chosen", [None, 1e-8, 1e-6, 3e-4, 5e-3, 1.0])
@pytest.mark.parametrize("points", [CURVE, CURVE[:1], (*CURVE[:3], RatePoint(1e-3, math.nan))])
def test_a_curve_fits_wherever_its_rate_is(
    points: tuple[RatePoint, ...], chosen: float | None
) -> None:
    rates = () if chosen is None else (chosen,)
    found = learning(curve=points, learning_rates=rates)
    state = folded([event(1, EventKind.LEARNED, "f1", learning=found)])
    drawn = frame(state, OVERVIEW, look())
    require_size(drawn, 80, 24)
    assert chosen is None or f"{chosen:.1e}" in drawn.plain()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 230),
    st.integers(1, 60),
    st.sampled_from(sorted(SCREENS)),
    st.sampled_from([ASCII, look().glyphs]),
)
def test_no_size_breaks_it(width: int, height: int, name: str, glyphs) -> None:
    observed, ui = SCREENS[name]
    require_size(frame(folded(observed), ui, look(width, height, glyphs=glyphs)), width, height)


def everywhere(text: str) -> list[Observation]:
    """An odd text in each place that holds one."""
    odd = learning(answer_before=text, answer_after=text)
    told: Callable[[int], object] = lambda n: fact(  # noqa: E731
        n, FactState.RESISTED, question=text, answer=text, reason=text, learning=odd
    )
    ended = event(2, EventKind.RESISTED, "f1", learning=odd, message=text)
    return [
        Connected(at=at(0), address=text, after_sequence=0),
        FactsSeen(at=at(0), facts=(told(1), told(2))),  # type: ignore[arg-type]
        step(1, "f1", 0.5, replace(opening(), answer_before=text)),
        ended,
        event(3, EventKind.LEARNER_DOWN, message=text),
        EventSeen(at=at(4), event=replace(ended.event, sequence=4, fact_id=text)),
        Refused(at=at(19), reason=text),
        StatusSeen(at=at(5), status=status(model=text, device=text, snapshot_overdue=text)),
        replace(detail(1), fact=told(1), probes=(replace(detail(1).probes[0], answer=text),)),  # type: ignore[arg-type]
    ]


@settings(deadline=None, max_examples=80)
@given(ODD, st.sampled_from(SIZES), st.sampled_from(Page), ODD)
def test_no_text_breaks_it(text: str, size: tuple[int, int], page: Page, filter_: str) -> None:
    state = folded(everywhere(text))
    for ui in (Ui(page=page, selected="f1"), Ui(page=page, filter=filter_, typing=True)):
        drawn = frame(state, ui, look(*size))
        require_size(drawn, *size)
        assert all(text.isprintable() for line in drawn.lines for text, _ in line)
        assert "\x1b" not in drawn.plain()
        Console(file=io.StringIO(), width=size[0]).print(drawn)
