"""Pauses in the middle of long work: how often they come, and that they change nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from agent.learner.core import Learner
from agent.learner.engine.preemption import layers_of, pause_between_layers
from agent.models.loading import load
from agent.models.tiny import build_tiny
from tests.learner.learners import FACTS, answer, fresh, same_bits, served, teach

pytestmark = pytest.mark.usefixtures("deterministic")


def test_each_layer_is_a_pause_forwards_and_backwards():
    model: Any = build_tiny()[0]
    assert len(layers_of(model)) == 2
    pauses: list[str] = []
    pause_between_layers(model, lambda: pauses.append(direction))
    direction = "forwards"
    loss = model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum()
    direction = "backwards"
    loss.backward()
    assert pauses == ["forwards"] * 2 + ["backwards"] * 2


def test_answers_given_in_the_pauses_leave_an_update_the_same_bit_by_bit():
    def pause() -> None:
        if next(pauses) % 5 == 0:
            said.append(next(iter(paused.ask("Sky?", 4))))

    pauses = itertools.count(1)
    said: list[object] = []
    plain = fresh()
    paused = Learner(load("tiny", device="cpu"), pause)
    before = next(iter(plain.ask("Sky?", 4)))
    outcomes = [teach(learner, FACTS[2]) for learner in (plain, paused)]
    assert outcomes[0] == outcomes[1]
    assert same_bits(served(plain), served(paused))
    # Questions are answered by what is served, until the commit.
    assert len(said) > 10
    assert set(said) == {before}
    assert answer(paused, "Sky?") == "Piano"


def test_a_probe_pauses_between_tokens():
    pauses: list[None] = []
    learner = Learner(load("tiny", device="cpu"), lambda: pauses.append(None))
    learner.probe(FACTS[0])
    assert pauses
