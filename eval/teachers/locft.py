"""LocFT-BF: epochs over all facts on one matrix; a bound for teachers that see all facts at once.

Sources: "breadth-first" fine-tuning at one place (arXiv 2509.22072): batches over the whole set
again and again, instead of each fact to its end, and one MLP's down-projection alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agent.errors import ConfigError
from agent.learner.training.update import score_answers
from agent.models.loading import LoadedModel
from agent.teaching.types import Answer, Example
from eval.teachers.base import KNOWN_PROBABILITY, AllAtOnce, Baseline
from memory_store.vocabulary import Verdict

# What architectures call the matrix that ends a layer's MLP.
DOWN_PROJECTIONS = ("dense_4h_to_h", "down_proj", "mlp.c_proj", "fc2", "fc_out", "mlp.dense_out")


def down_projection(model: nn.Module, layer: int | None = None) -> tuple[str, nn.Parameter]:
    """Name and weights of one layer's down-projection.

    Args:
        model: a causal LM.
        layer: from 0; None for the one three quarters of the way up.

    Raises:
        ConfigError: there is no such layer, or the model calls the matrix something else.
    """
    found = [
        (f"{name}.weight", module.weight)
        for name, module in model.named_modules()
        if name.endswith(DOWN_PROJECTIONS) and isinstance(module.weight, nn.Parameter)
    ]
    if not found:
        raise ConfigError(
            "the teacher locft finds no down-projection in this model: it knows those called "
            + ", ".join(DOWN_PROJECTIONS)
        )
    chosen = 3 * len(found) // 4 if layer is None else layer
    if not 0 <= chosen < len(found):
        raise ConfigError(f"layer {chosen}: the model has layers 0 to {len(found) - 1}")
    return found[chosen]


class LocFt(Baseline, AllAtOnce):
    """Trains one down-projection on all facts at once, from the base weights each time.

    One AdamW takes all steps; answer and terminator are in the loss. Training ends early after an
    epoch in which every answer had reached `KNOWN_PROBABILITY` before its batch's step.

    Args:
        loaded: the base model.
        layer: from 0; None for the one three quarters of the way up, which learned in half the
            epochs of the middle one (SmolLM2-135M).
        learning_rate: of every step.
        epochs: at most.
        batch_size: facts a step.
        seed: of the order of facts.

    Raises:
        ConfigError: see `down_projection`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        layer: int | None = None,
        learning_rate: float = 3e-3,
        epochs: int = 20,
        batch_size: int = 4,
        seed: int = 0,
    ) -> None:
        Baseline.__init__(self, "locft", loaded)
        AllAtOnce.__init__(self)
        _, self._matrix = down_projection(self._model, layer)
        self._matrix.requires_grad_(True)
        self._base = self._matrix.detach().clone()
        self._learning_rate = learning_rate
        self._epochs = epochs
        self._batch_size = batch_size
        self._seed = seed
        self._finite = True

    def _learn_all(self, facts: list[Example]) -> tuple[float, ...]:
        with torch.no_grad():
            self._matrix.copy_(self._base)
        epochs, self._finite = self._train(facts)
        return (self._learning_rate,) * epochs

    def _verdict(self, answer: Answer) -> Verdict:
        if not self._finite:
            return Verdict.FAILED
        known = math.exp(answer.log_probability) >= KNOWN_PROBABILITY
        return Verdict.LEARNED if known else Verdict.RESISTED

    def _train(self, facts: list[Example]) -> tuple[int, bool]:
        """Trains; returns the number of epochs, and whether every loss was finite."""
        optimizer = torch.optim.AdamW([self._matrix], lr=self._learning_rate, weight_decay=0)
        order = random.Random(self._seed)
        for epoch in range(self._epochs):
            order.shuffle(facts)
            all_known = True
            for start in range(0, len(facts), self._batch_size):
                loss, known = self._batch(facts[start : start + self._batch_size])
                if not math.isfinite(loss.item()):
                    return epoch, False
                all_known = all_known and known
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if all_known:
                return epoch + 1, True
        return self._epochs, True

    def _batch(self, facts: Sequence[Example]) -> tuple[Tensor, bool]:
        """Mean loss of the answers, nats a token; and whether all are known already."""
        scores: Any = score_answers(
            self._model, self.encoder.batch([(fact.question, fact.answer) for fact in facts])
        )
        lowest = scores.log_probability.min().item()
        return scores.loss.mean(), math.exp(lowest) >= KNOWN_PROBABILITY
