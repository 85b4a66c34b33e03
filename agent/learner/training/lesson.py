"""What one update is about, as rows of tokens, and how a model does on them.

A lesson is fixed before the first step: the fact in its forms, the older facts rehearsed along, and
what the base model says where nothing may change. Measuring it once gives all that the stop rule
and the gate judge by, and the loss of the next step.
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
from agent.learner.training.row_layout import RowLayout
from agent.learner.training.rows import UPDATE_WEIGHTS, LossWeights, Role, Row
from agent.learner.training.update import gradient, norm_and_directions

# A model's predictions at the places of rows that were laid out for it: [places, V].
LogitsOf = Callable[[Sequence[Tensor]], Tensor]
# Of a neighbour's divergence, so much is that of its first token: there an answer turns into a
# taught one, and all that follows is made to follow the base model's own first token.
FIRST_TOKEN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Descent:
    """Where the next step goes.

    Attributes:
        directions: one for each trained weight; good until the next lesson is measured.
        gradient_norm: Euclidean, over all trained weights.
    """

    directions: Sequence[Tensor]
    gradient_norm: float


@dataclass(frozen=True, slots=True)
class LessonScores:
    """How a model does on a lesson.

    Attributes:
        loss: the weighted sum that a step goes down.
        fact_loss: mean cross entropy of the fact's forms, nats a token.
        probabilities: of whole answers, by role, in the order of the rows.
        divergences: mean KL from the base model over a row's places, nats, by role; of a neighbour
            the first place counts as much as all others together.
        descent: where the next step goes; to be asked for once.
    """

    loss: float
    fact_loss: float
    probabilities: dict[Role, list[float]]
    divergences: dict[Role, list[float]]
    descent: Callable[[], Descent]

    def directions(self) -> Sequence[Tensor]:
        """Where the next step goes, and nothing else of it."""
        return self.descent().directions

    @property
    def asked(self) -> float:
        """Probability of the answer to the fact's own question."""
        return (self.probabilities[Role.ASKED] or self.probabilities[Role.FACT])[0]

    @property
    def reworded(self) -> float:
        """The lowest one in the fact's other forms; 1 if it has none."""
        forms = self.probabilities[Role.FACT][1:]
        return min(forms, default=1.0)


