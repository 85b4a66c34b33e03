"""LoRA for each fact: a small adapter is trained and merged into the weights."""

from __future__ import annotations

import math
from typing import Any

import torch

from agent.errors import ConfigError
from agent.learner.training.update import AnswerScores, score_answers
from agent.models.loading import LoadedModel
from agent.teaching.types import Example
from eval.teachers.base import KNOWN_PROBABILITY, OneByOne, Turn
from memory_store.vocabulary import Verdict


class Lora(OneByOne):
    """Trains an adapter on answer and terminator until the fact is known, then merges it.

    The adapter (Hu et al. 2021) is added to every linear map but the output's. Each fact gets a
    new AdamW, which keeps its moments from step to step. A fact that is not known at the step
    limit is `resisted`; its adapter is merged all the same.

    Args:
        loaded: the base model.
        learning_rate: of every step; an adapter starts at zero and needs a higher one than weights.
        max_steps: for one fact.
        rank: of the adapter.
        alpha: the adapter's product is scaled by alpha / rank.
        seed: of the adapters' random first factors.

    Raises:
        ConfigError: peft is not installed.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        learning_rate: float = 1e-3,
        max_steps: int = 40,
        rank: int = 8,
        alpha: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__("lora", loaded)
        self._peft = _import_peft()
        self._config = {"r": rank, "lora_alpha": alpha, "target_modules": "all-linear"}
        self._learning_rate = learning_rate
        self._max_steps = max_steps
        self._seed = seed

    def _learn(self, example: Example) -> Turn:
        with torch.no_grad():
            before = self._score(example)
        if _probability(before) >= KNOWN_PROBABILITY:
            return Turn(Verdict.KNOWN)
        adapted = self._adapter()
        turn = self._train(example, adapted)
        # What failed would spoil the weights for all that follows.
        self._model = (
            adapted.unload() if turn.verdict is Verdict.FAILED else adapted.merge_and_unload()
        )
        return turn

    def _adapter(self) -> Any:
        """The model with a new adapter, whose weights alone can be trained."""
        # A seed of the adapter's own leaves the caller's random stream alone.
        device = self._model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed)
            self._seed += 1
            # Only the tuner: the wrapper that peft adds is for generating and saving.
            return self._peft.LoraModel(
                self._model, self._peft.LoraConfig(**self._config), "default"
            )

    def _train(self, example: Example, adapted: Any) -> Turn:
        weights = [p for p in adapted.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self._learning_rate, weight_decay=0)
        taken: tuple[float, ...] = ()
        while True:
            # Until they are merged, the adapter's layers are part of the model itself.
            scores = self._score(example)
            loss = scores.loss[0]
            if not math.isfinite(loss.item()):
                return Turn(Verdict.FAILED, taken)
            if _probability(scores) >= KNOWN_PROBABILITY:
                return Turn(Verdict.LEARNED, taken)
            if len(taken) == self._max_steps:
                return Turn(Verdict.RESISTED, taken)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            taken += (self._learning_rate,)

    def _score(self, example: Example) -> AnswerScores:
        batch = self.encoder.batch([(example.question, example.answer)])
        return score_answers(self._model, batch)


def _probability(scores: AnswerScores) -> float:
    return math.exp(scores.log_probability[0].item())


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            "the teacher lora needs peft: pip install 'continual-agent[eval]'"
        ) from error
    return peft
