"""Draws the whole screen from a state. Pure, for tests and for pictures in the documentation."""

from __future__ import annotations

from datetime import timedelta

from agent.monitor import detail, panes
from agent.monitor.lines import Frame, Line, Span, rule, side_by_side, spread, stacked
from agent.monitor.panes import Look
from agent.monitor.state import State, recent_alarms, standing_alarms
from agent.monitor.text import fit
from agent.monitor.ui import Page, Ui

# From this width on, a third column shows facts.
WIDE = 120
RETENTION = "retention by age, last probes"
# Lines of the header and of the keys.
AROUND = 3
# The smallest height of the columns of the overview.
LEAST_UPPER = 13
REFUSED_FOR = timedelta(seconds=8)


def frame(state: State, ui: Ui, look: Look) -> Frame:
    """Draws a frame.

    Args:
        state: the state of the monitor.
        ui: the choices of the user.
        look: size, time and characters.

    Returns:
        Exactly `look.height` lines of `look.width` cells.
    """
    room = max(look.height - AROUND, 0)
    pages = {Page.OVERVIEW: _overview, Page.FACTS: _facts, Page.DETAIL: _detail}
    body = stacked(pages[ui.page](state, ui, look, room), look.width, room)
    lines = [*panes.header(state, look), *body, _keys(state, ui, look)]
    return Frame(tuple(stacked(lines, look.width, look.height)))


def _overview(state: State, ui: Ui, look: Look, height: int) -> list[Line]:
    """Columns at the top; alarms and events at the bottom."""
    wide = look.width >= WIDE
    # On a low screen, events lose their room first, then the plots.
    upper = min(max(height * 11 // 20, LEAST_UPPER), height)
    below = height - upper
    columns = _columns(state, ui, look, upper, wide)
    count = len(standing_alarms(state)) + len(recent_alarms(state, look.now))
    title = (f"alarms: {count}", "bold red") if count else ("alarms", "bold")
    if wide:
        left = look.width * 2 // 3 - 2
        right = look.width - left - 3
        events = _block("events", panes.events(state, ui, look, left), look, left, below)
        alarms = _block(title, panes.alarms(state, look, right), look, right, below)
        return [*columns, *side_by_side([events, alarms], look.glyphs)]
    width = look.width
    for_alarms = min(1 + max(min(count, 3), 1), below)
    alarms = _block(title, panes.alarms(state, look, width), look, width, for_alarms)
    shown = panes.events(state, ui, look, width)
    return [*columns, *alarms, *_block("events", shown, look, width, below - for_alarms)]


def _columns(state: State, ui: Ui, look: Look, height: int, wide: bool) -> list[Line]:
    """The attempt, retention with the guards, and the facts if there is room."""
    room = height - 1
    left = look.width // 3 if wide else look.width * 9 // 16
    middle = look.width // 3 if wide else look.width - left - 3
    attempt = panes.attempt(state, look, left, room)
    guards = panes.guards(state, look, middle)
    retention = panes.retention(state, look, middle, room - len(guards) - 1)
    if len(retention) + len(guards) < room:
        retention.append([])
    title = RETENTION if wide else RETENTION.partition(",")[0]
    blocks = [
        _block(panes.attempt_title(state), attempt, look, left, height),
        _block(title, [*retention, *guards], look, middle, height),
    ]
    if wide:
        right = look.width - left - middle - 6
        facts = panes.facts(state, ui, look, right, room, cursor=False)
        blocks.append(_block("facts", facts, look, right, height))
    return side_by_side(blocks, look.glyphs)


def _facts(state: State, ui: Ui, look: Look, height: int) -> list[Line]:
    """The facts that pass the filter."""
    title = f"facts, newest first: {len(state.facts)} known here"
    lines = panes.facts(state, ui, look, look.width, max(height - 1, 1), cursor=True)
    return _block(title, lines, look, look.width, height)


def _detail(state: State, ui: Ui, look: Look, height: int) -> list[Line]:
    """One fact and its history."""
    fact = state.facts.get(ui.selected)
    if fact is None:
        return _block("this fact is no longer known here", [], look, look.width, height)
    history = state.detail if state.detail and state.detail.fact.id == fact.id else None
    left = max(look.width // 2 - 2, 1)
    right = max(look.width - left - 3, 1)
    title = f"fact {fit(fact.id, min(len(fact.id), 40))}"
    shown = detail.fact_lines(fact, look, left, height - 1)
    retention = detail.history_lines(history, look, right)
    blocks = [
        _block(title, shown, look, left, height),
        _block("retention over time", retention, look, right, height),
    ]
    return side_by_side(blocks, look.glyphs)


def _block(title: str | Span, lines: list[Line], look: Look, width: int, height: int) -> list[Line]:
    """Puts lines under a title, in a block of exactly this size."""
    shown = (title, "bold") if isinstance(title, str) else title
    return stacked([rule(shown, width, look.glyphs), *lines], width, height)


def _keys(state: State, ui: Ui, look: Look) -> Line:
    if ui.typing:
        return [
            (f" filter: {fit(ui.filter, len(ui.filter))}_ ", "bold"),
            ("enter keep  esc show all  ctrl-c quit", "dim"),
        ]
    hints = {
        Page.OVERVIEW: "p pause/resume  f facts  / filter  q quit",
        Page.FACTS: "up/down pick  enter details  / filter  esc back  p pause/resume  q quit",
        Page.DETAIL: "up/down other facts  esc back  p pause/resume  q quit",
    }
    right: Line = []
    if ui.filter:
        right = [(f"filter: {fit(ui.filter, len(ui.filter))} ", "bold yellow")]
    if state.refused and look.now - state.refused.at < REFUSED_FOR:
        reason = fit(state.refused.reason, look.width // 2, look.glyphs.ellipsis).rstrip()
        right = [(f"{reason} ", "bold red")]
    elif ui.notice:
        right = [(f"{ui.notice} ", "bold yellow")]
    return spread([(f" {hints[ui.page]}", "dim")], right, look.width)
