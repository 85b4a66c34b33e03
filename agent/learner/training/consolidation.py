"""Consolidation: weights that hold all facts, learned together from the base checkpoint.

One at a time, a model learns the *form* of a question with its fact: untaught questions of that
form get taught answers. Learned together against hard negatives it learns the facts. The result is
a pure function of base weights, facts in order, settings and seed: it depends neither on the
weights before it nor on the updates that led there.

The objective: mean cross entropy of answers, plus the KL divergence from the base model on hard
neighbors and on general text, each with its weight. AdamW over all trained weights with a linear
warm-up and decay of the learning rate. Complementary learning systems in psychology are the same
pair: fast single updates (wake), and slow interleaved learning (sleep).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from agent.errors import LearningFailedError
from agent.learner.training.attempt import Workbench
from agent.learner.training.guards import TEXT_PLACES, held_row
from agent.learner.training.lesson import Lesson
from agent.learner.training.rows import LossWeights, Role, Row
from agent.teaching.hard_neighbors import HardNeighbors, NameShares, QuestionForm, reworded
from agent.teaching.types import Example

T = TypeVar("T")

BETAS = (0.9, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationSettings:
    """How facts are learned together.

    Attributes:
        epochs: passes over all facts.
        facts: in each step.
        neighbors: untaught questions in each step.
        ordinary: ordinary questions in each step.
        texts: general texts in each step.
        learning_rate: the highest, after the warm-up.
        final_share: of the learning rate that is left at the last step.
        warmup_steps: over which the rate rises from zero.
        neighbor_weight: of the mean divergence of neighbors, compared with the loss of facts.
        ordinary_weight: of that of ordinary questions.
        text_weight: of that of general texts.
        names: what neighbors are about.
    """

    epochs: int = 30
    facts: int = 32
    neighbors: int = 48
    ordinary: int = 64
    texts: int = 24
    learning_rate: float = 3e-4
    final_share: float = 0.05
    warmup_steps: int = 20
    neighbor_weight: float = 2.0
    ordinary_weight: float = 4.0
    text_weight: float = 3.0
    names: NameShares = field(default_factory=NameShares)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, from 0 to `steps` - 1."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        progress = step / max(1, steps - 1)
        return self.learning_rate * warm * (1 - (1 - self.final_share) * progress)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over all facts came to.

    Attributes:
        number: from 1.
        loss: mean over its steps, weighted sum of all terms.
        lowest: the lowest probability of an answer when its batch came.
        held: share of answers that had a probability of at least one half.
    """

    number: int
    loss: float
    lowest: float
    held: float


def consolidate(
    bench: Workbench,
    facts: Sequence[Example],
    settings: ConsolidationSettings,
    seed: int,
    ordinary: Sequence[tuple[str, str]] = (),
) -> Iterator[Epoch | None]:
    """Learns all facts together on the working weights, which must be the base model's.

    Args:
        bench: what updates are made with.
        facts: in the order of teaching, each with its base answer.
        settings: see there.
        seed: of all random choices.
        ordinary: pool of ordinary questions, each with the base model's answer.

    Yields:
        None after each step, for whoever drives it to do something more urgent; the summary after
        each epoch.

    Raises:
        LearningFailedError: the loss is not finite.
    """
    weights = list(bench.trained.values())
    optimizer = torch.optim.AdamW(
        weights, lr=settings.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
    )
    batches = _Batches(bench, facts, ordinary, settings, seed)
    steps = settings.epochs * batches.per_epoch
    for epoch in range(settings.epochs):
        losses, probabilities = [], []
        for number, lesson in enumerate(batches.of_epoch(epoch)):
            measured, gradients = lesson.measure_gradient(bench.working, weights)
            if not math.isfinite(measured.loss):
                raise LearningFailedError(f"the loss is {measured.loss} in epoch {epoch + 1}")
            losses.append(measured.loss)
            probabilities += measured.probabilities[Role.FACT]
            rate = settings.rate(epoch * batches.per_epoch + number, steps)
            _step(optimizer, weights, gradients, rate)
            yield None
        yield Epoch(
            number=epoch + 1,
            loss=sum(losses) / len(losses),
            lowest=min(probabilities),
            held=sum(p >= 0.5 for p in probabilities) / len(probabilities),
        )


class _Batches:
    """The lessons of all steps, each drawn by its epoch and number alone."""

    def __init__(
        self,
        bench: Workbench,
        facts: Sequence[Example],
        ordinary: Sequence[tuple[str, str]],
        settings: ConsolidationSettings,
        seed: int,
    ) -> None:
        self._bench = bench
        self._facts = facts
        self._ordinary = ordinary
        self._settings = settings
        self._seed = seed
        self._neighbors = HardNeighbors(facts, settings.names)
        self._texts = list(bench.texts()) if settings.texts else []
        self._weights = LossWeights(
            neighbor=settings.neighbor_weight,
            ordinary=settings.ordinary_weight,
            text=settings.text_weight,
        )
        self.per_epoch = -(-len(facts) // settings.facts)

    def of_epoch(self, epoch: int) -> Iterator[Lesson]:
        """Each fact once, in an order of this epoch."""
        bench, size = self._bench, self._settings.facts
        shuffled = random.Random(f"{self._seed} order {epoch}")
        order = shuffled.sample(range(len(self._facts)), len(self._facts))
        for number in range(self.per_epoch):
            draw = random.Random(f"{self._seed} step {epoch} {number}")
            rows = self._rows(order[number * size : (number + 1) * size], draw)
            lesson = Lesson(rows, bench.encoder.eos, bench.device, bench.runner, self._weights)
            lesson.anchor(bench.base)
            yield lesson

    def _rows(self, chosen: Sequence[int], draw: random.Random) -> list[Row]:
        """Facts in one form each, hard neighbors, ordinary questions and texts."""
        encoder, settings = self._bench.encoder, self._settings
        rows = []
        for index in chosen:
            fact = self._facts[index]
            question = reworded(
                fact.question, QuestionForm(draw.randrange(len(QuestionForm))), draw
            )
            rows.append(Row.answering(Role.FACT, encoder, question, fact.answer))
        for question, said in self._neighbors.draw(chosen, settings.neighbors, draw):
            rows.append(held_row(encoder, Role.NEIGHBOUR, question, said))
        for question, said in _some(self._ordinary, settings.ordinary, draw):
            rows.append(held_row(encoder, Role.ORDINARY, question, said))
        for text in _some(self._texts, settings.texts, draw):
            places = _some(range(len(text) - 1), TEXT_PLACES, draw)
            if places:
                rows.append(Row(Role.TEXT, text, sorted(places)))
        return rows


def _some(pool: Sequence[T], count: int, draw: random.Random) -> list[T]:
    """At most `count` of a pool."""
    return draw.sample(pool, min(count, len(pool)))


def _step(
    optimizer: torch.optim.Optimizer,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rate: float,
) -> None:
    """One step of the optimizer with these gradients."""
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    for weight in weights:
        weight.grad = None  # the runner's memory: overwritten by the next lesson
