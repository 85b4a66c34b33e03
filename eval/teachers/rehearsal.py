"""Fine-tuning until known, with older facts in every step and no other guard."""

from __future__ import annotations

import random

from agent.models.loading import LoadedModel
from agent.teaching.types import Example
from eval.teachers.base import Turn
from eval.teachers.until_known import UntilKnown
from memory_store.facts import question_key


class Rehearsal(UntilKnown):
    """Adds the mean loss of random older facts, drawn anew for every step, to the new fact's.

    Args:
        loaded: the base model.
        learning_rate: of every step.
        max_steps: for one fact.
        older: how many are added to each step.
        seed: of the draw.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        learning_rate: float = 1e-4,
        max_steps: int = 20,
        older: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(loaded, learning_rate=learning_rate, max_steps=max_steps, name="rehearsal")
        self._older = older
        self._draw = random.Random(seed)
        self._taught: dict[str, tuple[str, str]] = {}  # (question, answer) by question key

    def _learn(self, example: Example) -> Turn:
        # An older answer to the same question would be rehearsed against the new one.
        self._taught.pop(question_key(example.question), None)
        turn = super()._learn(example)
        self._taught[question_key(example.question)] = (example.question, example.answer)
        return turn

    def _pairs(self, example: Example) -> list[tuple[str, str]]:
        taught = list(self._taught.values())
        older = self._draw.sample(taught, min(self._older, len(taught)))
        return [*super()._pairs(example), *older]
