"""Sampling at scale: how often an answer occurs in a model's continuations of a prompt.

Many cells share a batch; each row has its own settings. A row ends at the terminator, at its limit,
or as soon as the answer has occurred, and is then filled with the next sample. Only counts and a
few texts are kept.

The random numbers of a sample depend only on its cell's key and its number in the cell. So a cell's
result does not depend on the other cells or on the number of rows, except where a draw falls within
the rounding of a probability (about 1e-6), which differs between shapes on a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from agent.errors import ConfigError, ModelError
from agent.learner.engine.fp16_copy import Fp16Copy
from agent.learner.engine.fused_layers import TRITON, Operations, fuse, kernels_for
from agent.learner.engine.kv_cache import (
    ROOM,
    TOO_LITTLE_MEMORY,
    is_out_of_memory,
    require_kv_cache,
)
from agent.learner.environment import products_rounded
from agent.learner.inference.encoding import Encoder
from agent.learner.sampling.answer_matcher import Vocabulary
from agent.learner.sampling.cell import Cell, CellResult, Tally
from agent.learner.sampling.decode_batch import STEPS, DecodeBatch
from agent.learner.sampling.scheduler import OutOfRangeError, Scheduler, rounded_up
from agent.learner.sampling.truncation import PAPER_SAMPLING, Sampling

__all__ = ["PAPER_SAMPLING", "Cell", "CellResult", "Sampler", "Sampling"]

logger = logging.getLogger(__name__)

# Rounding of fp32 matrix products that come along with an fp16 copy: as coarse (TF32).
ROUNDED = "high"


class Sampler:
    """Samples from one model. Its weights may change between two calls, not during one.

    A text ends where the model predicts NaN, as after a step at too large a rate.

    Args:
        model: a causal LM, in evaluation mode. On a GPU its layers are fused where they can be.
        tokenizer: its tokenizer.
        eos: the token that ends a text.
        rows: most texts at once. Halved for good if memory runs out.
        max_tokens: longest text that the model takes.
        half: sample from an fp16 copy, see `Fp16Copy`, and round the remaining fp32 products as
            coarsely (TF32). Probabilities change by thousandths of their value.
        steps: tokens of each text between two looks at the device; has no effect on results. None
            means 1 on a CPU, where looking is free, and `STEPS` on a GPU.

    Raises:
        ConfigError: `rows` or `steps` is below 1.
        ModelError: the model has no key-value cache of the usual kind, or there is too little
            memory for one text, or for the copy.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        eos: int,
        rows: int = 256,
        max_tokens: int = 2048,
        half: bool = False,
        steps: int | None = None,
    ) -> None:
        if rows < 1:
            raise ConfigError(f"{rows} rows: choose at least 1")
        if steps is not None and steps < 1:
            raise ConfigError(f"{steps} steps: choose at least 1")
        self._model = model
        self._device: torch.device = model.get_input_embeddings().weight.device
        self._encoder = Encoder(tokenizer, eos, self._device)
        if kernels_for(self._device.type) == TRITON:
            fuse(model, Operations.by_triton())
        require_kv_cache(model, self._device)
        try:
            self._half = Fp16Copy(model) if half else None
        except torch.OutOfMemoryError as error:
            raise ModelError(TOO_LITTLE_MEMORY) from error
        size: int = model.get_output_embeddings().weight.shape[0]
        self._vocabulary = Vocabulary(tokenizer, size)
        self._max_tokens = max_tokens
        self._steps = steps or (STEPS if self._device.type == "cuda" else 1)
        self.rows = rows
        self._halved = False
        self._kept: list[DecodeBatch] = []

    def has_room(self, cell: Cell) -> bool:
        """Whether at least one token can follow the cell's prompt."""
        try:
            self._tallies([cell])
        except ConfigError:
            return False
        return True

    def sample(self, cells: Sequence[Cell]) -> list[CellResult]:
        """Samples all cells; returns their results in the same order.

        Raises:
            ConfigError: a cell's prompt leaves no room for a token.
            ModelError: there is too little memory for a single row.
        """
        found = dict(self.finished(cells))
        return [found[number] for number in range(len(cells))]

    def finished(self, cells: Sequence[Cell]) -> Iterator[tuple[int, CellResult]]:
        """As `sample`, but yields each cell's number and result as soon as it is done."""
        for done in self.steps(cells):
            yield from done

    @torch.inference_mode()
    def steps(self, cells: Sequence[Cell]) -> Iterator[list[tuple[int, CellResult]]]:
        """As `finished`, but yields after each look, also if no cell is done."""
        tallies = self._tallies(cells)
        longest = max((tally.limit for tally in tallies), default=0)
        if self._half:
            self._half.follow()
        run = Scheduler(
            self._half.model if self._half else self._model,
            self._model if self._half else None,
            self._encoder,
            self._vocabulary,
            tallies,
            width=min(rounded_up(longest, ROOM), self._max_tokens),
            steps=self._steps,
            kept=self._kept,
        )
        yield run.right_at_once()
        while run.unfinished:
            starved = False
            try:
                with products_rounded(ROUNDED) if self._half else nullcontext():
                    run.step(self.rows)
            except OutOfRangeError:
                logger.info("a text left the range of fp16: sampling goes on in fp32")
                run.start_over(whole=True)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                starved = True
            # Outside the handler, where the error's traceback would keep tensors alive.
            if starved:
                run.start_over()
                self._halve()
            yield run.finished()
        run.keep_batch()

    def _tallies(self, cells: Sequence[Cell]) -> list[Tally]:
        tallies = []
        for number, cell in enumerate(cells):
            ids = self._encoder.encode(cell.prompt)
            limit = cell.sampling.limit(len(ids))
            if limit > self._max_tokens:
                raise ConfigError(
                    f"texts of {limit} tokens are longer than the model takes"
                    f" ({self._max_tokens}): lower max_length or max_new_tokens"
                )
            tallies.append(Tally(number, cell, ids, limit))
        return tallies

    def _halve(self) -> None:
        if self.rows == 1:
            raise ModelError(TOO_LITTLE_MEMORY)
        if not self._halved:
            logger.warning("too little memory for %d texts at once: going on with fewer", self.rows)
        self._halved = True
        self.rows //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
