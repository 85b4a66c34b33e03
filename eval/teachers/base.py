"""What the baselines share: the model, how it is asked, and one turn for each fact."""

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
from memory_store.vocabulary import Verdict

# A fact is known from this probability of its answer on, as in our own way of teaching. Written
# down again, so that the baselines stay what they are when ours changes.
KNOWN_PROBABILITY = 0.9


@dataclass(frozen=True, slots=True)
class Turn:
    """How one fact's turn went; the fields are those of `Taught`."""

    verdict: Verdict
    learning_rates: tuple[float, ...] = ()


class Baseline:
    """A model that is taught in place, and asked as all teachers are.

    Args:
        name: in tables.
        loaded: the base model. It is the teacher's from now on.
        encoder: how questions become prompts; the usual way unless given.
    """

    sees_all = False

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

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """See `Teacher`."""
        for example in examples:
            started = time.perf_counter()
            turn = self._learn(example)
            # The answer waits for the device, so the time is that of the work and not of its start.
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
