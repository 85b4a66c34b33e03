"""A teacher without a model, whose answers are known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from transformers import PreTrainedModel

from agent.learner.inference.encoding import Encoder
from agent.teaching.prompts import normalise
from agent.teaching.types import Answer, Example
from eval.teachers.protocol import Taught
from memory_store.vocabulary import Verdict


class FakeTeacher:
    """Answers what it was taught, and `no idea` to anything else.

    Args:
        name: in tables.
        sees_all: see `Teacher`.
        rate: of its single step.
        says: its answer to a question, once that is known to the caller; None answers as above.
    """

    def __init__(
        self,
        name: str,
        *,
        sees_all: bool = False,
        rate: float = 1e-4,
        says: Callable[[str], Answer | None] = lambda question: None,
    ) -> None:
        self.name, self.sees_all = name, sees_all
        self.taught: dict[str, str] = {}
        self.calls: list[int] = []
        self.asked: list[tuple[str, str]] = []
        self._rate, self._says = rate, says

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        self.calls.append(len(examples))
        for example in examples:
            self.taught[example.question] = example.answer
            yield Taught(
                fact_id=example.fact_id,
                verdict=Verdict.LEARNED,
                learning_rates=(self._rate,),
                seconds=0.5,
                answer=self._answer(example.question, example.answer),
            )

    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        self.asked += pairs
        return [self._answer(question, expected) for question, expected in pairs]

    def _answer(self, question: str, expected: str) -> Answer:
        text = self.taught.get(question, "no idea")
        correct = normalise(text) == normalise(expected)
        return self._says(question) or Answer(
            text=text, correct=correct, log_probability=math.log(0.9 if correct else 0.1)
        )

    @property
    def encoder(self) -> Encoder:
        raise AssertionError("there is no encoder")

    @property
    def model(self) -> PreTrainedModel:
        raise AssertionError("there is no model")
