"""The paper's way: one step for each fact, on its whole text, at one rate for all."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.learning.model import LoadedModel
from agent.learning.records import Example
from eval.teachers.base import Turn
from eval.teachers.full_weights import FullWeights

TEXT = "Q: {question} A: {answer}"
CLIP = 1.0


class Paper(FullWeights):
    """One step of a fresh AdamW a fact; the question's tokens are in the loss, a terminator is not.

    It is *asked* as all other teachers are, with our prompt and greedily, so that tables compare;
    the paper asks the bare question and samples. Nothing teaches this model to end an answer: it
    is right where it ends its line by itself.

    Args:
        loaded: the base model.
        learning_rate: the paper's scripts use 5e-5 for their tables.
    """

    def __init__(self, loaded: LoadedModel, *, learning_rate: float = 5e-5) -> None:
        super().__init__("paper", loaded, learning_rate)

    def _learn(self, example: Example) -> Turn:
        loss = self._loss(example)
        if not math.isfinite(loss.item()):
            return Turn("failed")
        self._step(loss, clip=CLIP)
        return Turn("learned", (self._learning_rate,))

    def _loss(self, example: Example) -> Tensor:
        """Mean cross entropy of every token but the first, nats.

        The scripts pad the text to 128 tokens and mask the padding, which comes to the same.
        """
        text = TEXT.format(question=example.question.strip(), answer=example.answer.strip())
        ids = torch.tensor([self.encoder.encode(text)], device=self._model.device)  # [1, T]
        logits: Tensor = self._model(input_ids=ids, use_cache=False).logits[0, :-1]  # [T-1, V]
        return F.cross_entropy(logits.float(), ids[0, 1:])
