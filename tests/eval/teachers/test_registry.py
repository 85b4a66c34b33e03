"""Every teacher by its name, and the one protocol that they share."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import ConfigError
from agent.learner.inference.probes import probe
from agent.models.loading import LoadedModel
from agent.teaching.consolidation import ConsolidationSettings
from agent.teaching.guard_presets import REHEARSAL
from eval.teachers.registry import TEACHERS, make_teacher
from memory_store.vocabulary import Policy
from tests.eval.teachers.conftest import FACTS

SHORT: dict[str, dict[str, Any]] = {
    "ours": {
        "policy": Policy(name="fixed", learning_rate=1e-3, max_steps=1, guards=REHEARSAL),
    },
    "ours-unreviewed": {
        "policy": Policy(name="fixed", learning_rate=1e-3, max_steps=1, guards=REHEARSAL),
    },
    "consolidated": {"settings": ConsolidationSettings(epochs=1, ordinary=2, texts=2)},
    "paper": {"learning_rate": 1e-3},
    "until-known": {"max_steps": 1},
    "rehearsal": {"max_steps": 1},
    "lora": {"max_steps": 1},
    "locft": {"epochs": 1},
    "retrieval": {},
}


def test_the_names_are_those_of_the_command_line():
    assert list(TEACHERS) == list(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_each_teaches_in_order_and_is_asked_as_all_others(loaded: LoadedModel, name: str):
    teacher = make_teacher(name, loaded, **SHORT[name])
    results = list(teacher.teach(FACTS[:2]))

    assert teacher.name == name
    assert teacher.sees_all == (name in ("locft", "consolidated"))
    assert [result.fact_id for result in results] == ["a", "b"]
    assert all(len(result.learning_rates) == (name != "retrieval") for result in results)
    pairs = [(fact.question, fact.answer) for fact in FACTS]
    asked = probe(teacher.model, teacher.encoder, pairs, always_generate=True)
    assert teacher.probe(pairs) == asked
    # The last one's answer is that of the weights as they are now.
    assert teacher.probe(pairs[1:2]) == [results[1].answer]


def test_an_unknown_name_is_answered_with_the_known_ones(loaded: LoadedModel):
    known = "use one of ours, ours-unreviewed, consolidated"
    with pytest.raises(ConfigError, match=f"unknown teacher 'dreams': {known}"):
        make_teacher("dreams", loaded)
