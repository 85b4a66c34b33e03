"""A lesson: the rows of one update, their loss, and how a model scores on them.

A lesson is fixed before the first step. It has the fact in its forms, rehearsed facts, and guarded
rows with the base model's predictions. One measurement gives everything that the stop rule and the
gate need, and the loss of the next step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.learner.engine.cuda_graphs import PLACES, ROWS, WIDTH, Runner
from agent.learner.engine.fused_layers import LONGEST
from agent.learner.training.rows import UPDATE_WEIGHTS, LossWeights, Role, Row, RowLayout
from agent.learner.training.update import gradient, norm_and_directions

# From the tensors of `RowLayout.batches` to a model's logits: [places, V].
LogitsOf = Callable[[Sequence[Tensor]], Tensor]
# The weight of the first token in a neighbor's divergence. There an answer turns into a taught one;
# the later tokens are computed after the base model's own first token.
FIRST_TOKEN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Descent:
    """The direction of the next step.

    Attributes:
        directions: one tensor for each trained weight; valid until the next lesson is measured.
        gradient_norm: Euclidean norm over all trained weights.
    """

    directions: Sequence[Tensor]
    gradient_norm: float


@dataclass(frozen=True, slots=True)
class LessonScores:
    """How a model scores on a lesson.

    Attributes:
        loss: the weighted sum that a step lowers.
        fact_loss: mean cross entropy of the fact's forms, nats a token.
        probabilities: of whole answers, by role, in the order of the rows.
        divergences: KL from the base model, averaged over a row's places, in nats, by role. For
            neighbors, see `FIRST_TOKEN_SHARE`.
        descent: computes the direction of the next step; call it once at most.
    """

    loss: float
    fact_loss: float
    probabilities: dict[Role, list[float]]
    divergences: dict[Role, list[float]]
    descent: Callable[[], Descent]

    def directions(self) -> Sequence[Tensor]:
        """The direction of the next step, without its norm."""
        return self.descent().directions

    @property
    def asked(self) -> float:
        """Probability of the answer to the fact's own question."""
        return (self.probabilities[Role.ASKED] or self.probabilities[Role.FACT])[0]

    @property
    def reworded(self) -> float:
        """The lowest probability of the answer to the fact's other forms; 1 if it has none."""
        forms = self.probabilities[Role.FACT][1:]
        return min(forms, default=1.0)


