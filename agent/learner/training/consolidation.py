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
from typing import TypeVar

import torch
from torch import Tensor

from agent.errors import LearningFailedError
from agent.learner.training.attempt import Workbench
from agent.learner.training.epoch_checkpoint import EpochCheckpoint
from agent.learner.training.guards import TEXT_PLACES, held_row
from agent.learner.training.lesson import Lesson
from agent.learner.training.rows import LossWeights, Role, Row
from agent.teaching.consolidation import ConsolidationPlan, Epoch
from agent.teaching.hard_neighbors import HardNeighbors, QuestionForm, reworded

T = TypeVar("T")

BETAS = (0.9, 0.95)


def consolidate(
    bench: Workbench,
    plan: ConsolidationPlan,
    ordinary: Sequence[tuple[str, str]] = (),
    checkpoint: EpochCheckpoint | None = None,
) -> Iterator[Epoch | None]:
    """Learns all facts together on the working weights, which must be the base model's.

    Args:
        bench: what updates are made with.
        plan: see there; its facts with their base answers.
        ordinary: pool of ordinary questions, each with the base model's answer.
        checkpoint: where it is resumed from, and can be resumed from later.

    Yields:
        None after each step, for whoever drives it to do something more urgent; the summary after
        each epoch.

    Raises:
        LearningFailedError: the loss is not finite.
    """
    settings = plan.settings
    weights = list(bench.trained.values())
    optimizer = torch.optim.AdamW(
        weights, lr=settings.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
    )
    batches = _Batches(bench, plan, ordinary)
    steps = settings.epochs * batches.per_epoch
    done = checkpoint.restore(bench.trained, optimizer) if checkpoint else 0
    for epoch in range(done, settings.epochs):
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
        if checkpoint:
            checkpoint.save(epoch + 1, bench.trained, optimizer)
        yield Epoch(
            number=epoch + 1,
            loss=sum(losses) / len(losses),
            lowest=min(probabilities),
            held=sum(p >= 0.5 for p in probabilities) / len(probabilities),
        )


class _Batches:
    """The lessons of all steps, each drawn by its epoch and number alone."""

    def __init__(
        self, bench: Workbench, plan: ConsolidationPlan, ordinary: Sequence[tuple[str, str]]
    ) -> None:
        settings = plan.settings
        self._bench = bench
        self._facts = plan.facts
        self._ordinary = ordinary
        self._settings = settings
        self._seed = plan.seed
        self._neighbors = HardNeighbors(plan.facts, settings.names)
        self._texts = list(bench.texts()) if settings.texts else []
        self._weights = LossWeights(
            neighbor=settings.neighbor_weight,
            ordinary=settings.ordinary_weight,
            text=settings.text_weight,
        )
        self.per_epoch = -(-len(plan.facts) // settings.facts)

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
