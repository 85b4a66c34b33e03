"""The paper's way: one step for each fact, on its whole text, at one rate for all."""

from __future__ import annotations

from agent.errors import LearningFailedError
from agent.learner.training.paper_step import paper_batch, paper_step
from agent.models.loading import LoadedModel
from agent.teaching.types import Example
from eval.teachers.base import Turn
from eval.teachers.full_weights import FullWeights
from memory_store.vocabulary import Verdict


class Paper(FullWeights):
    """One step of a fresh AdamW a fact; the question's tokens are in the loss, a terminator is not.

    It is *asked* like all other teachers, with our prompt and greedily, so that tables compare; the
    paper samples after the bare question. Nothing teaches this model to end an answer: it is right
    if it ends its line by itself.

    Args:
        loaded: the base model.
        learning_rate: the paper's scripts use 5e-5 for their tables.
    """

    def __init__(self, loaded: LoadedModel, *, learning_rate: float = 5e-5) -> None:
        super().__init__("paper", loaded, learning_rate)

    def _learn(self, example: Example) -> Turn:
        batch = paper_batch(self.encoder, [(example.question, example.answer)])
        try:
            paper_step(self._model, batch, self._learning_rate)
        except LearningFailedError:
            return Turn(Verdict.FAILED)
        return Turn(Verdict.LEARNED, (self._learning_rate,))
