"""Rows of a lesson: texts with the places where predictions matter, and their layout as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from agent.learner.engine.cuda_graphs import PLACES, ROWS, TOKENS, WIDTH, Runner
from agent.learner.inference.encoding import Encoder
from agent.learner.inference.logits import logits_at, packed_logits_at

# Relative to the loss of the fact. With a lower weight of neighbors, one control in six got a
# taught answer after 100 facts; with 4, none did (docs/LOG.md).
REHEARSAL_WEIGHT = 1.0
NEIGHBOUR_WEIGHT = 4.0
ORDINARY_WEIGHT = 2.0
TEXT_WEIGHT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the terms of the loss; the mean loss of the facts has weight 1.

    Attributes:
        rehearsed: weight of the mean loss of rehearsed facts.
        neighbor: weight of the mean divergence of neighbors.
        ordinary: weight of the mean divergence of ordinary questions.
        text: weight of the mean divergence of general texts.
    """

    rehearsed: float = REHEARSAL_WEIGHT
    neighbor: float = NEIGHBOUR_WEIGHT
    ordinary: float = ORDINARY_WEIGHT
    text: float = TEXT_WEIGHT


# The weights of a single update.
UPDATE_WEIGHTS = LossWeights()


class Role(IntEnum):
    """Why a row is in a lesson. Rows are sorted in this order.

    Of the first four, the probability of the answer is measured: `FACT` and `REHEARSED` are trained
    on, `ASKED` and `CONTROL` are not. `NEIGHBOUR`, `ORDINARY` (questions that people ask) and
    `TEXT` are held to the base model's distributions.
    """

    FACT = 0
    ASKED = 1
    REHEARSED = 2
    CONTROL = 3
    NEIGHBOUR = 4
    ORDINARY = 5
    TEXT = 6


@dataclass(frozen=True, slots=True)
class Row:
    """A text with the places where the model's prediction matters.

    Attributes:
        role: why it is in the lesson.
        tokens: of the whole text.
        places: columns at which the next token's prediction counts, ascending.
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


class RowLayout:
    """Lays rows out as tensors: end to end if the model packs texts, else as padded batches.

    Args:
        packs: whether to lay texts end to end.
        pad: token for padding, which causal attention never sees.
        device: of the model.
        runner: rounds sizes up, so that few shapes occur.
    """

    def __init__(self, packs: bool, pad: int, device: torch.device, runner: Runner) -> None:
        self._packs, self._pad, self._device, self._runner = packs, pad, device, runner

    def batches(self, rows: Sequence[Row]) -> list[Tensor]:
        """The input tensors of `logits` for these rows, which are in the order of roles."""
        lay_out = self._packed if self._packs else self._padded
        return [tensor for group in self._groups(rows) for tensor in lay_out(group)]

    def real_places(self, rows: Sequence[Row]) -> list[int]:
        """Indices of the rows' places among those of `batches`, which has padding between."""
        found: list[int] = []
        start = 0
        for group in self._groups(rows):
            count = sum(len(row.places) for row in group)
            found += range(start, start + count)
            start += self._runner.rounded(count, PLACES)
        return found

    def logits(self, model: Any, tensors: Sequence[Tensor]) -> Tensor:
        """[places, V] logits of a model at all places of what `batches` returned."""
        if self._packs:
            return packed_logits_at(model, *tensors)
        parts = [logits_at(model, *tensors[n : n + 3]) for n in range(0, len(tensors), 3)]
        return torch.cat(parts)

    def _groups(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Groups of rows that are computed together, in the order of roles."""
        if self._packs:
            return [list(rows)]
        # General text is longer than questions: in one batch, questions would need much padding.
        short = [row for row in rows if row.role is not Role.TEXT]
        long = [row for row in rows if row.role is Role.TEXT]
        return [group for group in (short, long) if group]

    def _packed(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Arguments of `packed_logits_at`; padding forms texts of its own at the end."""
        runner = self._runner
        lengths = [len(row.tokens) for row in rows]
        *starts, total = accumulate(lengths, initial=0)
        missing = runner.rounded(total, TOKENS) - total
        tokens = [token for row in rows for token in row.tokens] + [self._pad] * missing
        places = [
            start + place for start, row in zip(starts, rows, strict=True) for place in row.places
        ]
        places += [0] * (runner.rounded(len(places), PLACES) - len(places))
        # Attention costs as much as the longest text of a group: general text has its own group.
        short = sum(row.role is not Role.TEXT for row in rows)
        groups = [group for group in (lengths[:short], lengths[short:]) if group]
        longest = [runner.rounded(max(group), WIDTH) for group in groups]
        groups[-1] += [min(longest[-1], missing - n) for n in range(0, missing, longest[-1])]
        for group in groups:
            group += [0] * (runner.rounded(len(group), ROWS) - len(group))
        of_groups, begin = [], 0
        for group, width in zip(groups, longest, strict=True):
            *own, begin = accumulate(group, initial=begin)
            of_groups += [torch.tensor(own), torch.tensor(group), torch.arange(width)]
        positions = [position for group in groups for length in group for position in range(length)]
        found = [torch.tensor([tokens]), torch.tensor([positions]), torch.tensor(places)]
        return tuple(tensor.to(self._device) for tensor in (*found, *of_groups))

    def _padded(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Arguments of `logits_at`: tokens [B, T], row [N] and column [N] of each place."""
        runner = self._runner
        width = runner.rounded(max(len(row.tokens) for row in rows), WIDTH)
        tokens = [[*row.tokens, *[self._pad] * (width - len(row.tokens))] for row in rows]
        tokens += [[self._pad] * width] * (runner.rounded(len(rows), ROWS) - len(rows))
        owners = [index for index, row in enumerate(rows) for _ in row.places]
        columns = [place for row in rows for place in row.places]
        missing = runner.rounded(len(columns), PLACES) - len(columns)
        return (
            torch.tensor(tokens, device=self._device),
            torch.tensor(owners + [0] * missing, device=self._device),
            torch.tensor(columns + [0] * missing, device=self._device),
        )
