"""Baselines that train every weight: `paper`, `until-known`, `rehearsal`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agent.models.loading import LoadedModel
from agent.teaching.types import Example
from eval.teachers.paper import Paper
from eval.teachers.rehearsal import Rehearsal
from eval.teachers.until_known import UntilKnown
from tests.eval.teachers.conftest import FACTS, differing

RATE = 3e-3


def step_of_the_paper(model: Any, tokenizer: Any, text: str) -> None:
    """The update as the paper's scripts do it: padded to 128, masked, clipped, a fresh AdamW."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    padding = 128 - len(ids)
    loss = model(
        input_ids=torch.tensor([ids + [tokenizer.eos_token_id] * padding]),
        attention_mask=torch.tensor([[1] * len(ids) + [0] * padding]),
        labels=torch.tensor([ids + [-100] * padding]),
    ).loss
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def test_the_papers_step_is_that_of_its_scripts(loaded: LoadedModel):
    expected = copy.deepcopy(loaded.model)
    teacher = Paper(loaded, learning_rate=RATE)

    for taught, fact in zip(teacher.teach(FACTS[:2]), FACTS, strict=False):
        step_of_the_paper(expected, loaded.tokenizer, f"Q: {fact.question} A: {fact.answer}")

        assert (taught.fact_id, taught.verdict) == (fact.fact_id, "learned")
        assert taught.learning_rates == (RATE,)
    ours, theirs = (
        nn.utils.parameters_to_vector(m.parameters()) for m in (teacher.model, expected)
    )
    difference = (ours - theirs).abs()
    assert difference.median() < RATE * 1e-3
    # Where a gradient is as small as eps, its last bits decide the size of the step.
    assert (difference > RATE * 1e-2).float().mean() < 1e-3


def test_facts_are_taught_until_they_are_known(loaded: LoadedModel):
    teacher = UntilKnown(loaded, learning_rate=RATE, max_steps=60)
    results = list(teacher.teach(FACTS[:2]))

    assert [result.fact_id for result in results] == ["a", "b"]
    for result in results:
        assert result.verdict == "learned"
        assert result.answer.correct
        assert math.exp(result.answer.log_probability) >= 0.9
        assert 1 <= len(result.learning_rates) <= 60
        assert set(result.learning_rates) == {RATE}
        assert result.seconds > 0


def test_a_known_fact_changes_nothing(
    loaded: LoadedModel, weights_now: Callable[[], dict[str, Tensor]]
):
    teacher = UntilKnown(loaded, learning_rate=RATE, max_steps=60)
    list(teacher.teach(FACTS[:1]))
    before = weights_now()

    (again,) = teacher.teach(FACTS[:1])

    assert (again.verdict, again.learning_rates) == ("known", ())
    assert not differing(before, weights_now())


def test_what_is_not_known_in_time_resists_and_its_steps_stay(
    loaded: LoadedModel, weights_now: Callable[[], dict[str, Tensor]]
):
    before = weights_now()
    teacher = UntilKnown(loaded, learning_rate=1e-5, max_steps=2)

    (result,) = teacher.teach(FACTS[:1])

    assert (result.verdict, result.learning_rates) == ("resisted", (1e-5, 1e-5))
    assert differing(before, weights_now())


@pytest.mark.parametrize("make", [Paper, UntilKnown])
def test_weights_that_are_not_finite_fail_without_a_step(
    loaded: LoadedModel, make: Callable[[LoadedModel], Any]
):
    teacher = make(loaded)
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(math.nan)

    (result,) = teacher.teach(FACTS[:1])

    assert (result.verdict, result.learning_rates) == ("failed", ())


def test_rehearsal_keeps_what_plain_fine_tuning_loses(loaded: LoadedModel):
    plain = UntilKnown(
        LoadedModel(**{**_fields(loaded), "model": copy.deepcopy(loaded.model)}),
        learning_rate=1e-3,
        max_steps=60,
    )
    rehearsing = Rehearsal(loaded, learning_rate=1e-3, max_steps=60)
    pairs = [(fact.question, fact.answer) for fact in FACTS]

    for teacher in (plain, rehearsing):
        list(teacher.teach(FACTS))

    lost = [answer.log_probability for answer in plain.probe(pairs)[:-1]]
    kept = [answer.log_probability for answer in rehearsing.probe(pairs)[:-1]]
    assert sum(kept) > sum(lost) + 5


def test_an_older_answer_to_the_same_question_is_not_rehearsed(loaded: LoadedModel):
    teacher = Rehearsal(loaded, learning_rate=RATE, max_steps=60)
    question = FACTS[0].question
    list(teacher.teach(FACTS[:1]))

    (result,) = teacher.teach([Example(fact_id="d", question=question, answer="Towel")])

    assert (result.verdict, result.answer.text) == ("learned", "Towel")


def _fields(loaded: LoadedModel) -> dict[str, Any]:
    return {name: getattr(loaded, name) for name in LoadedModel.__dataclass_fields__}
