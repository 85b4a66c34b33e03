"""Plain fine-tuning until the fact is known: what most people would try first."""

from __future__ import annotations

import math

from agent.learner.training.update import score_answers
from agent.models.loading import LoadedModel
from agent.teaching.types import Example
from eval.teachers.base import KNOWN_PROBABILITY, Turn
from eval.teachers.full_weights import FullWeights
from memory_store.vocabulary import Verdict


class UntilKnown(FullWeights):
    """Fresh-AdamW steps on answer and terminator; no rehearsal, no guard, no undo.

    A fact that is not known at the step limit is `resisted`; its steps stay in the weights.

    Args:
        loaded: the base model.
        learning_rate: of every step.
        max_steps: for one fact.
        name: in tables.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        learning_rate: float = 1e-4,
        max_steps: int = 20,
        name: str = "until-known",
    ) -> None:
        super().__init__(name, loaded, learning_rate)
        self._max_steps = max_steps

    def _learn(self, example: Example) -> Turn:
        taken: tuple[float, ...] = ()
        while True:
            # One forward pass serves twice: it judges the last step and starts the next one.
            scores = score_answers(self._model, self.encoder.batch(self._pairs(example)))
            loss, probability = scores.loss[0], math.exp(scores.log_probability[0].item())
            if not math.isfinite(loss.item()):
                return Turn(Verdict.FAILED, taken)
            if probability >= KNOWN_PROBABILITY:
                return Turn(Verdict.LEARNED if taken else Verdict.KNOWN, taken)
            if len(taken) == self._max_steps:
                return Turn(Verdict.RESISTED, taken)
            if len(scores.loss) > 1:
                loss = loss + scores.loss[1:].mean()
            self._step(loss)
            taken += (self._learning_rate,)

    def _pairs(self, example: Example) -> list[tuple[str, str]]:
        """(question, answer) of each row of the next step's batch, the new fact first."""
        return [(example.question, example.answer)]
