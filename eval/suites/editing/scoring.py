"""Exact scores of given texts, and the model's choice at each of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from agent.learner.inference.encoding import IGNORE
from agent.learner.inference.probes import ROWS
from agent.learner.training.update import score_answers
from agent.teaching.prompts import answer_text
from eval.teachers.protocol import Teacher


@dataclass(frozen=True, slots=True)
class Completion:
    """How a model rates a text as what follows another.

    Attributes:
        log_probability: of exactly this text, natural logarithm.
        tokens: how many it has.
        greedy: every token is the most probable one.
    """

    log_probability: float
    tokens: int
    greedy: bool

    @property
    def per_token(self) -> float:
        """Mean logarithm of a token's probability: what the field's code compares."""
        return self.log_probability / self.tokens


@dataclass(frozen=True, slots=True)
class Forced:
    """The model's choices along an answer, each after the *right* tokens before it.

    Attributes:
        chosen: most probable token at each place of the answer, without the terminator.
        expected: the answer's tokens.
    """

    chosen: tuple[int, ...]
    expected: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """Share of right tokens, 0 to 1."""
        return _agreement(self.chosen, self.expected)

    def agreement(self, other: Forced) -> float:
        """Share of places, 0 to 1, where another model chose the same for the same answer."""
        return _agreement(self.chosen, other.chosen)


@torch.inference_mode()
def score_completions(teacher: Teacher, pairs: Sequence[tuple[str, str]]) -> list[Completion]:
    """Scores each (text, what follows after one space), without our prompt and a terminator."""
    scored = []
    for part in _parts(pairs):
        batch = teacher.encoder.rows(
            [teacher.encoder.opening(text.rstrip()) for text, _ in part],
            [teacher.encoder.encode(answer_text(target)) for _, target in part],
        )
        scores = score_answers(teacher.model, batch)
        columns = (scores.log_probability, scores.tokens.int(), scores.greedy)
        scored += [Completion(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return scored


@torch.inference_mode()
def force_answers(teacher: Teacher, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
    """The model's choices along each (question, answer), asked as a probe asks."""
    forced = []
    model: Any = teacher.model
    for part in _parts(pairs):
        batch = teacher.encoder.batch(part)
        logits = model(input_ids=batch.input_ids, use_cache=False).logits[:, :-1]  # [B, T-1, V]
        labels = batch.labels[:, 1:]  # [B, T-1]
        for choices, row in zip(logits.argmax(-1), labels, strict=True):
            answer = row != IGNORE  # [T-1]
            forced.append(
                Forced(
                    chosen=tuple(choices[answer].tolist()[:-1]),
                    expected=tuple(row[answer].tolist()[:-1]),
                )
            )
    return forced


def _parts(pairs: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    for start in range(0, len(pairs), ROWS):
        yield pairs[start : start + ROWS]


def _agreement(one: Sequence[int], other: Sequence[int]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
