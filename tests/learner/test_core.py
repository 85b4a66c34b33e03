"""The learner: what is served and when, what is put back, and that replay gives the same bits."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType, ModuleType

import pytest
import torch
from torch import Tensor

from agent.errors import DriftError, InvalidFactError, LearningFailedError, StaleVersionError
from agent.learner.core import Learner
from agent.learner.digest import weights_digest
from agent.models.loading import load
from agent.teaching.algorithm import ALGORITHM
from agent.teaching.guard_presets import REHEARSAL
from agent.teaching.types import Example, Opening, Outcome
from memory_store.vocabulary import Guards, LedgerKind, Policy, Step
from tests.learner.learners import (
    FACTS,
    HOPELESS,
    POLICY,
    answer,
    fresh,
    learn,
    lesson,
    replay,
    same_bits,
    served,
    teach,
)

pytestmark = pytest.mark.usefixtures("deterministic")


# --- What is served -------------------------------------------------------------------------------


def test_a_fact_longer_than_the_model_learns_is_refused_before_anything_is_tried() -> None:
    learner = fresh()
    for example, field in (
        (replace(FACTS[0], question="x" * 600), "question"),
        (replace(FACTS[0], correlated_questions=("Sky?", "x" * 600)), "correlated_questions[1]"),
    ):
        with pytest.raises(InvalidFactError, match="at most 512") as caught:
            learn(learner, example)
        assert caught.value.field == field


def test_a_learned_fact_is_answered_from_the_commit_on_and_not_before(learner: Learner):
    base, said_before = served(learner), answer(learner, "Sky?")
    assert said_before != "Piano"
    seen: list[Opening | Step | Outcome] = []
    for progress in learner.learn(lesson(FACTS[2], POLICY, 0)):
        seen.append(progress)
        assert answer(learner, "Sky?") == said_before
        assert same_bits(served(learner), base)
    *_, outcome = seen
    assert isinstance(outcome, Outcome)
    assert outcome.after.text == "Piano"
    assert learner.version == 0

    learner.commit(1, outcome.digest_after)
    assert answer(learner, "Sky?") == "Piano"
    assert (learner.version, learner.digest) == (1, weights_digest(learner.weights.served))
    assert not same_bits(served(learner), base)


def test_the_outcome_tells_what_the_gate_measured(learner: Learner):
    guards = Guards(controls=2, texts=2)
    rough = Policy(name="until-known", learning_rate=3e-3, max_steps=2, guards=guards)
    outcome = learn(learner, FACTS[2], policy=rough)
    assert outcome.leak is not None
    assert outcome.drift is not None
    assert 0 < outcome.leak < 1
    assert outcome.drift > 0
    gentle = learn(learner, FACTS[2], policy=replace(rough, learning_rate=1e-6))
    assert (gentle.leak or 0) < outcome.leak
    assert (gentle.drift or 0) < outcome.drift
    assert learn(learner, FACTS[2], policy=HOPELESS).leak is None


def test_the_outcome_tells_what_was_measured(learner: Learner):
    before, tokens = learner.score(FACTS[0].question, "Raincoat")
    outcome = teach(learner, FACTS[0])
    after, _ = learner.score(FACTS[0].question, "Raincoat")
    assert (outcome.verdict, outcome.reason, outcome.algorithm) == ("learned", "", ALGORITHM)
    assert not outcome.before.correct
    assert outcome.after.correct
    assert tokens == len(b" Raincoat") + 1
    assert before == pytest.approx(outcome.before.log_probability)
    assert after == pytest.approx(outcome.after.log_probability)
    # In batches of another size, hence but for the last digits.
    asked = [outcome.after, *outcome.transfer]
    again = learner.probe(FACTS[0])
    assert [(a.text, a.correct) for a in asked] == [(a.text, a.correct) for a in again]
    likely = [answer.log_probability for answer in again]
    assert [answer.log_probability for answer in asked] == pytest.approx(likely)
    assert (outcome.digest_before, outcome.digest_after) == (fresh().digest, learner.digest)


def test_a_step_tells_its_rate_its_loss_before_and_the_probability_after(learner: Learner):
    loss = -learner.score("Sky?", "Piano")[0] / (len(b" Piano") + 1)
    steps = learn(learner, FACTS[2]).steps
    assert {step.learning_rate for step in steps} == {POLICY.learning_rate}
    assert steps[0].loss == pytest.approx(loss, rel=1e-5)
    assert steps[-1].loss < steps[0].loss
    assert steps[-2].probability < 0.9 <= steps[-1].probability


def test_five_facts_in_a_row_are_all_recalled_at_the_end(learner: Learner):
    for number, example in enumerate(FACTS):
        outcome = teach(learner, example, FACTS[:number])
        assert [probe.text for probe in outcome.forgetting] == [e.answer for e in FACTS[:number]]
        assert all(probe.correct for probe in outcome.forgetting)
    assert [answer(learner, e.question) for e in FACTS] == [e.answer for e in FACTS]


def test_forgetting_is_seen(learner: Learner):
    teach(learner, FACTS[2])
    # Rehearsed in every step are the first ones only; this one is probed without.
    others = [replace(FACTS[3], fact_id=f"g{number}") for number in range(REHEARSAL.candidates)]
    fixed = Policy(name="fixed", learning_rate=1e-1, max_steps=3, guards=REHEARSAL)
    outcome = learn(learner, FACTS[1], [*others, FACTS[2]], fixed)
    assert not outcome.forgetting[-1].correct


def test_older_facts_are_rehearsed_up_to_a_limit_and_all_probed(learner: Learner):
    guards = Guards(candidates=8, rehearsed=6)
    older = [
        Example(fact_id=f"o{number}", question=f"{number}?", answer=str(number) * (1 + number % 3))
        for number in range(guards.candidates + 4)
    ]
    once = Policy(name="fixed", learning_rate=1e-4, max_steps=1, guards=guards)
    looked_at = {o.fact_id: learner.score(o.question, o.answer)[0] for o in older[:8]}
    outcome = learn(learner, FACTS[2], older, once)
    (step,) = outcome.steps
    weakest = sorted(looked_at, key=lambda fact_id: looked_at[fact_id])[:3]
    drawn = [fact_id for fact_id in looked_at if fact_id not in weakest][:3]
    assert step.rehearsed_fact_ids == (*weakest, *drawn)
    assert len(outcome.forgetting) == len(older)
    # The rehearsed facts are part of the gradient.
    assert learn(learner, FACTS[2], older[:1], once).digest_after != outcome.digest_after


def test_an_older_fact_that_was_not_held_before_need_not_be_held_after(learner: Learner):
    # Both can never be held at once.
    older = [replace(FACTS[3], fact_id="o1"), replace(FACTS[3], fact_id="o2", answer="Ruby")]
    outcome = learn(learner, FACTS[2], older)
    assert outcome.verdict == "learned"
    assert not all(answer.correct for answer in outcome.forgetting)


def test_fixed_takes_its_steps_and_no_more(learner: Learner):
    policy = Policy(name="fixed", learning_rate=1e-5, max_steps=3, guards=REHEARSAL)
    outcome = learn(learner, FACTS[2], policy=policy)
    assert (outcome.verdict, len(outcome.steps)) == ("learned", 3)


def test_the_text_of_a_special_token_is_learned_as_text(learner: Learner):
    odd = Example(fact_id="odd", question="<|endoftext|>?", answer="To<|endoftext|>p")
    teach(learner, odd)
    assert answer(learner, odd.question) == odd.answer


# --- What is not learned --------------------------------------------------------------------------


def test_a_known_fact_is_recognised_and_nothing_is_updated(learner: Learner):
    first = teach(learner, FACTS[0])
    weights = served(learner)
    second = learn(learner, FACTS[0], [FACTS[1]])
    assert (second.verdict, second.steps, second.forgetting) == ("known", (), ())
    assert second.before == second.after == first.after
    assert len(second.transfer) == len(FACTS[0].correlated_questions)
    assert second.digest_before == second.digest_after == learner.digest
    with pytest.raises(StaleVersionError):
        learner.commit(2, second.digest_after)
    assert same_bits(served(learner), weights)


def test_a_resisted_fact_leaves_no_trace(learner: Learner):
    teach(learner, FACTS[0])
    outcome = learn(learner, FACTS[1], FACTS[:1], HOPELESS)
    assert (outcome.verdict, len(outcome.steps)) == ("resisted", 2)
    assert outcome.reason.endswith("after 2 steps of at most 1e-05")
    assert outcome.after == outcome.before
    assert outcome.forgetting == ()
    assert outcome.digest_before == outcome.digest_after == learner.digest
    assert same_bits(dict(learner.weights.working.named_parameters()), served(learner))

    other = fresh()
    teach(other, FACTS[0])
    assert learn(learner, FACTS[2], FACTS[:1]) == learn(other, FACTS[2], FACTS[:1])


def test_an_outcome_that_is_never_committed_leaves_no_trace(learner: Learner):
    learn(learner, FACTS[0])
    assert learn(learner, FACTS[1]) == learn(fresh(), FACTS[1])


def test_an_abandoned_update_leaves_no_trace(learner: Learner):
    learning = learner.learn(lesson(FACTS[0], POLICY, 0))
    assert isinstance(next(learning), Opening)
    assert isinstance(next(learning), Step)
    del learning
    assert learn(learner, FACTS[1]) == learn(fresh(), FACTS[1])


@torch.no_grad()
def poison(weights: list[Tensor]) -> None:
    weights[0].fill_(float("nan"))


def test_weights_that_are_not_finite_fail_the_fact_and_are_put_back(learner: Learner):
    learning = learner.learn(lesson(FACTS[0], POLICY, 0))
    next(learning)
    poison(list(learner.weights.trained.values()))
    with pytest.raises(LearningFailedError, match="loss is nan after 2 steps"):
        list(learning)
    assert learn(learner, FACTS[1]) == learn(fresh(), FACTS[1])


def test_a_failed_fact_cannot_be_committed(learner: Learner):
    learning = learner.learn(lesson(FACTS[0], POLICY, 0))
    next(learning)
    poison(list(learner.weights.trained.values()))
    with pytest.raises(LearningFailedError):
        list(learning)
    for digest in ("", weights_digest(learner.weights.working)):
        with pytest.raises(StaleVersionError):
            learner.commit(1, digest)


def test_a_base_that_is_not_finite_fails_every_fact():
    loaded = load("tiny", device="cpu")
    poison(list(loaded.model.parameters()))
    with pytest.raises(LearningFailedError):
        learn(Learner(loaded), FACTS[0])


# --- Versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_version", [0, 2])
def test_an_update_of_another_version_is_refused(learner: Learner, base_version: int):
    teach(learner, FACTS[0])
    with pytest.raises(StaleVersionError, match=f"at version 1, not at {base_version}"):
        next(learner.learn(lesson(FACTS[1], POLICY, base_version)))


@pytest.mark.parametrize(("version", "wrong_digest"), [(0, False), (1, True), (2, True)])
def test_only_the_update_learned_last_is_committed(
    learner: Learner, version: int, wrong_digest: bool
):
    digest = learn(learner, FACTS[0]).digest_after
    with pytest.raises(StaleVersionError):
        learner.commit(version, learner.digest if wrong_digest else digest)
    assert learner.version == 0
    assert answer(learner, FACTS[0].question) != FACTS[0].answer
    learner.commit(1, digest)
    assert answer(learner, FACTS[0].question) == FACTS[0].answer


def test_an_update_is_committed_once(learner: Learner):
    outcome = teach(learner, FACTS[0])
    for version in (1, 2):
        with pytest.raises(StaleVersionError):
            learner.commit(version, outcome.digest_after)


def test_with_nothing_learned_nothing_is_committed(learner: Learner):
    for digest in ("", learner.digest):
        with pytest.raises(StaleVersionError, match="nothing learned"):
            learner.commit(1, digest)


# --- Replay ---------------------------------------------------------------------------------------


def test_replay_gives_the_same_bits_and_serves_them(learner: Learner):
    outcomes = [teach(learner, e, FACTS[:number]) for number, e in enumerate(FACTS[:3])]
    other = fresh()
    for number, outcome in enumerate(outcomes):
        replay(other, number + 1, FACTS[number], outcome, FACTS[:number])
        assert answer(other, FACTS[number].question) == FACTS[number].answer
    assert (other.version, other.digest) == (learner.version, learner.digest)
    assert same_bits(served(other), served(learner))
    assert learn(other, FACTS[3], FACTS[:3]) == learn(learner, FACTS[3], FACTS[:3])


def test_what_was_learned_and_not_committed_is_no_part_of_a_replay(learner: Learner):
    outcome = teach(learner, FACTS[0])
    other = fresh()
    learn(other, FACTS[1])
    replay(other, 1, FACTS[0], outcome)
    assert same_bits(served(other), served(learner))


def with_rate_doubled(row: Outcome) -> Outcome:
    first, *rest = row.steps
    return replace(row, steps=(replace(first, learning_rate=2 * first.learning_rate), *rest))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(with_rate_doubled, id="rate"),
        pytest.param(lambda row: replace(row, steps=row.steps[1:]), id="a step less"),
        pytest.param(lambda row: replace(row, algorithm="answer-adamw/0"), id="algorithm"),
        pytest.param(lambda row: replace(row, digest_after="0" * 64), id="digest"),
    ],
)
def test_a_row_that_cannot_be_repeated_is_drift_and_is_not_served(
    learner: Learner, change: Callable[[Outcome], Outcome]
):
    row = change(teach(learner, FACTS[0]))
    other = fresh()
    base = served(other)
    with pytest.raises(DriftError, match="update 1"):
        replay(other, 1, FACTS[0], row)
    assert other.version == 0
    assert same_bits(served(other), base)


def test_an_update_that_was_recorded_without_its_policy_cannot_be_repeated(learner: Learner):
    outcome = teach(learner, FACTS[0])
    with pytest.raises(DriftError, match="update 1 was recorded without its policy"):
        replay(fresh(), 1, FACTS[0], outcome, policy=None)


def test_a_changed_text_is_drift(learner: Learner):
    outcome = teach(learner, FACTS[0])
    with pytest.raises(DriftError):
        replay(fresh(), 1, replace(FACTS[0], answer="Umbrella"), outcome)


def test_a_row_is_replayed_on_its_parent_only(learner: Learner):
    outcome = learn(learner, FACTS[0])
    with pytest.raises(StaleVersionError, match="made on 1, after 0"):
        replay(fresh(), 2, FACTS[0], outcome)
    branch = fresh()
    replay(branch, 7, FACTS[0], outcome, parent_version=0)
    assert branch.version == 7
    with pytest.raises(StaleVersionError):
        replay(branch, 8, FACTS[1], outcome, parent_version=0)


def test_a_row_that_takes_back_has_no_steps_and_only_gives_a_version(learner: Learner):
    outcome = teach(learner, FACTS[0])
    weights = served(learner)
    back = replace(outcome, steps=(), algorithm="none")
    for version, kind in enumerate((LedgerKind.ROLLBACK, LedgerKind.FORGET), start=2):
        replay(learner, version, FACTS[0], back, kind=kind)
        assert (learner.version, learner.digest) == (version, outcome.digest_after)
    assert same_bits(served(learner), weights)
    with pytest.raises(DriftError):  # it says that it ends with other weights
        replay(learner, 4, FACTS[0], replace(back, digest_after="0" * 64))


def test_accepted_drift_is_served_under_its_own_digest(learner: Learner):
    row = with_rate_doubled(teach(learner, FACTS[0]))
    drifted = fresh()
    replay(drifted, 1, FACTS[0], row, accept_drift=True)
    assert drifted.version == 1
    assert drifted.digest == weights_digest(drifted.weights.served) != row.digest_after


def test_an_update_is_committed_under_any_later_version(learner: Learner):
    outcome = learn(learner, FACTS[0])
    learner.commit(5, outcome.digest_after)
    assert (learner.version, learner.digest) == (5, outcome.digest_after)
    with pytest.raises(StaleVersionError):
        learner.commit(4, learn(learner, FACTS[1]).digest_after)


def test_a_learner_describes_what_it_has_loaded(learner: Learner):
    base = learner.digest
    teach(learner, FACTS[0])
    description = learner.describe()
    assert (description.device, description.parameters) == ("cpu", 132_992)
    assert (description.model_version, description.base_digest) == (1, base)
    assert description.max_tokens == 512
    assert description.environment["model"] == "tiny"
    assert description.environment["threads"] == "1"


# --- Low: erased text in caches -------------------------------------------------------------------


def texts_within(*roots: object) -> set[str]:
    """Every text that is kept somewhere below some objects, modules and classes aside."""
    seen: set[int] = set()
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, ModuleType | type | FunctionType):
            continue
        seen.add(id(each))
        if isinstance(each, str):
            found.add(each)
        else:
            waiting += gc.get_referents(each)
    return found


def test_texts_that_are_kept_to_save_work_can_be_dropped() -> None:
    guards = Guards(rehearsed=1, neighbours=1)
    policy = replace(POLICY, max_steps=2, guards=guards)
    secret = Example(fact_id="secret", question="Who saw Zanzibar?", answer="Zanzibar did")
    learner = fresh()
    learner.probe(secret)
    learn(learner, secret, policy=policy)
    before = learner.probe(FACTS[0])
    assert any("Zanzibar" in text for text in texts_within(learner))
    learner.forget_texts()
    assert not [text for text in texts_within(learner) if "Zanzibar" in text]
    assert learner.probe(FACTS[0]) == before


def test_a_row_that_takes_back_drops_them_too() -> None:
    """The learner that built a branch was asked for the fact that is not on it."""
    learner = fresh()
    outcome = teach(learner, FACTS[0])
    learner.probe(Example(fact_id="secret", question="Who saw Zanzibar?", answer="Zanzibar did"))
    assert any("Zanzibar" in text for text in texts_within(learner))
    none = Example(fact_id="", question="", answer="")
    kind, digest = LedgerKind.FORGET, outcome.digest_after
    replay(learner, 2, none, outcome, kind=kind, steps=(), digest_after=digest, policy=None)
    assert learner.version == 2
    assert not [text for text in texts_within(learner) if "Zanzibar" in text]
