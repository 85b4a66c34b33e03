"""Steps on all weights: the base of the baselines that train every one of them."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor, nn

from agent.models.loading import LoadedModel
from eval.teachers.base import OneByOne


class FullWeights(OneByOne, ABC):
    """Every weight is trained, embeddings and norms included."""

    def __init__(self, name: str, loaded: LoadedModel, learning_rate: float) -> None:
        super().__init__(name, loaded)
        self._learning_rate = learning_rate
        self._model.requires_grad_(True)
        # A tied matrix is listed once.
        self._parameters: list[nn.Parameter] = list(self._model.parameters())

    def _step(self, loss: Tensor) -> None:
        """One step of a fresh AdamW without weight decay on a loss of this model."""
        optimizer = torch.optim.AdamW(
            self._parameters, lr=self._learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
