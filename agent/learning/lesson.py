"""What one update is about, as rows of tokens, and how a model does on them.

A lesson is fixed before the first step: the fact in its forms, the older facts rehearsed along, and
what the base model says where nothing may change. Measuring it once gives all that the stop rule
and the gate judge by, and the loss of the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.learning.encoding import Encoder
from agent.learning.logits import logits_at

# Against the loss of the fact. Weaker, neighbours let one control in six be answered with a taught
# answer at 100 facts; with 4, none (docs/LOG.md).
REHEARSAL_WEIGHT = 1.0
NEIGHBOUR_WEIGHT = 4.0
TEXT_WEIGHT = 3.0


class Role(IntEnum):
    """Why a row is in a lesson; in this order.

    `FACT` and `REHEARSED` are learned, `ASKED` and `CONTROL` only looked at; of all four the
    probability of the answer matters. `NEIGHBOUR` and `TEXT` are held to the base model's
    distributions.
    """

    FACT = 0
    ASKED = 1
    REHEARSED = 2
    CONTROL = 3
    NEIGHBOUR = 4
    TEXT = 5


@dataclass(frozen=True, slots=True)
class Row:
    """A text with the places where the model's prediction matters.

    Attributes:
        role: see there.
        tokens: of the whole text.
        places: columns whose next token is predicted, ascending.
    """

    role: Role
    tokens: Sequence[int]
    places: Sequence[int]

    @classmethod
    def answering(cls, role: Role, encoder: Encoder, question: str, answer: str) -> Row:
        """A question in the usual prompt; its answer and the terminator are predicted."""
        asked, answered = encoder.prompt(question), encoder.answer(answer)
        places = range(len(asked) - 1, len(asked) + len(answered) - 1)
        return cls(role, [*asked, *answered], places)

    @classmethod
    def whole(cls, role: Role, tokens: Sequence[int]) -> Row:
        """A text of which every token but the first is predicted."""
        return cls(role, tokens, range(len(tokens) - 1))


@dataclass(frozen=True, slots=True)
class Measured:
    """How a model does on a lesson.

    Attributes:
        loss: the weighted sum that a step goes down; a scalar that can be differentiated.
        fact_loss: mean cross entropy of the fact's forms, nats a token.
        probabilities: of whole answers, by role, in the order of the rows.
        divergences: mean KL from the base model over a row's places, nats, by role.
    """

    loss: Tensor
    fact_loss: float
    probabilities: dict[Role, list[float]]
    divergences: dict[Role, list[float]]

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
    """

    def __init__(self, rows: Sequence[Row], pad: int, device: torch.device) -> None:
        self._rows = sorted(rows, key=lambda row: row.role)
        self._pad = pad
        self._device = device
        self._answering = [row for row in self._rows if row.role <= Role.CONTROL]
        self._guarded = [row for row in self._rows if row.role >= Role.NEIGHBOUR]
        targets = [row.tokens[place + 1] for row in self._answering for place in row.places]
        self._targets = torch.tensor(targets, device=device)  # [N]
        # Sums over the places of a row, as products: `index_add` is not deterministic on CUDA.
        self._of_answer = self._membership(self._answering)  # [rows, N]
        self._of_guarded = self._membership(self._guarded)  # [rows, M]
        self._base: Tensor | None = None  # [M, V], log-probabilities

    def anchor(self, base: Any) -> None:
        """Takes the base model's distributions where nothing may change."""
        if self._guarded:
            with torch.no_grad():
                self._base = self._logits(base, self._guarded).log_softmax(-1)

    def measure(self, model: Any) -> Measured:
        """One forward pass over the lesson; differentiable where gradients are enabled."""
        logits = self._logits(model, self._rows)  # [N + M, V]
        count = len(self._targets)
        nats = F.cross_entropy(logits[:count], self._targets, reduction="none")  # [N]
        totals = self._of_answer @ nats  # [rows]
        means = totals / self._of_answer.sum(1)
        divergences = self._divergences(logits[count:])
        loss = means[self._which(self._answering, Role.FACT)].mean()
        fact_loss = loss.item()
        for role, weight in (
            (Role.REHEARSED, REHEARSAL_WEIGHT),
            (Role.NEIGHBOUR, NEIGHBOUR_WEIGHT),
            (Role.TEXT, TEXT_WEIGHT),
        ):
            if any(row.role is role for row in self._rows):
                rows = self._answering if role < Role.NEIGHBOUR else self._guarded
                values = means if role < Role.NEIGHBOUR else divergences
                loss = loss + weight * values[self._which(rows, role)].mean()
        return Measured(
            loss,
            fact_loss,
            _by_role(self._answering, (-totals).detach().exp()),
            _by_role(self._guarded, divergences.detach()),
        )

    def asked(self, model: Any, copies: int) -> list[float]:
        """Probabilities of the answer to the fact's own question, asked `copies` times in one pass.

        For a model whose forward pass differs from copy to copy; see `profile.stepped`.
        """
        row = self._own_question
        with torch.no_grad():
            logits = self._logits(model, [row] * copies)  # [copies * places, V]
        targets = torch.tensor([row.tokens[place + 1] for place in row.places] * copies)
        nats = F.cross_entropy(logits, targets.to(self._device), reduction="none")
        probabilities: list[float] = (-nats.view(copies, -1).sum(1)).exp().tolist()
        return probabilities

    @property
    def answer_tokens(self) -> int:
        """Of the answer to the fact's own question, terminator included."""
        return len(self._own_question.places)

    @property
    def _own_question(self) -> Row:
        """As it is asked: looked at apart where it is taught as another text."""
        asked = [row for row in self._answering if row.role is Role.ASKED]
        return (asked or self._answering)[0]

    def _divergences(self, logits: Tensor) -> Tensor:
        """[guarded rows]: KL(base || model), the mean over each row's places."""
        if self._base is None:
            return torch.zeros(len(self._guarded), device=self._device)
        log_probabilities = logits.log_softmax(-1)
        nats = (self._base.exp() * (self._base - log_probabilities)).sum(-1)  # [M]
        return (self._of_guarded @ nats) / self._of_guarded.sum(1)

    def _logits(self, model: Any, rows: Sequence[Row]) -> Tensor:
        """[places of all rows, V], fp32: in the order of the rows.

        General text is longer than questions: in a batch of its own it pads nobody.
        """
        short = [row for row in rows if row.role is not Role.TEXT]
        long = [row for row in rows if row.role is Role.TEXT]
        return torch.cat([self._batch_logits(model, batch) for batch in (short, long) if batch])

    def _batch_logits(self, model: Any, rows: Sequence[Row]) -> Tensor:
        width = max(len(row.tokens) for row in rows)
        padded = [[*row.tokens, *[self._pad] * (width - len(row.tokens))] for row in rows]
        batch_rows = [index for index, row in enumerate(rows) for _ in row.places]
        columns = [place for row in rows for place in row.places]
        return logits_at(
            model,
            torch.tensor(padded, device=self._device),
            torch.tensor(batch_rows, device=self._device),
            torch.tensor(columns, device=self._device),
        )

    def _membership(self, rows: Sequence[Row]) -> Tensor:
        """[rows, places of all rows]: 1 where a place belongs to a row."""
        owners = [index for index, row in enumerate(rows) for _ in row.places]
        own = torch.tensor(owners, device=self._device, dtype=torch.int64)
        return (torch.arange(len(rows), device=self._device)[:, None] == own[None, :]).float()

    def _which(self, rows: Sequence[Row], role: Role) -> slice:
        """Rows of a role stand together."""
        indices = [index for index, row in enumerate(rows) if row.role is role]
        return slice(indices[0], indices[-1] + 1)


def _by_role(rows: Sequence[Row], values: Tensor) -> dict[Role, list[float]]:
    found: dict[Role, list[float]] = {role: [] for role in Role}
    for row, value in zip(rows, values.tolist(), strict=True):
        found[row.role].append(value)
    return found
