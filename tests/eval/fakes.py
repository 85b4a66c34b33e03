"""A teacher whose model goes on with texts exactly as it is told, before and after teaching."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from agent.learner.inference.encoding import Encoder
from agent.models.tiny import build_tiny
from agent.teaching.prompts import normalise, prompt
from agent.teaching.types import Answer, Example
from eval.teachers.protocol import Taught
from memory_store.vocabulary import Verdict

VOCABULARY, EOS = 257, 256
ENCODER = Encoder(build_tiny()[1], EOS, torch.device("cpu"))
LOGIT = 10.0
# Of the byte that the text goes on with, and of every other.
LIKELY = math.exp(LOGIT) / (math.exp(LOGIT) + VOCABULARY - 1)
UNLIKELY = LIKELY / math.exp(LOGIT)


class Parrot:
    """A causal LM over bytes: after `text` comes `continuations[text]`, then the terminator."""

    def __init__(self, continuations: Mapping[str, str]) -> None:
        self._continuations = {
            text.encode(): continuation.encode() for text, continuation in continuations.items()
        }
        self._head = nn.Identity()

    def get_output_embeddings(self) -> nn.Module:
        """What chosen places go through; see `agent.learner.inference.logits`."""
        return self._head

    def __call__(
        self, input_ids: Tensor, attention_mask: None = None, use_cache: bool = False
    ) -> Any:
        logits = torch.zeros(*input_ids.shape, VOCABULARY)  # [B, T, V]
        for row, ids in enumerate(input_ids.tolist()):
            for place in range(len(ids)):
                logits[row, place, self._next(ids[: place + 1])] = LOGIT
        return SimpleNamespace(logits=self._head(logits))

    def _next(self, ids: Sequence[int]) -> int:
        so_far = bytes(token for token in ids if token < EOS)
        for text, continuation in self._continuations.items():
            if (text + continuation).startswith(so_far) and len(so_far) >= len(text):
                following: list[int] = [*continuation, EOS]
                return following[len(so_far) - len(text)]
        return ord("~")


class FakeTeacher:
    """Knows `before` until it has taught anything, then `after`.

    Args:
        before: what comes after which text; questions stand as `asked` writes them.
        after: the same.
    """

    sees_all = False
    encoder = ENCODER

    def __init__(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        self.name = "fake"
        self.taught: list[tuple[str, str, str]] = []
        self._before, self._after = before, after

    @property
    def _now(self) -> Mapping[str, str]:
        return self._after if self.taught else self._before

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        for number, example in enumerate(examples):
            self.taught.append((example.fact_id, example.question, example.answer))
            yield Taught(
                fact_id=example.fact_id,
                verdict=Verdict.LEARNED if number else Verdict.KNOWN,
                learning_rates=(1e-3,) * (2 * number),
                seconds=0.5,
                answer=self.probe([(example.question, example.answer)])[0],
            )

    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        texts = [self._now.get(prompt(question), " ~").strip() for question, _ in pairs]
        return [
            Answer(text=text, correct=normalise(text) == normalise(expected), log_probability=-1.0)
            for text, (_, expected) in zip(texts, pairs, strict=True)
        ]

    @property
    def model(self) -> PreTrainedModel:
        return cast(PreTrainedModel, Parrot(self._now))


def asked(answers: Mapping[str, str]) -> dict[str, str]:
    """Continuations of questions, from question and answer."""
    return {prompt(question): f" {answer}" for question, answer in answers.items()}
