"""Attempts: the paper's step, searched rates, older facts that are lost, and gentler retries."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.errors import DriftError, LearningFailedError
from agent.learner.core import Learner
from agent.learner.training import guards
from agent.learner.training.attempt import needs_base_answers
from agent.learner.training.base_answers import BaseAnswers
from agent.learner.training.guards import rehearsed_of
from agent.learner.training.rate_sweep import rate_profile
from agent.learner.training.update import trained_parameters
from agent.models import catalog
from agent.models.loading import load
from agent.teaching.guard_presets import FULL, LEAK_PROBABILITY, NONE, REHEARSAL
from agent.teaching.rates import (
    GENTLER,
    GRID,
    HELD_PROBABILITY,
    KNOWN_PROBABILITY,
    smallest_reaching,
)
from agent.teaching.types import Example, Opening, Outcome, Violation
from memory_store.vocabulary import Guards, Policy, Refusal, Step
from tests.learner.learners import (
    FACTS,
    HOPELESS,
    POLICY,
    fresh,
    learn,
    lesson,
    replay,
    same_bits,
    served,
    steps_of,
    teach,
)

pytestmark = pytest.mark.usefixtures("deterministic")

RATE = POLICY.learning_rate
ALL_GUARDS = Guards(candidates=4, rehearsed=2, neighbours=4, controls=2, texts=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "cache_folder", lambda: tmp_path / "cache")


def working(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.weights.working.named_parameters()}


# --- The paper's way ------------------------------------------------------------------------------


def papers_way(rate: float, steps: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights after it, and the loss before each step, by torch's own means."""
    loaded = load("tiny", device="cpu")
    model: Any = loaded.model.requires_grad_(True)
    ids = torch.tensor([loaded.tokenizer("Q: Sky? A: Piano").input_ids])
    losses = []
    for _ in range(steps):
        model.zero_grad()
        trained = trained_parameters(model).values()
        optimizer = torch.optim.AdamW(trained, lr=rate, eps=1e-8, weight_decay=0)
        loss = model(input_ids=ids, labels=ids).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}, losses


def test_paper_is_one_step_of_adamw_on_the_papers_text(learner: Learner):
    rate, before = 1e-4, served(learner)
    outcome = learn(learner, FACTS[2], policy=Policy(name="paper", learning_rate=rate, max_steps=1))
    assert (outcome.verdict, len(outcome.steps)) == ("learned", 1)
    expected, losses = papers_way(rate, 1)
    assert outcome.steps[0].loss == pytest.approx(losses[0], rel=1e-5)
    after = working(learner)
    for name, weights in before.items():
        # Each weight moves by the rate or not at all; only gradients near eps leave a doubt.
        moves, expected_moves = after[name] - weights, expected[name] - weights
        near = torch.isclose(moves, expected_moves, rtol=0, atol=0.02 * rate)
        assert near.float().mean() > 0.995, name


def test_each_step_of_the_paper_begins_anew(learner: Learner):
    outcome = learn(learner, FACTS[2], policy=Policy(name="paper", learning_rate=1e-4, max_steps=4))
    _, losses = papers_way(1e-4, 4)
    assert [step.loss for step in outcome.steps] == pytest.approx(losses, rel=1e-4)


def test_paper_takes_no_regard_of_older_facts(learner: Learner):
    policy = Policy(name="paper", learning_rate=1e-2, max_steps=1, guards=NONE)
    alone = learn(learner, FACTS[2], policy=policy)
    beside = learn(learner, FACTS[2], FACTS[3:], policy)
    assert beside.digest_after == alone.digest_after
    assert len(beside.forgetting) == len(FACTS[3:])  # but they are probed


# --- Searched rates -------------------------------------------------------------------------------

SEARCH = Policy(name="search", learning_rate=5e-3, max_steps=40, guards=REHEARSAL)


def test_a_search_keeps_the_curve_of_its_first_step_and_chooses_by_it(learner: Learner):
    outcome = learn(learner, FACTS[2], policy=SEARCH)
    assert outcome.verdict == "learned"
    assert tuple(point.learning_rate for point in outcome.curve) == GRID == tuple(sorted(GRID))
    chosen = smallest_reaching(outcome.curve, KNOWN_PROBABILITY, SEARCH.learning_rate)
    assert outcome.steps[0].learning_rate == chosen
    # What the step led to is what the curve said.
    (foretold,) = [p.probability for p in outcome.curve if p.learning_rate == chosen]
    assert outcome.steps[0].probability == pytest.approx(foretold, rel=1e-3)

    other = fresh()
    lesson = other.workbench.lesson(FACTS[2], SEARCH, [])
    directions = other.workbench.measure(lesson).directions()
    named = dict(zip(other.workbench.trained, directions, strict=True))
    runner = other.workbench.runner
    assert tuple(rate_profile(other.weights.working, lesson, named, runner)) == outcome.curve


