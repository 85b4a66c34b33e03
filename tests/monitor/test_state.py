"""Folding: what the monitor makes of each observation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.monitor import detail, panes
from agent.monitor.observations import Connected, FactsSeen, RetentionSeen, StatusSeen
from agent.monitor.state import (
    EVENTS,
    FACTS,
    POINTS,
    State,
    fold,
    per_second,
    probability,
    recent_alarms,
    standing_alarms,
)
from agent.monitor.ui import Ui
from agent.monitor.view import frame
from memory_store.vocabulary import EventKind, FactState, LearnerState
from tests.monitor.session import (
    at,
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


def screen(state: State) -> str:
    return frame(state, Ui(), look()).plain()


def test_an_attempt_grows_step_by_step_and_ends_with_its_event() -> None:
    state = folded([event(1, EventKind.LEARNING, "f1"), step(2, "f1", 0.3, opening())])
    assert state.attempt is not None
    assert (state.attempt.fact_id, state.attempt.began_at) == ("f1", at(1))
    assert state.attempt.opening == opening()
    state = folded([step(3, "f1", 0.9)], state)
    assert state.attempt is not None
    assert [step.probability for step in state.attempt.steps] == [0.3, 0.9]
    assert state.attempt.verdict is None
    assert state.events == (state.events[0],)  # steps are no events of their own
    state = folded([event(4, EventKind.LEARNED, "f1", learning=learning())], state)
    assert state.attempt is not None
    assert (state.attempt.verdict, state.attempt.ended_at) == (EventKind.LEARNED, at(4))
    assert state.attempt.learning == learning()


def test_a_second_gentler_try_begins_with_no_steps() -> None:
    told = [step(1, "f1", 0.3, opening()), step(2, "f1", 0.9), step(3, "f1", 0.1, opening())]
    attempt = folded(told).attempt
    assert attempt is not None
    assert (attempt.tries, [step.probability for step in attempt.steps]) == (2, [0.1])


def test_steps_are_counted_from_the_first_one_whenever_the_monitor_comes() -> None:
    came_late = folded([event(1, EventKind.LEARNING, "f1"), step(9, "f1", 0.4, number=7)])
    assert came_late.attempt is not None
    assert (came_late.attempt.taken, came_late.attempt.began_at) == (7, at(1))
    assert "step 7 " in screen(came_late)
    attempt = folded([step(10, "f1", 0.5, number=10)], came_late).attempt  # two were missed
    assert attempt is not None
    assert (attempt.taken, attempt.tries, len(attempt.steps)) == (10, 1, 2)
    # A gentler try has begun, and its first step was missed.
    attempt = folded([step(11, "f1", 0.2, number=2)], came_late).attempt
    assert attempt is not None
    assert (attempt.taken, attempt.tries, len(attempt.steps)) == (2, 2, 1)
    end = event(12, EventKind.LEARNED, "f1", learning=learning(learning_rates=(1e-4,) * 12))
    attempt = folded([end], came_late).attempt
    assert attempt is not None
    assert attempt.taken == 12


@pytest.mark.parametrize("kind", [EventKind.RESISTED, EventKind.RETRIED, EventKind.QUARANTINED])
def test_an_update_that_was_refused_is_not_drawn_as_a_success(kind: EventKind) -> None:
    first = replace(opening(), curve=())
    steps = [step(1, "f1", 0.3, first, 1), step(2, "f1", 0.98, number=2)]
    found = None
    if kind is EventKind.RESISTED:
        found = learning(probability_after=0.01, answer_after="the coldest one", curve=())
    state = folded([*steps, event(3, kind, "f1", learning=found, message="it leaks")])
    lines = panes.attempt(state, look(), 60, 12)
    [drawn] = [line for line in lines if line[0][0].startswith("p 0.01")]
    assert drawn[-1] == (" 0.01", "bold red")  # where the weights are again
    assert drawn[1][1] == "red"
    assert not any("green" in style for line in lines for _, style in line)


def test_leak_and_drift_of_a_refused_update_say_so() -> None:
    end = event(3, EventKind.RESISTED, "f1", learning=learning(leak=0.9), message="it leaks")
    state = folded([StatusSeen(at=at(0), status=status()), end])
    text = [["".join(span for span, _ in line)] for line in panes.guards(state, look(), 60)]
    assert [", refused" in line for [line] in text] == [True, True]
    learned = folded([event(4, EventKind.LEARNED, "f2", learning=learning())], state)
    text = [["".join(span for span, _ in line)] for line in panes.guards(learned, look(), 60)]
    assert [", refused" in line for [line] in text] == [False, False]


def test_facts_that_were_rolled_back_are_not_shown_as_learned() -> None:
    known = FactsSeen(at=at(5), facts=(fact(1), fact(2), fact(3)))
    held = RetentionSeen(at=at(5), ages={"f2": 0}, points={"f2": (point(2, 0.99),)})
    state = folded([known, held])
    assert probability(state, "f2") == 0.99
    undone = replace(fact(2), state=FactState.FORGOTTEN, updated_at=at(8), learning=learning())
    state = folded(
        [
            event(8, EventKind.ROLLED_BACK),
            FactsSeen(at=at(9), facts=(fact(1), undone), whole=True),
            RetentionSeen(at=at(9), ages={"f1": 0}, points={"f1": (point(1, 0.7),)}, whole=True),
        ],
        state,
    )
    assert state.facts == {"f1": fact(1), "f2": undone}  # nothing is known of f3 any more
    assert probability(state, "f2") is None
    assert probability(state, "f1") == 0.7
    assert "undone since" in "".join(
        text for line in detail.fact_lines(undone, look(), 60, 20) for text, _ in line
    )


def test_after_weights_were_undone_all_probes_are_told_anew() -> None:
    held = RetentionSeen(at=at(5), ages={"f1": 3}, points={"f1": (point(4, 0.99), point(1, 0.7))})
    anew = RetentionSeen(at=at(9), ages={"f1": 0}, points={"f1": (point(1, 0.7),)}, whole=True)
    assert folded([held, anew]).points == {"f1": (point(1, 0.7),)}


def test_what_is_known_of_a_fact_never_goes_back_in_time() -> None:
    # When a monitor comes, past events are told while facts are read as they are now.
    now = replace(fact(1), state=FactState.FORGOTTEN, updated_at=at(9))
    past = [event(3, EventKind.LEARNING, "f1"), event(4, EventKind.LEARNED, "f1")]
    assert folded([FactsSeen(at=at(10), facts=(now,), sequence=9), *past]).facts["f1"] is now
    # And a fact that was read before an event may be told after it.
    learned = folded([FactsSeen(at=at(1), facts=(fact(1, FactState.QUEUED),)), *past])
    read = replace(fact(1, FactState.LEARNING), updated_at=at(3))
    for whole in (False, True):
        state = folded([FactsSeen(at=at(4), facts=(read,), whole=whole, sequence=3)], learned)
        assert state.facts["f1"].state is FactState.LEARNED


def test_facts_move_on_although_the_clock_was_set_back() -> None:
    """Events and facts are in the order of sequences: times of later ones may be earlier."""
    queued = replace(fact(1, FactState.QUEUED), updated_at=at(1000))
    known = folded([FactsSeen(at=at(1000), facts=(queued,), sequence=2)])
    learned = folded([event(3, EventKind.LEARNED, "f1", learning=learning())], known)
    assert learned.facts["f1"].state is FactState.LEARNED
    undone = replace(queued, state=FactState.FORGOTTEN, updated_at=at(0))
    state = folded([FactsSeen(at=at(5), facts=(undone,), sequence=4)], learned)
    assert state.facts["f1"] is undone


def test_a_review_is_shown_from_its_first_step_on() -> None:
    learned = [event(1, EventKind.LEARNED, "f1", learning=learning())]
    attempt = folded([*learned, step(2, "f1", 0.7, opening())]).attempt
    assert attempt is not None
    assert (attempt.began_at, attempt.verdict, len(attempt.steps)) == (at(2), None, 1)
    state = folded([*learned, event(2, EventKind.RETAUGHT, "f0", learning=learning())])
    assert state.attempt is not None
    assert (state.attempt.fact_id, state.attempt.verdict) == ("f0", EventKind.RETAUGHT)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (EventKind.LEARNING, FactState.LEARNING),
        (EventKind.LEARNED, FactState.LEARNED),
        (EventKind.KNOWN, FactState.KNOWN),
        (EventKind.RESISTED, FactState.RESISTED),
        (EventKind.RETRIED, FactState.QUEUED),
        (EventKind.REQUEUED, FactState.QUEUED),
        (EventKind.QUARANTINED, FactState.QUARANTINED),
        (EventKind.SUPERSEDED, FactState.SUPERSEDED),
        (EventKind.FORGOTTEN, FactState.FORGOTTEN),
        (EventKind.RETAUGHT, FactState.LEARNED),
    ],
)
def test_events_move_facts_on(kind: EventKind, state: FactState) -> None:
    before = FactState.LEARNED if kind is EventKind.RETAUGHT else FactState.QUEUED
    queued = FactsSeen(at=at(0), facts=(fact(1, before),))
    assert folded([queued, event(1, kind, "f1")]).facts["f1"].state is state


def test_what_was_seen_before_the_connection_was_lost_is_not_counted_twice() -> None:
    state = folded(eventful())
    again = Connected(at=at(30), address="a", after_sequence=state.sequence)
    twice = folded([gone(), again, event(12, EventKind.QUARANTINED, "f4")], state)
    assert (twice.events, twice.alarms) == (state.events, state.alarms)
    assert (twice.connections, twice.connected) == (2, True)


def test_another_memory_at_the_same_address_begins_anew() -> None:
    state = folded([*eventful(), Connected(at=at(30), address="a", after_sequence=2)])
    assert (state.facts, state.events, state.attempt) == ({}, (), None)
    assert (state.connections, state.sequence) == (2, 2)
    # No event of the first one had come yet: nothing tells that it was the same.
    first = Connected(at=at(0), address="a", after_sequence=0)
    seen = FactsSeen(at=at(1), facts=(fact(1),))
    assert folded([first, seen, gone(), replace(first, at=at(30))]).facts == {}


def test_rates_are_of_the_last_minutes() -> None:
    state = folded(event(n, EventKind.ACCEPTED, f"f{n}") for n in range(1, 31))
    assert per_second(state, state.accepted, at(3)) == 30 / 10  # of no shorter time
    assert per_second(state, state.accepted, at(31)) == 30 / 30
    assert per_second(state, state.accepted, at(316)) == 15 / 300
    assert per_second(state, state.accepted, at(999)) == 0
    assert per_second(state, state.settled, at(31)) == 0
    state = folded([event(1, EventKind.ACCEPTED, "f1"), event(400, EventKind.ACCEPTED, "f2")])
    assert len(state.accepted) == 1  # what is older is given up
    state = folded(eventful())
    assert per_second(state, state.settled, at(21)) == 4 / 20
    assert per_second(State(), (), at(0)) == 0


def test_alarms_tell_guards_from_facts_that_stayed_unknown() -> None:
    unknown = "probability 0.120 after 24 steps of at most 0.0001"
    state = folded([*eventful(), event(17, EventKind.RESISTED, "f6", message=unknown)])
    assert [(a.name, a.fact_id) for a in recent_alarms(state, at(20))] == [
        ("resisted", "f6"),
        ("quarantined", "f4"),
        ("guard failed", "f3"),
    ]
    assert recent_alarms(state, at(3600)) == []


def test_what_is_wrong_now_is_an_alarm_until_it_is_right() -> None:
    state = folded(eventful())
    assert standing_alarms(state) == []
    late = status(snapshot_overdue="the disk is full", learner=LearnerState.DOWN)
    state = fold(state, StatusSeen(at=at(21), status=late))
    assert [name for name, _ in standing_alarms(state)] == ["learner down", "snapshot late"]
    [first, *_] = standing_alarms(fold(state, gone()))
    assert first[0] == "no server"
    assert standing_alarms(fold(state, StatusSeen(at=at(22), status=status()))) == []


def test_new_probes_come_before_the_known_ones_and_only_once() -> None:
    first = RetentionSeen(at=at(5), ages={"f1": 1}, points={"f1": (point(2, 0.9), point(1, 0.8))})
    again = RetentionSeen(at=at(6), ages={"f1": 2}, points={"f1": (point(3, 0.4), point(2, 0.9))})
    state = folded([first, again])
    assert [p.probability for p in state.points["f1"]] == [0.4, 0.9, 0.8]
    assert (state.ages, probability(state, "f1")) == ({"f1": 2}, 0.4)
    many = RetentionSeen(
        at=at(99), ages={"f1": 3}, points={"f1": tuple(point(n, 0.5) for n in range(40, 20, -1))}
    )
    assert len(fold(state, many).points["f1"]) == POINTS
    assert fold(state, RetentionSeen(at=at(99), ages={}, points={})).points == {}


def test_a_probe_after_the_clock_was_set_back_is_new() -> None:
    """M6: it was taken for one that had been seen."""
    first = RetentionSeen(at=at(5), ages={"f1": 1}, points={"f1": (point(9, 0.9),)})
    later = replace(point(10, 0.4), probed_at=point(1, 0.4).probed_at)
    again = RetentionSeen(at=at(6), ages={"f1": 2}, points={"f1": (later, point(9, 0.9))})
    assert [p.probability for p in folded([first, again]).points["f1"]] == [0.4, 0.9]


def test_leak_and_drift_are_kept_where_they_were_measured() -> None:
    state = folded(eventful())
    assert state.leaks == (0.05, 0.45)
    assert state.drifts == (0.2, 0.2, 0.2)


def test_memory_is_bounded() -> None:
    state = folded(event(n, EventKind.ACCEPTED, f"f{n}") for n in range(1, EVENTS + 50))
    assert len(state.events) == EVENTS
    many = tuple(fact(number) for number in range(FACTS + 10))
    kept = fold(State(), FactsSeen(at=at(0), facts=many)).facts
    assert len(kept) == FACTS
    assert "f9" not in kept  # the oldest went


def test_the_state_of_before_is_left_as_it_was() -> None:
    state = folded(eventful())
    copy = replace(state)
    fold(state, event(20, EventKind.LEARNED, "f5", learning=learning()))
    assert state == copy


def test_a_server_is_gone_since_it_was_missed_first() -> None:
    later = replace(gone(), at=at(40), reason="refused")
    lost = folded([*eventful(), gone(), later]).lost
    assert lost is not None
    assert (lost.at, lost.reason) == (gone().at, "refused")
    again = Connected(at=at(41), address="a", after_sequence=14)
    lost = folded([*eventful(), gone(), again, later]).lost
    assert lost == later


def test_what_a_learner_died_over_is_not_shown_as_being_learned() -> None:
    state = folded(eventful())
    assert state.attempt is not None
    assert folded([event(17, EventKind.LEARNER_READY)], state).attempt is None
    done = folded([event(17, EventKind.LEARNED, "f5", learning=learning())], state)
    assert folded([event(18, EventKind.LEARNER_READY)], done).attempt == done.attempt
