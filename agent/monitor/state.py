"""The state of the monitor, folded from observations. Pure: they bring the time with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import takewhile

from agent.client.types import Status
from agent.monitor.observations import (
    Connected,
    DetailSeen,
    EventSeen,
    FactsSeen,
    Lost,
    Observation,
    Refused,
    RetentionSeen,
    StatusSeen,
)
from memory_store.vocabulary import (
    HELD,
    Event,
    EventKind,
    Fact,
    FactState,
    LearnerState,
    Learning,
    RetentionPoint,
    Step,
)

# How much of the past is kept.
EVENTS, STEPS, ALARMS, FIGURES, FACTS = 300, 200, 50, 120, 1000
POINTS = 10
# Rates in and out are over this time, or over what is known so far, but at least the second.
WINDOW, SHORTEST_WINDOW = timedelta(minutes=5), timedelta(seconds=10)
# How long an alarm is shown.
ALARM_FOR = timedelta(minutes=15)

ENDS = {
    EventKind.LEARNED: FactState.LEARNED,
    EventKind.KNOWN: FactState.KNOWN,
    EventKind.RESISTED: FactState.RESISTED,
    EventKind.QUARANTINED: FactState.QUARANTINED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The current or the last attempt to learn a fact.

    Attributes:
        fact_id: of the fact.
        began_at: when it was claimed, or first observed.
        tries: how often it began; a second try is gentler.
        steps: the observed steps of this try.
        taken: number of steps of this try, including those before the monitor connected.
        opening: findings before the first step; None before that.
        learning: findings at the end.
        verdict: how it ended; None while it is in progress.
        reason: why it ended badly.
        ended_at: when it ended.
    """

    fact_id: str
    began_at: datetime
    tries: int = 1
    steps: tuple[Step, ...] = ()
    taken: int = 0
    opening: Learning | None = None
    learning: Learning | None = None
    verdict: EventKind | None = None
    reason: str = ""
    ended_at: datetime | None = None

    @property
    def refused(self) -> bool:
        """Whether the weights were put back, so that nothing of it is served."""
        return self.verdict in (EventKind.RESISTED, EventKind.RETRIED, EventKind.QUARANTINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that an operator should know."""

    at: datetime
    name: str
    text: str
    fact_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that the monitor knows.

    Attributes:
        address: of the server.
        connected: whether it answers; None before the first answer.
        connected_at: since when it answers.
        lost: why and since when it does not answer.
        connections: number of connections so far.
        status: its last status.
        sequence: of the last stored event that is included.
        since: time of the first one.
        facts: by id, the newest ones and those that events were about.
        facts_at: by id, the sequence of the last event that the fact is known to reflect.
        attempt: the current or the last one.
        events: the newest ones, oldest first, without steps.
        alarms: the newest ones, oldest first.
        ages: of the held facts to show, in updates, by id, in the order of acceptance.
        points: their last probes, newest first.
        accepted: number of accepted facts by second.
        settled: number of settled facts by second.
        leaks: the largest one of each of the last updates, oldest first.
        drifts: likewise.
        detail: the history of the selected fact.
        refused: the last refusal of a request from the keyboard.
    """

    address: str = ""
    connected: bool | None = None
    connected_at: datetime | None = None
    lost: Lost | None = None
    connections: int = 0
    status: Status | None = None
    sequence: int = 0
    since: datetime | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    facts_at: Mapping[str, int] = field(default_factory=dict)
    attempt: Attempt | None = None
    events: tuple[Event, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    ages: Mapping[str, int] = field(default_factory=dict)
    points: Mapping[str, tuple[RetentionPoint, ...]] = field(default_factory=dict)
    accepted: tuple[tuple[int, int], ...] = ()
    settled: tuple[tuple[int, int], ...] = ()
    leaks: tuple[float, ...] = ()
    drifts: tuple[float, ...] = ()
    detail: DetailSeen | None = None
    refused: Refused | None = None


def fold(state: State, seen: Observation) -> State:
    """Returns the state after one more observation."""
    match seen:
        case Connected():
            return _connected(state, seen)
        case Lost():
            return _lost(state, seen)
        case StatusSeen():
            return replace(state, status=seen.status)
        case EventSeen():
            return _event(state, seen.event)
        case FactsSeen():
            return _with_facts(_only(state, seen.facts) if seen.whole else state, seen)
        case RetentionSeen():
            return _retention(state, seen)
        case DetailSeen():
            facts = FactsSeen(at=seen.at, facts=(seen.fact,), sequence=seen.sequence)
            return replace(_with_facts(state, facts), detail=seen)
        case Refused():
            return replace(state, refused=seen)


def standing_alarms(state: State) -> list[tuple[str, str]]:
    """Returns name and text of each problem that exists now."""
    status, found = state.status, []
    if state.connected is False:
        reason = state.lost.reason if state.lost else ""
        found.append(("no server", f"trying again. {reason}"))
    if status is None:
        return found
    if status.learner is LearnerState.DOWN:
        found.append(("learner down", status.learner_message or "it is being started again"))
    if status.snapshot_overdue:
        found.append(("snapshot late", status.snapshot_overdue))
    if status.clean_up_problem:
        found.append(("clean-up failed", status.clean_up_problem))
    return found


def recent_alarms(state: State, now: datetime) -> list[Alarm]:
    """Returns recent problems, newest first."""
    return [alarm for alarm in reversed(state.alarms) if now - alarm.at < ALARM_FOR]


def per_second(state: State, counted: Sequence[tuple[int, int]], now: datetime) -> float:
    """Returns the rate over the last minutes of `counted`, one of the counts of the state."""
    if state.since is None:
        return 0.0
    window = min(WINDOW, max(now - state.since, SHORTEST_WINDOW))
    first = (now - window).timestamp()
    return sum(count for second, count in counted if second >= first) / window.total_seconds()


def probability(state: State, fact_id: str) -> float | None:
    """Returns a held fact's probability at its last probe or attempt; None for other facts."""
    fact = state.facts.get(fact_id)
    if fact is not None and fact.state not in HELD:
        return None
    if points := state.points.get(fact_id):
        return points[0].probability
    return fact.learning.probability_after if fact and fact.learning else None


def _connected(state: State, seen: Connected) -> State:
    if seen.after_sequence < state.sequence or not state.sequence:
        # Its events begin before those that are known, so it may be another memory.
        state = State(connections=state.connections)
    return replace(
        state,
        address=seen.address,
        connected=True,
        connected_at=seen.at,
        connections=state.connections + 1,
        sequence=seen.after_sequence,
    )


def _lost(state: State, seen: Lost) -> State:
    """Keeps the time at which the server was first missed, whatever the reason is now."""
    since = state.lost.at if state.connected is False and state.lost else seen.at
    return replace(state, connected=False, lost=replace(seen, at=since))


def _event(state: State, event: Event) -> State:
    if event.kind is EventKind.STEP:
        return replace(state, attempt=_stepped(state.attempt, event))
    if event.sequence:
        if event.sequence <= state.sequence:
            return state  # known from before the connection was lost
        state = replace(state, sequence=event.sequence, since=state.since or event.at)
    state = replace(
        state, events=(*state.events, event)[-EVENTS:], attempt=_attempted(state.attempt, event)
    )
    if event.sequence > state.facts_at.get(event.fact_id, 0):  # else the fact was read after it
        state = replace(
            state,
            facts=_updated(state.facts, event),
            facts_at={**state.facts_at, event.fact_id: event.sequence}
            if event.fact_id in state.facts
            else state.facts_at,
        )
    if event.kind is EventKind.ACCEPTED:
        state = replace(state, accepted=_counted(state.accepted, event.at))
    if event.kind in ENDS:
        state = replace(state, settled=_counted(state.settled, event.at))
    if (alarm := _alarm(event)) is not None:
        state = replace(state, alarms=(*state.alarms, alarm)[-ALARMS:])
    if event.learning is not None:
        state = replace(
            state,
            leaks=_figures(state.leaks, event.learning.leak),
            drifts=_figures(state.drifts, event.learning.drift),
        )
    return state


def _stepped(attempt: Attempt | None, event: Event) -> Attempt:
    assert event.step is not None
    if attempt is None or attempt.fact_id != event.fact_id or attempt.verdict is not None:
        # A review reports nothing before its first step.
        attempt = Attempt(fact_id=event.fact_id, began_at=event.at)
    # The number also counts steps that were not observed.
    number = event.step_number or (1 if event.learning else attempt.taken + 1)
    if event.learning is not None or number <= attempt.taken:
        tries = attempt.tries + bool(attempt.taken)
        attempt = replace(attempt, opening=event.learning, tries=tries, steps=())
    return replace(attempt, steps=(*attempt.steps, event.step)[-STEPS:], taken=number)


def _attempted(attempt: Attempt | None, event: Event) -> Attempt | None:
    """Returns the attempt to show after an event."""
    if event.kind is EventKind.LEARNER_READY and attempt and attempt.verdict is None:
        return None  # the learner died, and the fact will be claimed again
    if event.kind is EventKind.LEARNING:
        return Attempt(fact_id=event.fact_id, began_at=event.at)
    if event.kind not in (*ENDS, EventKind.RETAUGHT, EventKind.RETRIED):
        return attempt
    if attempt is None or attempt.fact_id != event.fact_id:
        attempt = Attempt(fact_id=event.fact_id, began_at=event.at)
    taken = attempt.taken
    if event.learning is not None and event.kind is not EventKind.RESISTED:
        taken = len(event.learning.learning_rates)  # a resisted one has those of its first try
    return replace(
        attempt,
        taken=taken,
        learning=event.learning,
        verdict=event.kind,
        reason=event.message,
        ended_at=event.at,
    )


def _updated(facts: Mapping[str, Fact], event: Event) -> Mapping[str, Fact]:
    """Returns the facts after an event, which may have changed one of them."""
    fact = facts.get(event.fact_id)
    if fact is None:
        return facts
    if event.kind is EventKind.RETAUGHT:
        changed = replace(fact, learning=event.learning, updated_at=event.at)
    elif event.kind in ENDS:
        changed = replace(
            fact,
            state=ENDS[event.kind],
            learning=event.learning or fact.learning,
            reason=event.message,
            updated_at=event.at,
        )
    elif event.kind in (EventKind.LEARNING, EventKind.SUPERSEDED, EventKind.FORGOTTEN):
        changed = replace(fact, state=FactState(event.kind.value), updated_at=event.at)
    elif event.kind in (EventKind.RETRIED, EventKind.REQUEUED):
        changed = replace(fact, state=FactState.QUEUED, updated_at=event.at)
    else:
        return facts
    return {**facts, fact.id: changed}


def _alarm(event: Event) -> Alarm | None:
    match event.kind:
        case EventKind.RESISTED:
            refusal = event.learning.refusal if event.learning else None
            guard = refusal is not None and refusal.by_guard
            name = "guard failed" if guard else "resisted"
        case EventKind.QUARANTINED:
            name = "quarantined"
        case EventKind.LEARNER_DOWN:
            name = "learner down"
        case EventKind.OPERATION_FAILED:
            name = "operation failed"
        case _:
            return None
    return Alarm(at=event.at, name=name, text=event.message, fact_id=event.fact_id)


def _with_facts(state: State, seen: FactsSeen) -> State:
    """Adds facts that were read; drops the oldest if there are too many.

    An event may be newer than a fact that was read. Sequences decide, not times: the clock may have
    been set back.
    """
    newer = {
        fact.id: fact for fact in seen.facts if state.facts_at.get(fact.id, 0) <= seen.sequence
    }
    state = replace(
        state,
        facts={**state.facts, **newer},
        facts_at={**state.facts_at, **dict.fromkeys(newer, seen.sequence)},
    )
    if len(state.facts) <= FACTS:
        return state
    return _only(state, sorted(state.facts.values(), key=lambda fact: fact.accepted_at)[-FACTS:])


def _only(state: State, facts: Sequence[Fact]) -> State:
    """Drops all other facts."""
    known = [fact.id for fact in facts if fact.id in state.facts]
    return replace(
        state,
        facts={id_: state.facts[id_] for id_ in known},
        facts_at={id_: state.facts_at[id_] for id_ in known},
    )


def unseen(
    points: Sequence[RetentionPoint], known: Sequence[RetentionPoint]
) -> tuple[RetentionPoint, ...]:
    """Returns the points before the first known one, newest first. Clocks do not matter."""
    return tuple(takewhile(lambda point: point not in known, points))


def _retention(state: State, seen: RetentionSeen) -> State:
    points = {}
    for fact_id in seen.ages:
        known = () if seen.whole else state.points.get(fact_id, ())
        new = seen.points.get(fact_id, ())
        if known:  # a new connection reports all of them again, newest first
            new = unseen(new, known)
        points[fact_id] = (*new, *known)[:POINTS]
    return replace(state, ages=seen.ages, points=points)


def _counted(counted: tuple[tuple[int, int], ...], at: datetime) -> tuple[tuple[int, int], ...]:
    second, first = int(at.timestamp()), (at - WINDOW).timestamp()
    kept = tuple(one for one in counted if one[0] > first)
    if kept and kept[-1][0] == second:
        return (*kept[:-1], (second, kept[-1][1] + 1))
    return (*kept, (second, 1))


def _figures(figures: tuple[float, ...], newest: float | None) -> tuple[float, ...]:
    return figures if newest is None else (*figures, newest)[-FIGURES:]