def test_no_searched_rate_is_larger_than_allowed(learner: Learner):
    policy = replace(SEARCH, learning_rate=1e-3)
    outcome = learn(learner, FACTS[2], policy=policy)
    assert max(step.learning_rate for step in outcome.steps) <= 1e-3
    assert len(outcome.curve) == len(GRID)  # larger rates are shown all the same


def test_a_search_is_replayed_bit_by_bit(learner: Learner):
    outcomes = [teach(learner, FACTS[n], FACTS[:n], SEARCH) for n in range(3)]
    other = fresh()
    for number, outcome in enumerate(outcomes):
        rows = FACTS[:number]
        replay(other, number + 1, FACTS[number], outcome, rows, policy=SEARCH)
    assert same_bits(served(other), served(learner))


@pytest.mark.parametrize("name", ["fixed", "paper", "until-known"])
def test_without_a_search_there_is_no_curve(learner: Learner, name: str):
    policy = Policy(name=name, learning_rate=RATE, max_steps=2, guards=REHEARSAL)
    assert learn(learner, FACTS[2], policy=policy).curve == ()


# --- Older facts that are lost --------------------------------------------------------------------

WATCHING = replace(POLICY, guards=Guards(candidates=4))  # looked at, not learned along


def held(learner: Learner, example: Example) -> bool:
    return math.exp(learner.score(example.question, example.answer)[0]) >= HELD_PROBABILITY


def lost_by_steps(learner: Learner, example: Example, older: Example) -> int:
    """Steps in which a fact is known and the older one lost, if nobody looks at it."""
    outcome = learn(learner, example, [older], replace(POLICY, guards=NONE))
    assert outcome.verdict == "learned"
    assert math.exp(outcome.forgetting[0].log_probability) < HELD_PROBABILITY
    return len(outcome.steps)


def test_an_older_fact_that_is_lost_is_rehearsed_from_then_on(learner: Learner):
    teach(learner, FACTS[2])
    assert held(learner, FACTS[2])
    alone = lost_by_steps(learner, FACTS[3], FACTS[2])

    outcome = teach(learner, FACTS[3], [FACTS[2]], WATCHING)
    rehearsed = [step.rehearsed_fact_ids for step in outcome.steps]
    assert outcome.verdict == "learned"
    assert rehearsed[:alone] == [()] * alone
    assert set(rehearsed[alone:]) == {(FACTS[2].fact_id,)}
    assert outcome.forgetting[0].correct
    assert held(learner, FACTS[2])
    assert held(learner, FACTS[3])


def test_that_too_is_replayed_bit_by_bit(learner: Learner):
    first = teach(learner, FACTS[2])
    second = teach(learner, FACTS[3], [FACTS[2]], WATCHING)
    assert len({step.rehearsed_fact_ids for step in second.steps}) == 2
    other = fresh()
    replay(other, 1, FACTS[2], first)
    replay(other, 2, FACTS[3], second, [FACTS[2]], policy=WATCHING)
    assert same_bits(served(other), served(learner))


def test_a_fact_that_would_cost_an_older_one_resists(learner: Learner):
    teach(learner, FACTS[2])
    before = served(learner)
    # Known with the last step that is allowed: none is left to bring the older one back.
    policy = replace(WATCHING, max_steps=lost_by_steps(learner, FACTS[3], FACTS[2]))
    outcome = learn(learner, FACTS[3], [FACTS[2]], policy)
    assert (outcome.verdict, outcome.reason) == ("resisted", "f2 would be lost for it")
    assert outcome.refusal is Refusal.FACT_LOST
    assert outcome.digest_after == outcome.digest_before == learner.digest
    assert outcome.forgetting == ()
    assert same_bits(working(learner), before)
    assert same_bits(served(learner), before)


