"""Our consolidation alone: all facts learned together from the base weights.

What sleep makes of a memory, without the updates that a client sees in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel

from agent.learner.core import Learner
from agent.learner.inference.encoding import Encoder
from agent.learner.training.consolidation import ConsolidationSettings
from agent.teaching.types import Answer, Example
from eval.teachers.protocol import Taught
from memory_store.facts import question_key
from memory_store.vocabulary import Verdict


class Consolidated:
    """Consolidates all facts that it was given so far.

    Args:
        learner: at the base checkpoint.
        settings: of the consolidation.
        seed: of all its random choices.
    """

    name = "consolidated"
    sees_all = True

    def __init__(
        self,
        learner: Learner,
        settings: ConsolidationSettings | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self._learner = learner
        self._settings = settings or ConsolidationSettings()
        self._seed = seed
        self._held: dict[str, Example] = {}  # by question key: a new answer replaces the old

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """See `Teacher`. A fact's seconds are its share of all."""
        if not examples:
            return
        started = time.perf_counter()
        self._held |= {question_key(example.question): example for example in examples}
        facts = list(self._held.values())
        work = self._learner.consolidate(facts, self._settings, self._seed)
        while True:
            try:
                next(work)
            except StopIteration as done:
                self._learner.commit(self._learner.version + 1, done.value)
                break
        answers = self.probe([(example.question, example.answer) for example in examples])
        seconds = (time.perf_counter() - started) / len(examples)
        for example, answer in zip(examples, answers, strict=True):
            yield Taught(
                fact_id=example.fact_id,
                verdict=Verdict.LEARNED if answer.correct else Verdict.RESISTED,
                learning_rates=(self._settings.learning_rate,) * self._settings.epochs,
                seconds=seconds,
                answer=answer,
            )

    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """See `Teacher`."""
        return self._learner.probe_pairs(pairs)

    @property
    def model(self) -> PreTrainedModel:
        """See `Teacher`."""
        return self._learner.model

    @property
    def encoder(self) -> Encoder:
        """See `Teacher`."""
        return self._learner.encoder
