"""The panes of the screen, as lines: the attempt, retention, guards, events, alarms, facts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from agent.monitor import plots
from agent.monitor.lines import UNICODE, Glyphs, Line, Span, spread, width_of
from agent.monitor.state import (
    POINTS,
    Attempt,
    State,
    per_second,
    probability,
    recent_alarms,
    standing_alarms,
)
from agent.monitor.styles import STATE_STYLES
from agent.monitor.text import clean, fit, wrap
from agent.monitor.ui import Ui, passes, selected_of, shown_facts
from memory_store.vocabulary import HELD, Event, EventKind, Fact, FactState, LearnerState, Learning

# How long the screen shows that the server was restarted.
AGAIN_FOR = timedelta(seconds=15)
# Follows a figure of an update that is not served.
REFUSED = ", refused"

EVENT_STYLES = {
    EventKind.LEARNED: "green",
    EventKind.KNOWN: "green",
    EventKind.RETAUGHT: "yellow",
    EventKind.RETRIED: "yellow",
    EventKind.REQUEUED: "yellow",
    EventKind.GAP: "yellow",
    EventKind.RESISTED: "red",
    EventKind.QUARANTINED: "red",
    EventKind.LEARNER_DOWN: "red",
    EventKind.OPERATION_FAILED: "red",
    EventKind.CLEAN_UP_FAILED: "red",
    EventKind.LEARNER_READY: "green",
    EventKind.LEARNING: "cyan",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a state is drawn.

    Attributes:
        width: of the screen, in cells.
        height: of the screen, in lines.
        now: the current time.
        zone: the time zone for display.
        glyphs: to draw with.
    """

    width: int
    height: int
    now: datetime
    zone: tzinfo = UTC
    glyphs: Glyphs = UNICODE


def header(state: State, look: Look) -> list[Line]:
    """Draws model, device, memory, version, uptime, health, queue, rates, and facts by state."""
    status = state.status
    health = _health(state, look)
    if status is None:
        return [spread([(f" {clean(state.address)}", "bold")], health, look.width), []]
    parts = ["no device yet"]
    if status.device:
        parts = [f"{clean(status.device)}, {_millions(status.parameters)}"]
    if status.memory_bytes:
        total = f" of {status.memory_total_bytes / 1e9:.0f}" if status.memory_total_bytes else ""
        parts.append(f"{status.memory_bytes / 1e9:.1f}{total} GB")
    parts.append(f"version {status.model_version}")
    if status.started_at and state.connected:  # otherwise it is unknown
        parts.append(f"up {_duration(look.now - status.started_at)}")
    first: Line = [(f" {clean(status.model)}  ", "bold"), ("  ".join(parts), "")]
    waiting = status.facts.get(FactState.QUEUED, 0)
    queue = f"{waiting} waiting"
    if status.oldest_queued_at:
        queue += f" for {_duration(look.now - status.oldest_queued_at)}"
    second: Line = [(f" {queue}  ", "bold" if waiting else "")]
    second.append((f"in {_rate(per_second(state, state.accepted, look.now))}  ", ""))
    second.append((f"out {_rate(per_second(state, state.settled, look.now))} ", ""))
    for fact_state, count in status.facts.items():
        if count and fact_state not in (FactState.QUEUED, FactState.LEARNING):
            second.append((f"  {count} {fact_state.value}", STATE_STYLES.get(fact_state, "")))
    return [spread(first, health, look.width), second]


def _health(state: State, look: Look) -> Line:
    if state.connected is None:
        return [("connecting ", "yellow")]
    if not state.connected:
        since = look.now - state.lost.at if state.lost else timedelta()
        return [(f" no server for {_duration(since)}, trying ", "bold reverse red")]
    status = state.status
    if status is None:
        return [("connected ", "yellow")]
    again = state.connected_at is not None and look.now - state.connected_at < AGAIN_FOR
    note: Line = [("connected again ", "yellow")] if state.connections > 1 and again else []
    if status.learning_paused:
        return [*note, (" PAUSED ", "bold reverse yellow")]
    if status.learner is LearnerState.READY:
        return [*note, (f"{look.glyphs.dot} ready ", "bold green")]
    left = f", {status.updates_to_replay} to replay" if status.updates_to_replay else ""
    style = "bold red" if status.learner is LearnerState.DOWN else "bold yellow"
    return [*note, (f"{look.glyphs.dot} {status.learner}{left} ", style)]


def attempt_title(state: State) -> Span:
    """Returns the title of the pane of `attempt`."""
    attempt, status = state.attempt, state.status
    if attempt is None:
        return "learning now", "bold"
    if attempt.verdict is None:
        if not state.connected or status is None or status.learner is not LearnerState.READY:
            return "interrupted", "bold yellow"
        return "learning now", "bold cyan"
    verdict = attempt.verdict
    return f"last: {verdict.value}", f"bold {EVENT_STYLES.get(verdict, '')}".strip()