def test_an_older_fact_that_is_not_looked_at_may_be_lost(learner: Learner):
    teach(learner, FACTS[2])
    far_away = [replace(FACTS[4], fact_id=f"o{number}", answer=str(number)) for number in range(4)]
    outcome = learn(learner, FACTS[3], [*far_away, FACTS[2]], WATCHING)
    assert outcome.verdict == "learned"
    assert not outcome.forgetting[-1].correct


def test_the_weakest_of_the_candidates_are_rehearsed(learner: Learner):
    teach(learner, FACTS[2])
    older = [FACTS[2], FACTS[3], FACTS[4], FACTS[1]]  # the first one is the strongest by far
    policy = replace(POLICY, name="fixed", max_steps=1, guards=Guards(candidates=3, rehearsed=2))
    (step,) = learn(learner, FACTS[0], older, policy).steps
    strengths = [math.exp(learner.score(o.question, o.answer)[0]) for o in older[:3]]
    expected = rehearsed_of(older[:3], strengths, 2)
    assert step.rehearsed_fact_ids == tuple(o.fact_id for o in expected)
    assert step.rehearsed_fact_ids[1] == FACTS[2].fact_id


# --- Gentler retries ------------------------------------------------------------------------------


A_LEAK = Violation(Refusal.LEAK, "a leak")


