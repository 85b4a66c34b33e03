"""Look-ahead: the exact probability that an answer's spelling follows a token of a text.

A step of the batch gives the probability of a spelling's first token. The probability of its other
tokens is computed here, for all texts and tokens of a look at once. The host does not wait for it:
`begin` starts the computation, `finish` adds its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.learner.engine.cuda_graphs import Function, Runner
from agent.learner.engine.kv_cache import KvCache
from agent.learner.sampling.truncation import NextTokens, Truncation

NO_TOKEN = -1
# On a GPU, R/2 or R/8 places are computed at once: two sizes, so that there are few graphs.
MANY_PART, FEW_PART = 2, 8

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Pending:
    """Probabilities that are being computed, for N pairs of a place and a spelling.

    Attributes:
        rows: [N].
        first: [N] probability of the spelling's first token.
        sizes: [N] tokens of the spelling.
        rest: which of the N, and the probability of their other tokens.
    """

    rows: Ints
    first: Floats
    sizes: Ints
    rest: list[tuple[Ints, Tensor]]


class LookAhead:
    """Sums, for each row, the probabilities that a spelling follows.

    Args:
        cache: the key-value cache of the rows.
        runner: of the same device.
        size: [R, S, M]: rows, spellings of a row at most, tokens of a spelling at most.
    """

    def __init__(self, cache: KvCache, runner: Runner, size: tuple[int, int, int]) -> None:
        self._cache, self._runner = cache, runner
        self._device = cache.device
        self._spellings = np.full(size, NO_TOKEN)
        self._chance = np.zeros(size[0])
        self._extra_tokens = np.zeros(size[0], dtype=np.int64)
        self._pending: list[_Pending] = []
        self._done = torch.cuda.Event() if self._device.type == "cuda" else None

    def start(self, rows: Sequence[int], spellings: Ints) -> None:
        """Starts the sums of some rows, [N], with the spellings to look for, [N, S, M]."""
        self._spellings[rows] = spellings
        self._chance[rows] = self._extra_tokens[rows] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps some rows only, in this order."""
        self._spellings = self._spellings[rows]
        self._chance, self._extra_tokens = self._chance[rows], self._extra_tokens[rows]

    def found(self, row: int) -> tuple[float, int]:
        """The sum of a row, and the tokens that were read to compute it."""
        return float(self._chance[row]), int(self._extra_tokens[row])

    def begin(self, first: Floats, lengths: Ints, truncation: Callable[[], Truncation]) -> None:
        """Starts to compute the probabilities of whole spellings.

        The cache still holds what each token followed, though its text has grown since.

        Args:
            first: [steps, S, R] probability of each spelling's first token.
            lengths: [R] tokens of each text before these steps.
            truncation: gives the settings of the rows. A parameter, not an attribute: a cycle of
                references would keep the memory of a batch that is given up.
        """
        tick, number, row = first.nonzero()  # [N] each, in the order of the tokens
        before = lengths[row] + tick
        spellings = self._spellings[row, number]  # [N, M]
        sizes = (spellings != NO_TOKEN).sum(1)
        rest: list[tuple[Ints, Tensor]] = []
        one_size = self._runner.has_graphs
        for size in [self._spellings.shape[2]] if one_size else np.unique(sizes).tolist():
            [wanted] = (sizes > 1 if one_size else sizes == size).nonzero()
            for some, padded in self._parts(wanted) if size > 1 else ():
                chance = self._chance_of_rest(
                    partial(self._rest, truncation),
                    (row[some], spellings[some, :size], before[some]),
                    padding=padded - len(some),
                )
                rest.append((some, chance))
        if self._done:
            self._done.record()
        self._pending.append(_Pending(row, first[tick, number, row], sizes, rest))

    def finish(self) -> None:
        """Waits for what was begun, and adds it to the sums."""
        if self._done and self._pending:
            self._done.synchronize()
        for pending in self._pending:
            for some, chance in pending.rest:
                pending.first[some] *= chance.numpy()[: len(some)]
            np.add.at(self._chance, pending.rows, pending.first)
            np.add.at(self._extra_tokens, pending.rows, pending.sizes - 1)
        self._pending = []

    def _parts(self, wanted: Ints) -> Iterator[tuple[Ints, int]]:
        """Divides what is wanted into parts; each with the size that it is padded to."""
        many, few = (-(-len(self._chance) // part) for part in (MANY_PART, FEW_PART))
        while len(wanted):
            size = len(wanted)
            if self._runner.has_graphs:
                size = many if len(wanted) > 2 * few else few
            yield wanted[:size], size
            wanted = wanted[size:]

    def _chance_of_rest(
        self, compute: Function, places: tuple[Ints, Ints, Ints], *, padding: int
    ) -> Tensor:
        """Probability of all tokens of spellings but the first, after the first.

        Args:
            compute: `_rest`, with its settings.
            places: rows [N]; tokens of the spellings [N, m], padded with `NO_TOKEN`; number of
                tokens before the spelling [N].
            padding: how many copies of the first to compute along, for the size of a graph.

        Returns:
            [N + padding] float64 on the host, valid once the device is done.
        """
        _, spellings, before = places
        columns = self._cache.columns(int(before.max()) + spellings.shape[1] - 1)
        inputs = [
            to_device(np.concatenate([array, np.repeat(array[:1], padding, axis=0)]), self._device)
            for array in places
        ]
        [chance] = self._runner.run("look ahead", compute, (*inputs, columns))
        # The next run cannot overwrite it first: the copy is ahead of it on the stream.
        on_host = torch.empty(chance.shape, dtype=chance.dtype, pin_memory=self._done is not None)
        return on_host.copy_(chance, non_blocking=True)

    def _rest(
        self,
        truncation: Callable[[], Truncation],
        rows: Tensor,
        spellings: Tensor,
        before: Tensor,
        columns: Tensor,
    ) -> tuple[Tensor, ...]:
        tokens = spellings[:, :-1].clamp(min=0)  # [N, m-1]
        logits = self._cache.look(rows, tokens, before, columns)  # [N, m-1, V]
        settings = truncation().take(rows)
        chance = torch.ones(len(rows), dtype=torch.float64, device=self._device)  # [N]
        for place in range(tokens.shape[1]):
            token = spellings[:, place + 1, None]  # [N, 1]
            after = NextTokens.of(logits[:, place], settings).probability(token)[:, 0]  # [N]
            chance = chance * after.masked_fill(token[:, 0] == NO_TOKEN, 1.0)
        return (chance,)


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; the host does not wait for the copy."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
