"""What teachers share: how a model is asked, one turn for each fact, or all facts together."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from agent.learner.inference.encoding import Encoder
from agent.learner.inference.probes import probe
from agent.models.loading import LoadedModel
from agent.teaching.types import Answer, Example
from eval.teachers.protocol import Taught
from memory_store.facts import question_key
from memory_store.vocabulary import Verdict

# A fact is known from this probability of its answer on, as in our own way of teaching. The number
# is repeated here, so that the baselines stay what they are when ours changes.
KNOWN_PROBABILITY = 0.9


@dataclass(frozen=True, slots=True)
class Turn:
    """How one fact's turn went; the fields are those of `Taught`."""

    verdict: Verdict
    learning_rates: tuple[float, ...] = ()


class Baseline:
    """A model that is taught in place, and probed in the usual way.

    Args:
        name: in tables.
        loaded: the base model; the teacher changes it.
        encoder: how questions become prompts; the usual way unless given.
    """

    def __init__(self, name: str, loaded: LoadedModel, encoder: Encoder | None = None) -> None:
        self.name = name
        self.encoder = encoder or Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
        self._model: Any = loaded.model.requires_grad_(False)

    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """See `Teacher`."""
        return probe(self._model, self.encoder, pairs, always_generate=True)

    @property
    def model(self) -> PreTrainedModel:
        """See `Teacher`."""
        weights: PreTrainedModel = self._model
        return weights


class OneByOne(Baseline, ABC):
    """A baseline that takes its facts one after the other, and none twice."""

    sees_all = False

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """See `Teacher`."""
        for example in examples:
            started = time.perf_counter()
            turn = self._learn(example)
            # Answering waits for the device, so the time covers the work, not only its launch.
            answer = self.probe([(example.question, example.answer)])[0]
            yield Taught(
                fact_id=example.fact_id,
                verdict=turn.verdict,
                learning_rates=turn.learning_rates,
                seconds=time.perf_counter() - started,
                answer=answer,
            )

    @abstractmethod
    def _learn(self, example: Example) -> Turn:
        """Teaches one fact."""


class AllAtOnce(ABC):
    """Learns all facts that it was ever given together, from the base weights each time."""

    sees_all = True

    def __init__(self) -> None:
        self._seen: dict[str, Example] = {}  # by question key: a new answer replaces the old

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """See `Teacher`. A fact's seconds are its share of the whole time."""
        if not examples:
            return
        started = time.perf_counter()
        self._seen |= {question_key(example.question): example for example in examples}
        rates = self._learn_all(list(self._seen.values()))
        answers = self.probe([(example.question, example.answer) for example in examples])
        seconds = (time.perf_counter() - started) / len(examples)
        for example, answer in zip(examples, answers, strict=True):
            yield Taught(
                fact_id=example.fact_id,
                verdict=self._verdict(answer),
                learning_rates=rates,
                seconds=seconds,
                answer=answer,
            )

    @abstractmethod
    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """See `Teacher`."""

    @abstractmethod
    def _learn_all(self, facts: list[Example]) -> tuple[float, ...]:
        """Teaches the facts; returns the rates of the steps that each of them was in."""

    @abstractmethod
    def _verdict(self, answer: Answer) -> Verdict:
        """What became of a fact that is answered like this."""
