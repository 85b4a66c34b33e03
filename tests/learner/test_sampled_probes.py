"""Counts of sampled texts after an update: what is counted, and that nothing else is changed."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from agent.errors import ModelError
from agent.learner import core as learner_module
from agent.learner.core import Learner
from agent.learner.sampling.sampler import Cell, Sampler
from agent.teaching.types import Example
from tests.learner.learners import (
    FACTS,
    HOPELESS,
    fresh,
    learn,
    same_bits,
    sampled,
    served,
    teach,
)

pytestmark = pytest.mark.usefixtures("deterministic")

# So short that random bytes say it often.
SHORT = Example(fact_id="short", question="Sky?", answer="a", correlated_questions=("Gem?", "Ba?"))


def test_the_fact_and_its_correlated_questions_are_counted(learner: Learner) -> None:
    outcome = learn(learner, SHORT)
    found, units = sampled(learner, outcome, SHORT, samples=40)
    answers = [found.after, *found.transfer]
    assert [answer.samples for answer in answers] == [40, 40, 40]
    # It was taught in another form than it is asked here; but the last question says it itself.
    assert 0 < answers[1].correct_samples < 40 == answers[2].correct_samples
    assert units > 40  # a question that comes meanwhile waits for a token, not for all samples
    # Nothing else of the outcome is touched.
    plain = [replace(answer, samples=0, correct_samples=0) for answer in answers]
    assert replace(found, after=plain[0], transfer=tuple(plain[1:])) == outcome


def test_counts_are_those_of_the_new_weights_and_come_again(learner: Learner) -> None:
    found, _ = sampled(learner, learn(learner, SHORT), SHORT, samples=30)
    again, _ = sampled(learner, learn(learner, SHORT), SHORT, samples=30)
    assert again == found
    loaded = learner._loaded
    here = Sampler(learner.weights.working, loaded.tokenizer, eos=loaded.eos_token_id)
    [count] = here.sample([Cell(prompt="Gem?", answer="a", samples=30, key="short 0 1")])
    assert found.transfer[0].correct_samples == count.correct


def test_what_follows_is_the_same_with_and_without(learner: Learner) -> None:
    other = fresh()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for fact in (SHORT, FACTS[1]):
        found, _ = sampled(learner, learn(learner, fact), fact, samples=8)
        assert found.after.samples == 8
        learner.commit(learner.version + 1, found.digest_after)
        teach(other, fact)
    assert same_bits(served(learner), served(other))
    assert learner.digest == other.digest
    assert torch.equal(torch.get_rng_state(), before)


def test_without_an_update_there_are_no_samples(learner: Learner) -> None:
    outcome = learn(learner, FACTS[1], policy=HOPELESS)
    assert sampled(learner, outcome, FACTS[1], samples=8) == (outcome, 0)


def test_a_question_without_room_for_an_answer_has_none(learner: Learner) -> None:
    long = replace(SHORT, correlated_questions=("What is it that " + "never " * 10 + "ends?",))
    found, _ = sampled(learner, learn(learner, long), long, samples=8)
    assert [answer.samples for answer in (found.after, *found.transfer)] == [8, 0]


def test_a_model_that_cannot_be_sampled_from_learns_all_the_same(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing:
        def __init__(self, *_: object, **__: object) -> None:
            raise ModelError("no keys and values")

    monkeypatch.setattr(learner_module, "Sampler", Refusing)
    outcome = learn(learner, SHORT)
    with caplog.at_level(logging.WARNING):
        assert sampled(learner, outcome, SHORT, samples=8) == (outcome, 0)
    assert "short is not sampled: no keys and values" in caplog.text
