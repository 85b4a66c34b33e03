"""The layout of rows as tensors: packed end to end where the model allows it, else padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from agent.learner.engine.cuda_graphs import PLACES, ROWS, TOKENS, WIDTH, Runner
from agent.learner.inference.logits import logits_at, packed_logits_at
from agent.learner.training.rows import Role, Row


class RowLayout:
    """Lays rows out for one runner; sizes are rounded up as it asks.

    Args:
        packs: whether texts are laid end to end.
        pad: token that fills rows up; causal attention never looks at it.
        device: of the model.
        runner: what passes are made by.
    """

    def __init__(self, packs: bool, pad: int, device: torch.device, runner: Runner) -> None:
        self._packs, self._pad, self._device, self._runner = packs, pad, device, runner

    def batches(self, rows: Sequence[Row]) -> list[Tensor]:
        """The tensors that a model reads these rows from; rows are in the order of roles."""
        lay_out = self._packed if self._packs else self._padded
        return [tensor for group in self._groups(rows) for tensor in lay_out(group)]

    def real_places(self, rows: Sequence[Row]) -> list[int]:
        """Where their places are among those of `batches`, padding left out."""
        found: list[int] = []
        start = 0
        for group in self._groups(rows):
            count = sum(len(row.places) for row in group)
            found += range(start, start + count)
            start += self._runner.rounded(count, PLACES)
        return found

    @property
    def logits(self) -> Callable[[Any, Sequence[Tensor]], Tensor]:
        """Computes [places, V] logits from a model and from what `batches` returned."""
        return _packed_logits if self._packs else _padded_logits

    def _groups(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The rows that are computed together, in the order of roles."""
        if self._packs:
            return [list(rows)]
        # General text is longer than questions: in a batch of its own it pads nobody.
        short = [row for row in rows if row.role is not Role.TEXT]
        long = [row for row in rows if row.role is Role.TEXT]
        return [group for group in (short, long) if group]

    def _packed(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Texts end to end, see `packed_logits_at`; what fills them up is texts of padding."""
        runner = self._runner
        lengths = [len(row.tokens) for row in rows]
        *starts, total = accumulate(lengths, initial=0)
        missing = runner.rounded(total, TOKENS) - total
        tokens = [token for row in rows for token in row.tokens] + [self._pad] * missing
        places = [
            start + place for start, row in zip(starts, rows, strict=True) for place in row.places
        ]
        places += [0] * (runner.rounded(len(places), PLACES) - len(places))
        # General text is longer than questions: it would make attention to them dear.
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
        """Tokens [B, T], and row and column of each place [N], rounded up by the runner."""
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


def _packed_logits(model: Any, tensors: Sequence[Tensor]) -> Tensor:
    """[places, V], of what `RowLayout._packed` gave."""
    return packed_logits_at(model, *tensors)


def _padded_logits(model: Any, tensors: Sequence[Tensor]) -> Tensor:
    """[places of all batches, V]; each batch is what `RowLayout._padded` gave."""
    parts = [logits_at(model, *tensors[start : start + 3]) for start in range(0, len(tensors), 3)]
    return torch.cat(parts)
