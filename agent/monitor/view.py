"""The whole screen from a state: pure, so that tests can look at it and pictures be made of it."""

from __future__ import annotations

from datetime import timedelta

from agent.monitor import panes, plots
from agent.monitor.lines import Frame, Line, beside, rule, spread, stacked
from agent.monitor.observations import DetailSeen
from agent.monitor.panes import Look
from agent.monitor.state import State, recent_alarms, standing_alarms
from agent.monitor.text import fit, wrap
from agent.monitor.ui import Page, Ui
from memory_store.records import Fact, ProbeKind

# From this width on there is a third column, with facts, and from this height on pictures grow.
WIDE = 120
RETENTION = "retention by age, last probes: dark is held"
# Lines of the header and of the keys.
AROUND = 3
REFUSED_FOR = timedelta(seconds=8)


def frame(state: State, ui: Ui, look: Look) -> Frame:
    """What is to be seen.

    Args:
        state: what is known.
        ui: what was chosen.
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
    """Columns above; alarms and events below."""
    wide = look.width >= WIDE
    alarms_shown = len(standing_alarms(state)) + len(recent_alarms(state, look.now))
    # Below 24 lines events give way first, then the pictures.
    upper = min(max(height * 11 // 20, 13), height)
    columns = _columns(state, ui, look, upper, wide)
    below = height - upper
    if wide:
        left = look.width * 2 // 3 - 2
        right = look.width - left - 3
        return [
            *columns,
            *beside(
                [
                    _block(
                        ("events", "bold"), panes.events(state, ui, look, left), look, left, below
                    ),
                    _block(
                        _alarm_title(alarms_shown),
                        panes.alarms(state, look, right),
                        look,
                        right,
                        below,
                    ),
                ],
                look.glyphs,
            ),
        ]
    for_alarms = min(1 + max(min(alarms_shown, 3), 1), below)
    width = look.width
    return [
        *columns,
        *_block(
            _alarm_title(alarms_shown), panes.alarms(state, look, width), look, width, for_alarms
        ),
        *_block(
            ("events", "bold"),
            panes.events(state, ui, look, width),
            look,
            width,
            below - for_alarms,
        ),
    ]


def _columns(state: State, ui: Ui, look: Look, height: int, wide: bool) -> list[Line]:
    room = height - 1
    left = look.width // 3 if wide else look.width * 9 // 16
    middle = look.width // 3 if wide else look.width - left - 3
    guards = panes.guards(state, look, middle)
    map_lines = panes.retention(state, look, middle, room - len(guards) - 1)
    blocks = [
        _block(
            panes.attempt_title(state),
            panes.attempt(state, look, left, room),
            look,
            left,
            height,
        ),
        _block(
            (RETENTION if wide else RETENTION[:16], "bold"),
            [*map_lines, [], *guards]
            if len(map_lines) + len(guards) < room
            else [*map_lines, *guards],
            look,
            middle,
            height,
        ),
    ]
    if wide:
        right = look.width - left - middle - 6
        shown = panes.facts(state, ui, look, right, room, cursor=False)
        blocks.append(_block(("facts", "bold"), shown, look, right, height))
    return beside(blocks, look.glyphs)


def _block(
    title: tuple[str, str], lines: list[Line], look: Look, width: int, height: int
) -> list[Line]:
    return stacked([rule(title, width, look.glyphs), *lines], width, height)


def _alarm_title(count: int) -> tuple[str, str]:
    return (f"alarms: {count}", "bold red") if count else ("alarms", "bold")


def _keys(state: State, ui: Ui, look: Look) -> Line:
    if ui.typing:
        return [
            (f" filter: {fit(ui.filter, len(ui.filter))}_ ", "bold"),
            ("enter  esc: all", "dim"),
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


def _facts(state: State, ui: Ui, look: Look, height: int) -> list[Line]:
    """All that pass the filter."""
    title = (f"facts, newest first: {len(state.facts)} known here", "bold")
    lines = panes.facts(state, ui, look, look.width, max(height - 1, 1), cursor=True)
    return [rule(title, look.width, look.glyphs), *lines]


def _detail(state: State, ui: Ui, look: Look, height: int) -> list[Line]:
    """All that is known of one fact."""
    fact = state.facts.get(ui.selected)
    if fact is None:
        return [rule(("this fact is not known here any more", "bold"), look.width, look.glyphs)]
    history = state.detail if state.detail and state.detail.fact.id == fact.id else None
    left = max(look.width // 2 - 2, 1)
    right = max(look.width - left - 3, 1)
    title = (f"fact {fit(fact.id, min(len(fact.id), 40))}", "bold")
    return beside(
        [
            _block(title, _told(fact, look, left, height - 1), look, left, height),
            _block(
                ("retention over time", "bold"),
                _remembered(history, look, right),
                look,
                right,
                height,
            ),
        ],
        look.glyphs,
    )


def _told(fact: Fact, look: Look, width: int, height: int) -> list[Line]:
    """The fact, what the model said before and after, and its rate curve."""
    ellipsis = look.glyphs.ellipsis
    lines: list[Line] = [[(text, "bold")] for text in wrap(fact.question, width, 3, ellipsis)]
    arrow = look.glyphs.arrow
    lines += [[(text, "cyan")] for text in wrap(f"{arrow} {fact.answer}", width, 2, ellipsis)]
    lines.append([(fact.state.value, panes.STATE_STYLES.get(fact.state, "yellow"))])
    if fact.reason:
        lines += [[(text, "red")] for text in wrap(fact.reason, width, 2, ellipsis)]
    learning = fact.learning
    if learning is None:
        return lines
    rates = learning.learning_rates
    before, after = learning.probability_before, learning.probability_after
    lines.append([(f"{len(rates)} steps, p {before:.3f} {arrow} {after:.3f}", "")])
    for name, text in (("before", learning.answer_before), ("after", learning.answer_after)):
        lines.append([(f"{name:7}", "dim"), (fit(f'"{text}"', width - 7, ellipsis), "")])
    for name, figure in (("leak", learning.leak), ("drift", learning.drift)):
        if figure is not None:
            lines.append([(f"{name:7}", "dim"), (f"{figure:.3f}", "")])
    rows = min(height - len(lines) - 1, 12)
    if learning.curve and rows >= 2:
        lines.append([("p after one step, by learning rate", "dim")])
        lines += plots.curve(learning.curve, next(iter(rates), None), width, rows, look.glyphs)
    return lines


def _remembered(history: DetailSeen | None, look: Look, width: int) -> list[Line]:
    """Probes of the fact's own question, oldest first, and the updates that taught it."""
    if history is None:
        return [[("asking the service", "dim")]]
    own = [probe for probe in history.probes if probe.kind is not ProbeKind.TRANSFER]
    values = [panes.shown_probability(probe.log_probability) for probe in reversed(own)]
    lines: list[Line] = []
    if values:
        shown = values[-max(width - 5, 1) :]
        for number, text in enumerate(plots.bars(shown, 4, look.glyphs)):
            lines.append([("1.0  " if number == 0 else "     ", "dim"), (text, "green")])
        versions = [probe.model_version for probe in reversed(own)][-len(shown) :]
        ends = f"version {versions[0]} to {versions[-1]}, {len(shown)} probes"
        lines.append([("     ", ""), (ends, "dim")])
        style = plots.quality(values[-1])
        lines.append([("now  ", ""), (f"{values[-1]:.3f} ", f"bold {style}")])
        lines[-1].append((fit(f'"{own[0].answer}"', width - 11, look.glyphs.ellipsis), ""))
    else:
        lines.append([("never probed", "dim")])
    lines += [[], rule(("updates that taught it", "bold"), width, look.glyphs)]
    for update in history.updates:
        steps = update.steps
        after = f"p {steps[-1].probability:.3f}" if steps else "no steps"
        text = (
            f"version {update.model_version}  {len(steps)} steps  {after}  {update.seconds:.1f} s"
        )
        lines.append([(text, "")])
    return lines