class Gate:
    """In place of the real one, whose limits `tiny` violates at will or never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.violation: Violation | None = A_LEAK
        monkeypatch.setattr(guards, "gate", lambda measured: self.violation)


def is_gentler(step: Step) -> bool:
    """The first rate of the second attempt; no repair of the first one has it."""
    return step.learning_rate == pytest.approx(RATE * GENTLER)


def test_a_fact_that_breaks_the_gate_is_tried_once_more_from_the_same_weights(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
):
    policy = replace(POLICY, max_steps=30)
    # What the gentler attempt alone would have done.
    gentle = replace(policy, learning_rate=RATE * GENTLER)
    expected = learn(fresh(), FACTS[2], policy=gentle)
    assert expected.verdict == "learned"

    gate = Gate(monkeypatch)
    openings: list[Opening] = []
    steps: list[Step] = []
    outcome: Outcome | None = None
    for progress in learner.learn(lesson(FACTS[2], policy, 0)):
        if isinstance(progress, Outcome):
            outcome = progress
            continue
        if isinstance(progress, Opening):
            openings.append(progress)
            continue
        if is_gentler(progress):
            gate.violation = None
        steps.append(progress)
    assert outcome is not None
    assert outcome == expected
    assert not any(is_gentler(step) for step in steps[:30])
    assert tuple(steps[30:]) == outcome.steps
    assert openings == [Opening(before=outcome.before)] * 2  # one an attempt
    learner.commit(1, outcome.digest_after)

    # The ledger keeps the policy as it was asked for, and replays it all the same.
    other = fresh()
    replay(other, 1, FACTS[2], outcome, policy=policy)
    assert same_bits(served(other), served(learner))


def test_a_fact_that_breaks_the_gate_twice_resists_with_what_was_asked_for(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
):
    Gate(monkeypatch)
    before = served(learner)
    *told, outcome = learner.learn(lesson(FACTS[2], replace(POLICY, max_steps=20), 0))
    steps = steps_of(told)
    assert isinstance(outcome, Outcome)
    assert (outcome.verdict, outcome.reason) == ("resisted", "a leak after 20 steps")
    assert outcome.refusal is Refusal.LEAK
    assert len(steps) == 40
    assert tuple(steps[:20]) == outcome.steps
    assert outcome.after == outcome.before
    assert same_bits(working(learner), before)


@pytest.mark.parametrize("violation", [None, A_LEAK])
def test_a_fact_that_merely_stayed_unknown_is_not_tried_again(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, violation: Violation | None
):
    Gate(monkeypatch).violation = violation
    before = served(learner)
    *told, outcome = learner.learn(lesson(FACTS[2], HOPELESS, 0))
    steps = steps_of(told)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict == "resisted"
    assert outcome.reason.startswith("probability 0.0")
    assert outcome.refusal is Refusal.NOT_LEARNED
    assert tuple(steps) == outcome.steps
    assert [step.learning_rate for step in outcome.steps] == [HOPELESS.learning_rate] * 2
    assert same_bits(working(learner), before)


def test_a_leak_into_controls_is_what_breaks_the_real_gate(learner: Learner):
    # One form is all that `tiny` learns: whoever is asked about, it gives the answer.
    policy = replace(POLICY, max_steps=50, guards=Guards(controls=4))
    before = served(learner)
    *told, outcome = learner.learn(lesson(FACTS[0], policy, 0))
    steps = steps_of(told)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict == "resisted"
    assert outcome.reason.startswith("a question never taught would get its answer")
    assert outcome.reason.endswith("after 50 steps")
    assert outcome.leak is not None
    assert outcome.leak > LEAK_PROBABILITY
    assert outcome.drift is None  # held to no text
    assert len(steps) == 100
    assert same_bits(working(learner), before)


def test_fixed_steps_that_are_not_gated_pass_no_gate(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
):
    Gate(monkeypatch)
    outcome = learn(learner, FACTS[2], policy=replace(POLICY, name="fixed", max_steps=2))
    assert (outcome.verdict, len(outcome.steps)) == ("learned", 2)


# M5: one Teach with policy `fixed` and a rate of 0.1 destroyed every fact, and was "learned".
DESTRUCTIVE = {
    "fixed": ("fixed", NONE),
    "fixed, with guards": ("fixed", ALL_GUARDS),
    "paper": ("paper", NONE),
    "until-known": ("until-known", NONE),
    "until-known, rehearsing": ("until-known", REHEARSAL),
}


@pytest.mark.parametrize(("name", "own"), DESTRUCTIVE.values(), ids=DESTRUCTIVE)
def test_no_gated_policy_destroys_what_was_there(learner: Learner, name: str, own: Guards):
    policy = Policy(name=name, learning_rate=0.1, max_steps=2, guards=own, gated=True)
    before = served(learner)
    try:
        *_, outcome = learner.learn(lesson(FACTS[2], policy, 0))
    except LearningFailedError:
        pass  # the loss is not finite: nothing is served either
    else:
        assert isinstance(outcome, Outcome)
        assert outcome.verdict == "resisted"
    assert same_bits(served(learner), before)


def test_a_gate_of_its_own_judges_what_the_lesson_does_not_show(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
):  # M5
    gate = Gate(monkeypatch)
    policy = Policy(name="paper", learning_rate=1e-5, max_steps=2, guards=NONE, gated=True)
    refused = learn(learner, FACTS[2], policy=policy)
    assert (refused.verdict, refused.reason) == ("resisted", "a leak after 2 steps")
    assert refused.digest_after == refused.digest_before
    gate.violation = None
    passed = learn(learner, FACTS[2], policy=policy)
    assert passed.verdict == "learned"
    assert passed.leak is not None
    assert passed.drift is not None
    ungated = learn(learner, FACTS[2], policy=replace(policy, gated=False))
    assert ungated.digest_after == passed.digest_after  # the gate changes no update


@pytest.mark.parametrize("name", ["fixed", "paper"])
def test_a_gated_policy_loses_no_older_fact(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, name: str
):  # M5
    Gate(monkeypatch).violation = None
    teach(learner, FACTS[2])
    policy = Policy(name=name, learning_rate=RATE, max_steps=30, guards=NONE, gated=True)
    outcome = learn(learner, FACTS[3], [FACTS[2]], policy)
    assert (outcome.verdict, outcome.reason) == ("resisted", "f2 would be lost for it")
    assert outcome.refusal is Refusal.FACT_LOST
    ungated = learn(learner, FACTS[3], [FACTS[2]], replace(policy, gated=False))
    assert ungated.verdict == "learned"


# --- What guards are built on ---------------------------------------------------------------------

GUARDED = Policy(name="fixed", learning_rate=1e-3, max_steps=3, guards=ALL_GUARDS)


class Counting:
    """Notes the questions that the base model is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions: list[str] = []
        alone = BaseAnswers._alone

        def noted(answers: BaseAnswers, question: str, limit: int) -> str:
            self.questions.append(question)
            return alone(answers, question, limit)

        monkeypatch.setattr(BaseAnswers, "_alone", noted)


def test_a_base_answer_is_asked_once_and_one_that_is_given_never(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
):
    asked = Counting(monkeypatch)
    first = learn(learner, FACTS[0], FACTS[1:3], GUARDED)
    assert first.base_answer is not None
    assert sorted(asked.questions) == sorted(fact.question for fact in FACTS[:3])
    again = learn(learner, FACTS[0], FACTS[1:3], GUARDED)
    assert len(asked.questions) == 3

    given = learner._base_answers.complete(FACTS[:3], GUARDED)
    given_outcome = learn(fresh(), given[0], given[1:], GUARDED)
    assert len(asked.questions) == 3
    assert given_outcome == again == first


