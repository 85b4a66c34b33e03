"""Our consolidation alone: all facts learned together from the base weights.

What sleep would make of a memory, without the updates that a client sees before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from agent.learner.core import Learner
from agent.learner.inference.encoding import Encoder
from agent.teaching.consolidation import ConsolidationPlan, ConsolidationSettings, drain_now
from agent.teaching.types import Answer, Example
from eval.teachers.base import AllAtOnce
from memory_store.vocabulary import Verdict


class Consolidated(AllAtOnce):
    """Consolidates all facts that it was given, from the base weights.

    Args:
        learner: at the base checkpoint.
        settings: of the consolidation.
        seed: of all its random choices.
    """

    name = "consolidated"

    def __init__(
        self,
        learner: Learner,
        settings: ConsolidationSettings | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._learner = learner
        self._settings = settings or ConsolidationSettings()
        self._seed = seed

    def _learn_all(self, facts: list[Example]) -> tuple[float, ...]:
        plan = ConsolidationPlan(facts=tuple(facts), settings=self._settings, seed=self._seed)
        result = drain_now(self._learner.consolidate(plan))
        self._learner.commit(self._learner.version + 1, result.digest)
        return (self._settings.learning_rate,) * self._settings.epochs

    def _verdict(self, answer: Answer) -> Verdict:
        return Verdict.LEARNED if answer.correct else Verdict.RESISTED

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