def attempt(state: State, look: Look, width: int, height: int) -> list[Line]:
    """Draws the current or last attempt: steps, probability, answers, rate curve."""
    shown = state.attempt
    if shown is None:
        waits = state.status is not None and state.status.queue_depth
        return [[("soon" if waits else "nothing yet: agent teach QUESTION ANSWER", "dim")]]
    fact = state.facts.get(shown.fact_id)
    roomy = height >= 16
    lines: list[Line] = []
    question = fact.question if fact else shown.fact_id
    for text in wrap(question, width, 2 if roomy else 1, look.glyphs.ellipsis):
        lines.append([(text, "bold")])
    lines.append([(f"{look.glyphs.arrow} {fit(fact.answer if fact else '', width - 3)}", "cyan")])
    lines.append(_step_line(shown, look))
    learning = shown.learning or shown.opening
    lines += _climb(shown, learning, look, width, 5 if roomy else 1)
    lines.append(_said("before", learning.answer_before if learning else None, width))
    after = shown.learning.answer_after if shown.learning else None
    lines.append(_said("after", after, width))
    if shown.reason:
        lines.append([(fit(shown.reason, width, look.glyphs.ellipsis), "red")])
    rows = min(height - len(lines), 11)
    if learning and learning.curve and rows >= 2:
        if rows > 4:
            lines.append([("p after one step, by learning rate", "dim")])
        chosen = next(iter(learning.learning_rates), None)
        rows = min(height - len(lines), 10)
        lines += plots.curve(learning.curve, chosen, width, rows, look.glyphs)
    elif shown.steps:
        lines.append([("one rate: no others were compared", "dim")])
    return lines


def _step_line(attempt: Attempt, look: Look) -> Line:
    ended = attempt.ended_at or look.now
    seconds = max((ended - attempt.began_at).total_seconds(), 0.0)
    if not attempt.steps and attempt.learning is not None:
        rates = attempt.learning.learning_rates
        at = f" at {rates[0]:.1e}" if rates else ""
        return [(f"{_count(len(rates), 'step')}{at}  {seconds:.0f} s", "")]
    if not attempt.steps:
        return [(f"asked first, and prepared  {seconds:.0f} s", "dim")]
    step = attempt.steps[-1]
    again = f" of try {attempt.tries}" if attempt.tries > 1 else ""
    of = f" of {step.candidates}" if step.candidates else ""
    text = f"step {attempt.taken}{again}  {seconds:.0f} s  rate {step.learning_rate:.1e}{of}"
    return [(f"{text}  loss {step.loss:.1f}", "")]