def test_the_base_answer_is_that_of_the_base_model_whatever_was_taught(learner: Learner):
    base = learn(learner, FACTS[0], policy=GUARDED).base_answer
    first = fresh()
    teach(first, FACTS[0])
    known = learn(first, FACTS[0], policy=GUARDED)
    assert known.verdict == "known"
    assert known.base_answer == base != "Raincoat"


def test_a_given_base_answer_is_part_of_the_update(learner: Learner):
    some, other = (
        learn(learner, replace(FACTS[0], base_answer=said), policy=GUARDED)
        for said in ("July", "Nobody knows")
    )
    assert (some.base_answer, other.base_answer) == ("July", "Nobody knows")
    assert some.digest_after != other.digest_after


@pytest.mark.parametrize("guards_", [None, NONE, REHEARSAL, Guards(controls=4, texts=1)])
def test_where_nothing_is_built_on_it_the_base_model_is_not_asked(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, guards_: Guards | None
):
    asked = Counting(monkeypatch)
    assert not needs_base_answers(guards_)
    assert needs_base_answers(FULL)
    outcome = learn(learner, FACTS[0], policy=replace(GUARDED, guards=guards_))
    assert (outcome.base_answer, asked.questions) == (None, [])


@pytest.mark.parametrize(
    "switched_off",
    [{"neighbours": 0}, {"texts": 0}, {"rehearsed": 0}],
    ids=lambda changed: next(iter(changed)),
)
def test_each_guard_is_part_of_the_update(learner: Learner, switched_off: dict[str, int]):
    whole = learn(learner, FACTS[0], FACTS[1:3], GUARDED)
    less = replace(GUARDED, guards=replace(ALL_GUARDS, **switched_off))
    assert learn(learner, FACTS[0], FACTS[1:3], less).digest_after != whole.digest_after


def test_guards_hold_the_update_to_the_base_model(learner: Learner):
    asked = learn(learner, FACTS[0], policy=GUARDED)
    example = replace(FACTS[0], base_answer=asked.base_answer)
    moved = []
    for numbers in (ALL_GUARDS, replace(ALL_GUARDS, neighbours=0, texts=0)):
        other = fresh()
        learn(other, example, policy=replace(GUARDED, max_steps=8, guards=numbers))
        # Judged by one lesson, whatever each was taught by.
        measured = other.workbench.measure(learner.workbench.lesson(example, GUARDED, []))
        moved.append(sum(sum(values) for values in measured.divergences.values()))
    assert moved[0] < moved[1] / 2


def test_the_base_model_never_changes(learner: Learner):
    before = {name: p.detach().clone() for name, p in learner.weights.base.named_parameters()}
    teach(learner, FACTS[0])
    learn(learner, FACTS[1], FACTS[:1], GUARDED)
    assert same_bits(dict(learner.weights.base.named_parameters()), before)


# --- Replay under every guard ---------------------------------------------------------------------


@pytest.mark.parametrize("given", [True, False], ids=["base answers given", "asked again"])
def test_updates_under_every_guard_are_replayed_bit_by_bit(learner: Learner, given: bool):
    outcomes = [teach(learner, FACTS[n], FACTS[:n], GUARDED) for n in range(4)]
    assert len(outcomes[3].steps[0].rehearsed_fact_ids) == 2
    said = [outcome.base_answer for outcome in outcomes]
    facts = [
        replace(fact, base_answer=answer if given else None)
        for fact, answer in zip(FACTS, said, strict=False)
    ]
    other = fresh()
    for number, outcome in enumerate(outcomes):
        replay(other, number + 1, facts[number], outcome, facts[:number], policy=GUARDED)
    assert (other.version, other.digest) == (4, learner.digest)
    assert same_bits(served(other), served(learner))
    # And what comes next is the same too.
    assert learn(other, FACTS[4], FACTS[:4], GUARDED) == learn(
        learner, FACTS[4], FACTS[:4], GUARDED
    )


def test_other_guards_than_recorded_are_drift(learner: Learner):
    outcome = teach(learner, FACTS[0], policy=GUARDED)
    other_guards = replace(GUARDED, guards=replace(ALL_GUARDS, neighbours=3))
    with pytest.raises(DriftError, match="update 1 came out different"):
        replay(fresh(), 1, FACTS[0], outcome, policy=other_guards)