class Lesson:
    """The rows of one update on one device.

    Args:
        rows: in any order; at least one `FACT`.
        pad: token for padding, which causal attention never sees.
        device: of the model.
        runner: runs forward and backward passes.
        weights: of the terms of the loss.
        left_out: number of rows that were left out because they were too long.

    Attributes:
        left_out: the same.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        pad: int,
        device: torch.device,
        runner: Runner,
        weights: LossWeights = UPDATE_WEIGHTS,
        left_out: int = 0,
    ) -> None:
        self.left_out = left_out
        self._pad = pad
        self._weights = weights
        self._device = device
        self._runner = runner
        ordered = sorted(rows, key=lambda row: row.role)
        self._answering = [row for row in ordered if row.role <= Role.CONTROL]
        self._guarded = [row for row in ordered if row.role >= Role.NEIGHBOUR]
        longest = max(len(row.tokens) for row in rows)
        self._layout = RowLayout(runner.packs and longest <= LONGEST, pad, device, runner)
        self._batches = self._layout.batches(ordered)
        self._fixed = (*self._of_answers(), *self._of_guarded())
        self._where = self._places()
        self._base = torch.empty(0, device=device)  # [M, V], log-probabilities

    def anchor(self, base: Any) -> None:
        """Records the base model's distributions at the places of guarded rows."""
        if not self._guarded:
            return

        def distributions(*batches: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (logits(base, batches).log_softmax(-1),)

        logits = self._layout.logits
        (found,) = self._runner.run("anchor", distributions, self._layout.batches(self._guarded))
        # Padding lies between the places of different groups and after them.
        kept = self._layout.real_places(self._guarded)
        padded = torch.zeros(self._fixed[-2].shape[1], found.shape[1], device=self._device)
        padded[: len(kept)] = found[kept]
        self._base = padded

    def measure(self, model: Any, trained: Sequence[Tensor]) -> LessonScores:
        """Measures a model by one forward pass; on a GPU, its graph includes the backward pass.

        Args:
            model: a causal LM.
            trained: the weights that steps change.
        """
        logits = partial(self._layout.logits, model)
        if self._runner.has_graphs:
            values, norm, *directions = self._runner.run(
                "lesson", lambda *tensors: _with_descent(logits, trained, tensors), self._inputs
            )
            descent = Descent(directions, norm.item())
            return self._measured(values.tolist(), lambda: descent)
        loss, values = _values(logits, self._inputs)

        def descend() -> Descent:
            norm, *directions = _descent(loss, trained)
            return Descent(directions, norm.item())

        return self._measured(values.tolist(), descend)

    def measure_gradient(
        self, model: Any, trained: Sequence[Tensor]
    ) -> tuple[LessonScores, Sequence[Tensor]]:
        """As `measure`, with the gradient itself, for an optimizer with state.

        Returns:
            The scores, without a descent; and the gradient of the loss, one tensor for each trained
            weight, valid until the next lesson is measured.
        """

        def values_and_gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
            loss, values = _values(logits, inputs)
            return (values, *gradient(loss, trained))

        logits = partial(self._layout.logits, model)
        values, *gradients = self._runner.run("gradient", values_and_gradient, self._inputs)
        return self._measured(values.tolist(), _no_descent), gradients

    def look(self, model: Any, name: str) -> list[float]:
        """Only the log-probabilities of all answers, in the order of roles and rows.

        Args:
            model: a causal LM.
            name: identifies the model to the runner.
        """

        def values(*inputs: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (_values(logits, inputs)[1],)

        logits = partial(self._layout.logits, model)
        (found,) = self._runner.run(f"look at {name}", values, self._inputs)
        answers: list[float] = found.tolist()[2 : 2 + len(self._answering)]
        return answers

    @property
    def size(self) -> tuple[int, int]:
        """Number of tokens, and of places where predictions count; without padding."""
        rows = [*self._answering, *self._guarded]
        return sum(len(row.tokens) for row in rows), sum(len(row.places) for row in rows)

    @property
    def answer_tokens(self) -> int:
        """Number of tokens of the answer to the fact's own question, terminator included."""
        return len(self._own_row.places)

    def own_question(self, copies: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Copies of the fact's own question and answer.

        Returns:
            Tokens [copies, T]; row and column of each place of the answer, [copies * P] each; and
            [P] 1.0 for places of the answer, 0.0 for padding.
        """
        row = self._own_row
        width = self._runner.rounded(len(row.tokens), WIDTH)
        tokens = [*row.tokens, *[self._pad] * (width - len(row.tokens))]
        size = self._runner.rounded(len(row.places), WIDTH)
        spare = size - len(row.places)
        return (
            torch.tensor([tokens] * copies, device=self._device),
            torch.arange(copies, device=self._device).repeat_interleave(size),
            torch.tensor([*row.places, *[0] * spare] * copies, device=self._device),
            torch.tensor([1.0] * len(row.places) + [0.0] * spare, device=self._device),
        )

    @property
    def _inputs(self) -> list[Tensor]:
        """Inputs of `_values`."""
        return [*self._fixed, self._where, self._base, *self._batches]

    @property
    def _own_row(self) -> Row:
        """The row of the fact's own question; `ASKED` if the fact is taught as another text."""
        asked = [row for row in self._answering if row.role is Role.ASKED]
        return (asked or self._answering)[0]

    def _measured(self, values: list[float], descent: Callable[[], Descent]) -> LessonScores:
        """Makes scores from the flat values of `_values`."""
        loss, fact_loss, *rest = values
        answers = self._fixed[1].shape[0]
        return LessonScores(
            loss=loss,
            fact_loss=fact_loss,
            probabilities=_by_role(self._answering, [math.exp(p) for p in rest[:answers]]),
            divergences=_by_role(self._guarded, rest[answers:]),
            descent=descent,
        )

    def _places(self) -> Tensor:
        """[N + M] indices of answers' places, then of guarded places, among all logits."""
        real = self._layout.real_places([*self._answering, *self._guarded])
        answers = sum(len(row.places) for row in self._answering)
        padded = [0] * (self._fixed[0].shape[0] - answers)
        guarded = real[answers:]
        missing = [0] * (self._fixed[-2].shape[1] - len(guarded))
        return torch.tensor([*real[:answers], *padded, *guarded, *missing], device=self._device)

    def _of_answers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Targets [N]; membership of places in answers [A, N]; weights [A]; fact's shares [A]."""
        targets = [row.tokens[place + 1] for row in self._answering for place in row.places]
        size = self._runner.rounded(len(targets), PLACES)
        weights = {Role.FACT: 1.0, Role.REHEARSED: self._weights.rehearsed}
        return (
            torch.tensor(targets + [0] * (size - len(targets)), device=self._device),
            self._membership(self._answering, size),
            self._shares(self._answering, weights),
            self._shares(self._answering, {Role.FACT: 1.0}),
        )

    def _of_guarded(self) -> tuple[Tensor, Tensor]:
        """Weights of places in guarded rows [G, M], and of guarded rows in the loss [G]."""
        of_places = [weight for row in self._guarded for weight in _place_weights(row)]
        size = self._runner.rounded(len(of_places), PLACES)
        padded = torch.tensor(of_places + [0.0] * (size - len(of_places)), device=self._device)
        weights = {
            Role.NEIGHBOUR: self._weights.neighbor,
            Role.ORDINARY: self._weights.ordinary,
            Role.TEXT: self._weights.text,
        }
        return (
            self._membership(self._guarded, size) * padded,
            self._shares(self._guarded, weights),
        )

    def _membership(self, rows: Sequence[Row], size: int) -> Tensor:
        """[rows, size]: 1 where a place belongs to a row.

        Sums over the places of a row are products with it: `index_add` is not deterministic on
        CUDA.
        """
        own = torch.full((size,), -1)
        owners = [index for index, row in enumerate(rows) for _ in row.places]
        own[: len(owners)] = torch.tensor(owners, dtype=torch.int64)
        count = self._runner.rounded(len(rows), ROWS)
        return (torch.arange(count)[:, None] == own[None, :]).float().to(self._device)

    def _shares(self, rows: Sequence[Row], weights: Mapping[Role, float]) -> Tensor:
        """[rows]: each role's weight, divided among its rows."""
        counts = Counter(row.role for row in rows)
        shares = [weights.get(row.role, 0.0) / counts[row.role] for row in rows]
        missing = self._runner.rounded(len(rows), ROWS) - len(rows)
        return torch.tensor(shares + [0.0] * missing, device=self._device)


def _no_descent() -> Descent:
    raise AssertionError("a lesson measured with its gradient has no descent of its own")


def _place_weights(row: Row) -> list[float]:
    """Weights of the places of a guarded row; their sum is 1."""
    count = len(row.places)
    if row.role is Role.TEXT or count == 1:
        return [1 / count] * count
    return [FIRST_TOKEN_SHARE, *[(1 - FIRST_TOKEN_SHARE) / (count - 1)] * (count - 1)]


def _values(logits_of: LogitsOf, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss, and everything that is measured, as one flat tensor.

    Args:
        logits_of: computes a model's logits.
        inputs: the tensors of `_of_answers`, of `_of_guarded`, and of `_places`; the base model's
            log-probabilities [M, V]; and the tensors of `RowLayout.batches`.

    Returns:
        The loss, and [2 + A + G]: loss, loss of the fact, log-probabilities, divergences.
    """
    targets, of_answer, weights, of_fact, of_guarded, guard_weights, places, base, *rest = inputs
    logits = logits_of(rest)[places]  # [N + M, V]
    count = len(targets)
    nats = F.cross_entropy(logits[:count], targets, reduction="none")  # [N]
    totals = of_answer @ nats  # [A]
    means = totals / of_answer.sum(1).clamp_min(1)
    loss = weights @ means
    divergences = torch.zeros_like(guard_weights)
    if len(base):
        change = (base.exp() * (base - logits[count:].log_softmax(-1))).sum(-1)  # [M]
        divergences = of_guarded @ change  # [G]
        loss = loss + guard_weights @ divergences
    measured = [loss[None], (of_fact @ means)[None], -totals, divergences]
    return loss, torch.cat(measured).detach()


def _with_descent(
    logits_of: LogitsOf, trained: Sequence[Tensor], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The values of `_values`, then those of `_descent`."""
    loss, values = _values(logits_of, inputs)
    return (values, *_descent(loss, trained))


def _descent(loss: Tensor, trained: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The norm of the gradient, then the direction of a step for each trained weight."""
    norm, directions = norm_and_directions(gradient(loss, trained))
    return (norm, *directions)


def _by_role(rows: Sequence[Row], values: Sequence[float]) -> dict[Role, list[float]]:
    found: dict[Role, list[float]] = {role: [] for role in Role}
    # Values of padding rows come last.
    for row, value in zip(rows, values, strict=False):
        found[row.role].append(value)
    return found