class Lesson:
    """The rows of one update on one device.

    Args:
        rows: any order; at least one `FACT`.
        pad: token that fills rows up; causal attention never looks at it.
        device: of the model.
        runner: what forward and backward passes are made by.
        weights: of the kinds of rows.
        left_out: how many rows it lacks because they were too long.

    Attributes:
        left_out: see there.
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
        """Takes the base model's distributions where nothing may change."""
        if not self._guarded:
            return

        def distributions(*batches: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (logits(base, batches).log_softmax(-1),)

        logits = self._layout.logits
        (found,) = self._runner.run("anchor", distributions, self._layout.batches(self._guarded))
        # Places of padding lie between and after those of the rows.
        kept = self._layout.real_places(self._guarded)
        padded = torch.zeros(self._fixed[-2].shape[1], found.shape[1], device=self._device)
        padded[: len(kept)] = found[kept]
        self._base = padded

    def measure(self, model: Any, trained: Sequence[Tensor]) -> LessonScores:
        """One forward pass over the lesson; on a GPU the backward pass comes with it.

        Args:
            model: a causal LM.
            trained: its weights that steps change.
        """
        logits = partial(self._layout.logits, model)
        inputs = [*self._fixed, self._where, self._base, *self._batches]
        if self._runner.has_graphs:
            values, norm, *directions = self._runner.run(
                "lesson", lambda *tensors: _with_descent(logits, trained, tensors), inputs
            )
            descent = Descent(directions, norm.item())
            return self._measured(values.tolist(), lambda: descent)
        loss, values = _values(logits, inputs)

        def descend() -> Descent:
            norm, *directions = _descent(loss, trained)
            return Descent(directions, norm.item())

        return self._measured(values.tolist(), descend)

    def measure_gradient(
        self, model: Any, trained: Sequence[Tensor]
    ) -> tuple[LessonScores, Sequence[Tensor]]:
        """As `measure`, with the gradient itself: for an optimizer that has a memory.

        Returns:
            What was measured, which has no descent of its own; and the loss's gradient, one tensor
            for each trained weight, good until the next lesson is measured.
        """

        def values_and_gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
            loss, values = _values(logits, inputs)
            return (values, *gradient(loss, trained))

        logits = partial(self._layout.logits, model)
        inputs = [*self._fixed, self._where, self._base, *self._batches]
        values, *gradients = self._runner.run("gradient", values_and_gradient, inputs)
        return self._measured(values.tolist(), _no_descent), gradients

    def look(self, model: Any, name: str) -> list[float]:
        """Log-probabilities of all answers, in the order of roles and rows; nothing else.

        Args:
            model: a causal LM.
            name: of the model, to the runner.
        """

        def values(*inputs: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (_values(logits, inputs)[1],)

        logits = partial(self._layout.logits, model)
        inputs = [*self._fixed, self._where, self._base, *self._batches]
        (found,) = self._runner.run(f"look at {name}", values, inputs)
        answers: list[float] = found.tolist()[2 : 2 + len(self._answering)]
        return answers

    @property
    def size(self) -> tuple[int, int]:
        """Tokens of all rows, and places where the prediction matters; padding left out."""
        rows = [*self._answering, *self._guarded]
        return sum(len(row.tokens) for row in rows), sum(len(row.places) for row in rows)

    @property
    def answer_tokens(self) -> int:
        """Of the answer to the fact's own question, terminator included."""
        return len(self._own_row.places)

    def own_question(self, copies: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The fact's own question and answer, several times over.

        Returns:
            Tokens [copies, T]; row and column of each place of the answer [copies * P]; which of an
            answer's places count [P], since some only fill up.
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
    def _own_row(self) -> Row:
        """The question as it is asked: a row apart where it is taught as another text."""
        asked = [row for row in self._answering if row.role is Role.ASKED]
        return (asked or self._answering)[0]

    def _measured(self, values: list[float], descent: Callable[[], Descent]) -> LessonScores:
        """Takes the flat values of `_values` apart."""
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
        """[N + M]: where the answers' places, then the guarded ones, are among all logits."""
        real = self._layout.real_places([*self._answering, *self._guarded])
        answers = sum(len(row.places) for row in self._answering)
        padded = [0] * (self._fixed[0].shape[0] - answers)
        guarded = real[answers:]
        missing = [0] * (self._fixed[-2].shape[1] - len(guarded))
        return torch.tensor([*real[:answers], *padded, *guarded, *missing], device=self._device)

    def _of_answers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Targets [N], places by answer [A, N], and weight and share of the fact of each [A]."""
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
        """The weight of each place in its guarded row [G, M], and of each row [G]."""
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
    """How much each place of a guarded row counts; 1 together."""
    count = len(row.places)
    if row.role is Role.TEXT or count == 1:
        return [1 / count] * count
    return [FIRST_TOKEN_SHARE, *[(1 - FIRST_TOKEN_SHARE) / (count - 1)] * (count - 1)]


def _values(logits_of: LogitsOf, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss, and all that is measured as one row of numbers.

    Args:
        logits_of: a model at the places of what was laid out.
        inputs: targets [N], places by answer [A, N], weights [A], shares of the fact [A], weights
            of places by guarded row [G, M], weights [G], where their logits are [N + M], the base
            model's log-probabilities [M, V], and what was laid out.

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
    told = [loss[None], (of_fact @ means)[None], -totals, divergences]
    return loss, torch.cat(told).detach()


def _with_descent(
    logits_of: LogitsOf, trained: Sequence[Tensor], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What is measured, and `_descent` from there."""
    loss, values = _values(logits_of, inputs)
    return (values, *_descent(loss, trained))


def _descent(loss: Tensor, trained: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Norm of the gradient, and where a step goes."""
    norm, directions = norm_and_directions(gradient(loss, trained))
    return (norm, *directions)


def _by_role(rows: Sequence[Row], values: Sequence[float]) -> dict[Role, list[float]]:
    found: dict[Role, list[float]] = {role: [] for role in Role}
    # Rows that only fill up come last.
    for row, value in zip(rows, values, strict=False):
        found[row.role].append(value)
    return found