def _climb(
    attempt: Attempt, learning: Learning | None, look: Look, width: int, height: int
) -> list[Line]:
    """Draws the probability of the answer, step by step."""
    values = [step.probability for step in attempt.steps]
    if learning is not None:
        values.insert(0, learning.probability_before)
    if attempt.refused and learning is not None:
        # The weights were put back, so what the steps had reached is not served.
        found = attempt.learning
        values.append(found.probability_after if found else learning.probability_before)
    elif (
        attempt.learning is not None and not attempt.steps
    ):  # the steps were taken before the monitor connected
        values.append(attempt.learning.probability_after)
    if not values:
        return [[("p", "dim")]]
    values = values[-max(width - 14, 1) :]
    cell = max(1, min(4, (width - 14) // len(values)))
    drawn = plots.bars(values, height, look.glyphs, cell)
    style = "red" if attempt.refused else "green"
    lines: list[Line] = [[("       ", ""), (text, style)] for text in drawn]
    lines[-1][0] = (f"p {values[0]:.2f} ", "")
    end = "red" if attempt.refused else plots.quality(values[-1])
    lines[-1].append((f" {values[-1]:.2f}", f"bold {end}"))
    return lines


def _said(when: str, text: str | None, width: int) -> Line:
    if text is None:
        return [(f"{when:7}", "dim")]
    return [(f"{when:7}", "dim"), (fit(f'"{text}"', width - 7), "")]


def retention(state: State, look: Look, width: int, height: int) -> list[Line]:
    """Draws the heat map: a column for each fact, from the oldest on, and a row for each probe."""
    if not state.ages:
        return [[("no fact is held yet", "dim")]]
    rows = min(POINTS, max(height - 2, 1))
    columns = [state.points.get(fact_id, ()) for fact_id in state.ages]
    table = [
        [points[row].probability if row < len(points) else None for points in columns]
        for row in range(rows)
    ]
    drawn, used = plots.heat_map(table, width - 5, look.glyphs)
    labels = ["last", *(f"-{row}" for row in range(1, rows))]
    lines: list[Line] = [
        [(f"{label:>4} ", "dim"), *line] for label, line in zip(labels, drawn, strict=True)
    ]
    ages = list(state.ages.values())
    lines.append([("     ", ""), (_ends(f"age {ages[0]}", str(ages[-1]), used), "dim")])
    asked = [points[0].probability for points in columns if points]
    if asked:
        held = sum(value >= plots.LOST for value in asked)
        mean = sum(asked) / len(asked)
        style = "green" if held == len(asked) else "bold red"
        lines.append([(f"{held} of {len(asked)} held", style), (f", mean p {mean:.2f}", "")])
    return lines


def guards(state: State, look: Look, width: int) -> list[Line]:
    """Draws leak and drift of the last attempts, with their limits."""
    status = state.status
    refused = state.attempt.learning if state.attempt and state.attempt.refused else None
    of_refused = (refused.leak, refused.drift) if refused else (None, None)
    limits = (status.leak_limit, status.drift_limit) if status else (0.0, 0.0)
    lines: list[Line] = []
    for name, figures, limit, put_back in zip(
        ("leak", "drift"), (state.leaks, state.drifts), limits, of_refused, strict=True
    ):
        if not figures:
            known = f", limit {limit:.2f}" if limit else ""
            lines.append([(f"{name:6}", ""), (f"not measured{known}", "dim")])
            continue
        value = figures[-1]
        cells = max(min(width - 25, 20), 3)
        line: Line = [(f"{name:6}{value:.2f} ", "")]
        line.append(plots.gauge(value, limit, cells, look.glyphs))
        line.append((f" limit {limit:.2f}", "dim"))
        if put_back is not None and width - width_of(line) >= len(REFUSED):
            line.append((REFUSED, "red"))
        if (room := width - width_of(line) - 2) > 8 and limit:
            shares = [min(figure / limit, 1.0) for figure in figures]
            line.append((f"  {plots.spark(shares, room, look.glyphs)}", "cyan"))
        lines.append(line)
    return lines


def alarms(state: State, look: Look, width: int) -> list[Line]:
    """Draws current problems, then recent ones."""
    lines: list[Line] = [
        [(fit(f"{name}: {text}", width, look.glyphs.ellipsis), "bold red")]
        for name, text in standing_alarms(state)
    ]
    for alarm in recent_alarms(state, look.now):
        fact = state.facts.get(alarm.fact_id)
        about = f"{fact.question} " if fact else ""
        text = f"{_clock(alarm.at, look)} {alarm.name}: {about}{alarm.text}"
        lines.append([(fit(text, width, look.glyphs.ellipsis), "yellow")])
    return lines or [[("none", "dim")]]


def events(state: State, ui: Ui, look: Look, width: int) -> list[Line]:
    """Draws the events that pass the filter, newest first."""
    shown = [e for e in reversed(state.events) if passes(ui.filter, e.fact_id, state)]
    return [_event(event, state, look, width) for event in shown[: look.height]]


def _event(event: Event, state: State, look: Look, width: int) -> Line:
    line: Line = [(f"{_clock(event.at, look)} ", "dim")]
    line.append((f"{event.kind.value:<13} ", EVENT_STYLES.get(event.kind, "")))
    tail = ""
    if event.learning is not None:
        before, after = event.learning.probability_before, event.learning.probability_after
        tail = f"  p {before:.2f} {look.glyphs.arrow} {after:.2f}"
    room = max(width - width_of(line) - len(tail), 1)
    fact = state.facts.get(event.fact_id)
    about = f"{fact.question} {look.glyphs.arrow} {fact.answer}" if fact else event.fact_id
    text = f"{about}  {event.message}" if about and event.message else about or event.message
    return [*line, (fit(text, room, look.glyphs.ellipsis), ""), (tail, "")]


def facts(state: State, ui: Ui, look: Look, width: int, height: int, cursor: bool) -> list[Line]:
    """Draws the facts that pass the filter, newest first; around the selected one, if asked."""
    shown = shown_facts(state, ui)
    if not shown:
        return [[("no fact passes the filter" if ui.filter else "no facts yet", "dim")]]
    place = selected_of(shown, ui) if cursor else 0
    first = min(max(place - height // 2, 0), max(len(shown) - height, 0))
    return [
        _fact(fact, state, look, width, cursor and number == place)
        for number, fact in enumerate(shown[first : first + height], start=first)
    ]


def _fact(fact: Fact, state: State, look: Look, width: int, picked: bool) -> Line:
    known = probability(state, fact.id) if fact.state in HELD else None
    shown = "    " if known is None else f"{known:.2f}"
    text = f"{fact.question} {look.glyphs.arrow} {fact.answer}"
    reverse = " reverse" if picked else ""
    return [
        (">" if picked else " ", "bold"),
        (f"{fact.state.value:<11} ", f"{STATE_STYLES.get(fact.state, 'yellow')}{reverse}"),
        (f"{shown} ", f"{plots.quality(known)}{reverse}" if known is not None else ""),
        (fit(text, max(width - 18, 1), look.glyphs.ellipsis), reverse.strip()),
    ]


def _ends(left: str, right: str, width: int) -> str:
    gap = width - len(left) - len(right)
    return f"{left}{' ' * gap}{right}" if gap > 0 else f"{left} to {right}"


def _clock(moment: datetime, look: Look) -> str:
    return f"{moment.astimezone(look.zone):%H:%M:%S}"


def _duration(time: timedelta) -> str:
    seconds = max(int(time.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _rate(number: float) -> str:
    if 0 < number < 0.1:
        return f"{number * 60:.1f}/min"
    return f"{number:.1f}/s" if number < 100 else f"{number:.0f}/s"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.0f}M" if parameters >= 1e6 else f"{parameters}"


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
