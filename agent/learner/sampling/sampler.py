"""Sampling at scale: how often an answer occurs in texts that a model goes on with.

Many cells (a question, its settings) share a batch; each row has settings of its own. A row ends at
the terminator, at its limit, or as soon as the answer has occurred, and makes place for the next
sample. Counts are kept, and a few texts.

The random numbers of a sample depend on its cell's key and its number in the cell alone. So a cell
comes out the same whatever it shares a batch with and however many rows there are, but for a draw
that falls within a probability's rounding (some 1e-6), which differs between shapes on a GPU.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.errors import ConfigError, ModelError
from agent.learner.engine.fp16_copy import HalfCopy
from agent.learner.engine.fused_layers import TRITON, Operations, fuse, kernels_for
from agent.learner.engine.kv_cache import (
    ROOM,
    TOO_LITTLE_MEMORY,
    Prompts,
    is_out_of_memory,
    require_slots,
)
from agent.learner.environment import products_rounded
from agent.learner.inference.encoding import Encoder
from agent.learner.sampling.answer_matcher import Vocabulary, is_spelled, occurs, spellings
from agent.learner.sampling.decode_batch import STEPS, Noticed, Rows, Shape, Start
from agent.learner.sampling.estimate import Estimate, Sums
from agent.learner.sampling.truncation import PAPER_SAMPLING, Sampling

__all__ = ["PAPER_SAMPLING", "Cell", "Sampled", "Sampler", "Sampling"]

logger = logging.getLogger(__name__)

# Rows are added and given up, and room is made for states, in multiples of these.
ROWS, STATES = 16, 64
# Prompts that are computed together, and their tokens, padding included.
PROMPTS, PROMPT_TOKENS = 64, 2048
# Samples whose random numbers are drawn together.
DRAWN = 256
# Texts that are kept of a cell: of its first samples, and of its first right ones.
TEXTS = 3
# How products of fp32 are rounded beside a copy in half precision: as it is.
ROUNDED = "high"
# Rows that are kept where they are dear, of different numbers; those of more than twice the number
# that is needed are not used.
KEPT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Samples of one prompt with the same settings, to be counted.

    Attributes:
        prompt: text that the model goes on with, as it is.
        answer: a sample is right if this occurs in its decoded text, in any case. The prompt is
            part of the text: if it says the answer, all samples are right at once (the paper's
            rule).
        samples: how many, at least 1.
        sampling: settings.
        key: names the random numbers; the same key gives the same samples.
        estimate: estimate the answer's probability too; costs looks ahead, see `Estimate`.

    Raises:
        ConfigError: there is no prompt, no answer, or no sample.
    """

    prompt: str
    answer: str
    samples: int
    sampling: Sampling = PAPER_SAMPLING
    key: str
    estimate: bool = False

    def __post_init__(self) -> None:
        if not self.prompt or not self.answer.strip():
            raise ConfigError("a cell needs a prompt and an answer")
        if self.samples < 1:
            raise ConfigError(f"{self.samples} samples: choose at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What came of a cell.

    Attributes:
        samples: their number.
        correct: in how many the answer occurred.
        tokens: sampled, terminators included.
        texts: of the first samples, prompt included, as far as they were sampled.
        correct_texts: of the first right ones.
        estimate: of the answer's probability, if it was asked for.
    """

    samples: int
    correct: int
    tokens: int
    texts: tuple[str, ...]
    correct_texts: tuple[str, ...]
    estimate: Estimate | None = None


class Sampler:
    """Samples from one model. Its weights may change between two calls, not during one.

    A text ends where the model predicts NaN, as after a step at too large a rate.

    Args:
        model: a causal LM, in evaluation mode. On a GPU its layers are fused where they can be.
        tokenizer: its tokenizer.
        eos: the token that ends a text.
        rows: texts at once, at most. Halved if memory does not suffice, and left so.
        max_tokens: longest text that the model takes.
        half: sample by a copy in half precision, see `HalfCopy`, with the model's own products
            rounded as coarsely (TF32). A probability moves by thousandths of itself.
        steps: tokens of each text between two looks at the device; changes no result. None: 1 on
            a CPU, where looking is free, some on a GPU.

    Raises:
        ConfigError: there is no row, or no step.
        ModelError: the model has no key-value cache of the usual kind, or memory does not suffice
            for one text, or for the copy.
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
        require_slots(model, self._device)
        try:
            self._half = HalfCopy(model) if half else None
        except torch.OutOfMemoryError as error:
            raise ModelError(TOO_LITTLE_MEMORY) from error
        size: int = model.get_output_embeddings().weight.shape[0]
        self._vocabulary = Vocabulary(tokenizer, size)
        self._max_tokens = max_tokens
        self._steps = steps or (STEPS if self._device.type == "cuda" else 1)
        self.rows = rows
        self._halved = False
        self._kept: list[Rows] = []

    def has_room(self, cell: Cell) -> bool:
        """Whether at least one token can follow the cell's prompt."""
        try:
            self._tallies([cell])
        except ConfigError:
            return False
        return True

    def sample(self, cells: Sequence[Cell]) -> list[Sampled]:
        """Samples all cells; results in their order.

        Raises:
            ConfigError: a cell's prompt leaves no room for a token.
            ModelError: memory does not suffice for a single row.
        """
        found = dict(self.finished(cells))
        return [found[number] for number in range(len(cells))]

    def finished(self, cells: Sequence[Cell]) -> Iterator[tuple[int, Sampled]]:
        """As `sample`; yields each cell's number and result as soon as it has all its samples."""
        for done in self.steps(cells):
            yield from done

    @torch.inference_mode()
    def steps(self, cells: Sequence[Cell]) -> Iterator[list[tuple[int, Sampled]]]:
        """As `finished`, but yields what is done after each token of all rows; on a GPU, some."""
        tallies = self._tallies(cells)
        longest = max((tally.limit for tally in tallies), default=0)
        if self._half:
            self._half.follow()
        run = _Run(
            self._half.model if self._half else self._model,
            self._model if self._half else None,
            self._encoder,
            self._vocabulary,
            tallies,
            width=min(_rounded(longest, ROOM), self._max_tokens),
            steps=self._steps,
            kept=self._kept,
        )
        yield run.right_at_once()
        while run.unfinished:
            starved = False
            try:
                with products_rounded(ROUNDED) if self._half else nullcontext():
                    run.step(self.rows)
            except _OutOfRangeError:
                logger.info("a text left the range of fp16: sampling goes on in fp32")
                run.start_over(whole=True)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                starved = True
            # Not in the handler: there the error's traceback holds on to tensors.
            if starved:
                run.start_over()
                self._halve()
            yield run.finished()
        run.keep_rows()

    def _tallies(self, cells: Sequence[Cell]) -> list[_Tally]:
        tallies = []
        for number, cell in enumerate(cells):
            ids = self._encoder.encode(cell.prompt)
            limit = cell.sampling.limit(len(ids))
            if limit > self._max_tokens:
                raise ConfigError(
                    f"texts of {limit} tokens are longer than the model takes"
                    f" ({self._max_tokens}): lower max_length or max_new_tokens"
                )
            tallies.append(_Tally(number, cell, ids, limit))
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


class _Tally:
    """A cell and its counts so far."""

    def __init__(self, number: int, cell: Cell, ids: list[int], limit: int) -> None:
        self.number, self.cell, self.ids, self.limit = number, cell, ids, limit
        self._correct = self._tokens = self._settled = 0
        self._texts: dict[int, str] = {}
        self._correct_texts: dict[int, str] = {}
        self.sums = Sums()

    @property
    def done(self) -> bool:
        return self._settled == self.cell.samples

    def samples(self) -> Iterator[_Sample]:
        """All of them, in order, each with its random numbers."""
        seed = int.from_bytes(hashlib.sha256(self.cell.key.encode()).digest()[:16], "big")
        stream = np.random.Generator(np.random.Philox(seed))
        for first in range(0, self.cell.samples, DRAWN):
            some = min(DRAWN, self.cell.samples - first)
            uniforms = stream.random((some, self.limit - len(self.ids)))
            for number in range(some):
                yield _Sample(self, first + number, uniforms[number])

    def wants_text(self, number: int) -> bool:
        """Whether this sample's text may be kept, right or wrong."""
        return len(self._texts) < TEXTS or number < max(self._texts)

    def settle(self, number: int, text: str | None, *, correct: bool, tokens: int) -> None:
        """Counts one sample; its text is needed if it is right, or wanted."""
        self._settled += 1
        self._correct += correct
        self._tokens += tokens
        if text is not None:
            _keep_first(self._texts, number, text)
            if correct:
                _keep_first(self._correct_texts, number, text)

    def result(self) -> Sampled:
        """Once it is done."""
        return Sampled(
            samples=self.cell.samples,
            correct=self._correct,
            tokens=self._tokens,
            texts=tuple(text for _, text in sorted(self._texts.items())),
            correct_texts=tuple(text for _, text in sorted(self._correct_texts.items())),
            estimate=self.sums.estimate(self._tokens) if self.cell.estimate else None,
        )


@dataclass(frozen=True, slots=True)
class _Sample:
    tally: _Tally
    number: int
    uniforms: NDArray[np.float64]


_Seen = tuple[_Sample, Noticed]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A sample whose text is complete, to be counted."""

    sample: _Sample
    noticed: Noticed
    text: str | None
    correct: bool


class _OutOfRangeError(Exception):
    """A text left the range of half precision, for all that is known."""


class _Run:
    """The samples of some cells, on their way through the rows.

    Args:
        model: a causal LM.
        whole: what it is a copy of in half precision; None if it is no such copy.
        encoder: its tokenizer.
        vocabulary: its tokens.
        tallies: one for each cell.
        width: of the rows, at least that of the longest text.
        steps: between two looks.
        kept: rows of earlier runs, to be used again if they fit; the last was used last.
    """

    def __init__(
        self,
        model: Any,
        whole: Any,
        encoder: Encoder,
        vocabulary: Vocabulary,
        tallies: Sequence[_Tally],
        *,
        width: int,
        steps: int,
        kept: list[Rows],
    ) -> None:
        self._model, self._whole, self._encoder = model, whole, encoder
        self._tallies, self._width, self._steps, self._kept = tallies, width, steps, kept
        words = list(dict.fromkeys(tally.cell.answer for tally in tallies))
        self._spellings = {word: spellings(encoder, word) for word in words}
        self._watch = vocabulary.watch(words)
        self._states: dict[int, int] = {}  # after the prompts, by number of the tally
        self._prompts: dict[tuple[int, ...], tuple[Prompts, int]] = {}
        self._waiting: Iterator[_Sample] = iter(())
        self._again: deque[_Sample] = deque()
        self._left = 0  # not settled
        self._rows: Rows | None = None
        self._in_row: list[_Sample | None] = []
        self._out: list[_Seen] = []  # have ended, and are not graded
        self._ended: list[_Ended] = []
        self._done: list[tuple[int, Sampled]] = []

    @property
    def unfinished(self) -> bool:
        """Whether there are samples to be drawn."""
        return self._left > 0

    def right_at_once(self) -> list[tuple[int, Sampled]]:
        """Settles the cells whose prompt says the answer; the others begin."""
        done, open_ = [], []
        for tally in self._tallies:
            text = self._encoder.decode(tally.ids)
            if not occurs(tally.cell.answer, text):
                self._states[tally.number] = self._watch.state(tally.cell.answer, text)
                open_.append(tally)
                continue
            for number in range(tally.cell.samples):
                tally.settle(number, text, correct=True, tokens=0)
                tally.sums.add(1.0)
            done.append((tally.number, tally.result()))
        self._waiting = chain.from_iterable(tally.samples() for tally in open_)
        self._left = sum(tally.cell.samples for tally in open_)
        return done

    def finished(self) -> list[tuple[int, Sampled]]:
        """The cells that are done since the last time."""
        done, self._done = self._done, []
        return done

    def step(self, most_rows: int) -> None:
        """Draws tokens in each row, and fills those that get free."""
        rows = self._rows
        if rows is None:
            rows = self._fill(most_rows)
            rows.launch()
        rows.look()
        if rows.run_ahead:
            rows.launch()
        suspected = self._take_out(rows.noticed())
        if rows.run_ahead and not rows.under_way:
            # All had ended, as texts do that began together: the next ones first, then counting.
            self._fill(most_rows)
            rows.launch()
        self._grade(rows, suspected)
        self._settle()
        self._fill(most_rows)
        if not rows.run_ahead:
            rows.launch()

    def start_over(self, *, whole: bool = False) -> None:
        """Gives up the rows; what was in them comes again, with the same random numbers.

        Args:
            whole: by the model itself from now on.
        """
        if whole:
            self._model, self._whole = self._whole, None
        self._again.extendleft(sample for sample in reversed(self._in_row) if sample)
        self._rows, self._in_row = None, []
        self._prompts.clear()
        self._kept.clear()  # they take memory

    def keep_rows(self) -> None:
        """At the end, for the next run."""
        if self._rows and self._rows.are_dear:
            self._kept.append(self._rows)
        self._rows = None
        while self._kept and (len(self._kept) > KEPT or not self._kept[0].leave_room):
            del self._kept[0]

    def _take_out(self, noticed: Sequence[Noticed]) -> list[_Seen]:
        """Frees the rows of the texts that have ended; the others, which may go on.

        Raises:
            _OutOfRangeError: half precision lost one.
        """
        if self._whole is not None and any(one.lost for one in noticed):
            raise _OutOfRangeError
        suspected = []
        for one in noticed:
            sample = self._in_row[one.row]
            assert sample is not None
            if one.ended:
                self._in_row[one.row] = None
                self._out.append((sample, one))
            else:
                suspected.append((sample, one))
        return suspected

    def _grade(self, rows: Rows, suspected: Sequence[_Seen]) -> None:
        """Tells right texts from wrong ones, and those that are complete from those that go on."""
        seen = [*self._out, *suspected]
        read = [
            number
            for number, (sample, one) in enumerate(seen)
            if one.suspected or sample.tally.wants_text(sample.number)
        ]
        texts = self._encoder.decode_all([seen[number][1].ids for number in read]) if read else []
        text_of = dict(zip(read, texts, strict=True))
        going_on, states = [], []
        for number, (sample, one) in enumerate(seen):
            answer, text = sample.tally.cell.answer, text_of.get(number)
            correct = one.suspected and text is not None and occurs(answer, text)
            if correct or one.ended:
                self._ended.append(_Ended(sample, one, text, correct))
                if not one.ended:
                    self._in_row[one.row] = None
            else:
                assert text is not None
                going_on.append(one.row)
                states.append(self._watch.state(answer, text))
        self._out = []
        if going_on:
            rows.go_on(going_on, states)

    def _settle(self) -> None:
        """Counts the samples that ended."""
        for ended in self._ended:
            tally, noticed = ended.sample.tally, ended.noticed
            tally.settle(
                ended.sample.number,
                ended.text,
                correct=ended.correct,
                tokens=len(noticed.ids) - len(tally.ids),
            )
            tally.sums.add(
                noticed.chance,
                otherwise=ended.correct and not self._was_foreseen(tally, noticed.ids),
                extra_tokens=noticed.extra_tokens,
            )
            if tally.done:
                self._done.append((tally.number, tally.result()))
        self._left -= len(self._ended)
        self._ended = []

    def _was_foreseen(self, tally: _Tally, ids: list[int]) -> bool:
        """Whether the answer at the end was part of the chances that were summed."""
        return is_spelled(ids[len(tally.ids) :], self._spellings[tally.cell.answer])

    def _fill(self, most_rows: int) -> Rows:
        if self._rows is None:
            self._rows = self._new_rows(most_rows)
            self._rows.watch(self._watch.table)
            self._in_row = [None] * self._rows.shape.rows
        rows = self._rows
        free = [row for row, sample in enumerate(self._in_row) if sample is None]
        samples = self._next(len(free))
        if samples:
            free = free[: len(samples)]
            for row, sample in zip(free, samples, strict=True):
                self._in_row[row] = sample
            together = [
                (tally, [sample.uniforms for sample in some])
                for tally, some in groupby(samples, lambda sample: sample.tally)
            ]
            rows.start(free, [self._start(rows, *some, most_rows) for some in together])
        # Nothing more will come: half-empty batches are given up.
        live = [row for row, sample in enumerate(self._in_row) if sample]
        size = _rounded(len(live), ROWS)
        if not rows.are_dear and size <= len(self._in_row) // 2:
            spare = [row for row, sample in enumerate(self._in_row) if sample is None]
            kept = [*live, *spare][:size]
            rows.keep(kept)
            self._in_row = [self._in_row[row] for row in kept]
        return rows

    def _next(self, number: int) -> list[_Sample]:
        """At most so many samples; first those that come again."""
        again = [self._again.popleft() for _ in range(min(number, len(self._again)))]
        return [*again, *islice(self._waiting, number - len(again))]

    def _new_rows(self, most_rows: int) -> Rows:
        vocabulary = self._watch.table.shape[1]
        looked_for = [self._spellings[t.cell.answer] for t in self._tallies if t.cell.estimate]
        longest = max((len(ids) for of_one in looked_for for ids in of_one), default=0)
        shape = Shape(
            rows=min(most_rows, _rounded(self._left, ROWS)),
            width=self._width,
            most=max(tally.cell.sampling.most(vocabulary) for tally in self._tallies),
            states=_rounded(len(self._watch.table), STATES),
            spellings=max(map(len, looked_for), default=0),
            longest=longest,
            steps=self._steps,
        )
        for kept in sorted(self._kept, key=lambda rows: rows.shape.rows):
            if not shape.rows / 2 <= kept.shape.rows <= min(2 * shape.rows, most_rows):
                continue
            self._kept.remove(kept)
            if kept.fits(self._model, shape):
                return kept
            # So that calls of several kinds soon share their rows.
            shape = shape.with_room_for(kept.shape)
        return Rows(self._model, eos=self._encoder.eos, vocabulary=vocabulary, shape=shape)

    def _start(
        self, rows: Rows, tally: _Tally, uniforms: list[NDArray[np.float64]], most_rows: int
    ) -> Start:
        if tuple(tally.ids) not in self._prompts:
            self._compute_prompts(rows, tally, most_rows)
        prompts, number = self._prompts[tuple(tally.ids)]
        return Start(
            ids=tally.ids,
            prompts=prompts,
            prompt=number,
            limit=tally.limit,
            sampling=tally.cell.sampling,
            state=self._states[tally.number],
            spellings=self._spellings[tally.cell.answer] if tally.cell.estimate else (),
            uniforms=uniforms,
        )

    def _compute_prompts(self, rows: Rows, tally: _Tally, most: int) -> None:
        """Of this cell and of some that come next."""
        together: list[tuple[int, ...]] = []
        longest = 0
        for other in self._tallies[tally.number :]:
            ids = tuple(other.ids)
            if other.number not in self._states or ids in together:
                continue
            longest = max(longest, len(ids))
            if together and longest * (len(together) + 1) > PROMPT_TOKENS:
                break
            together.append(ids)
            if len(together) == min(PROMPTS, most):
                break
        prompts = rows.prompts(together)
        self._prompts = {ids: (prompts, number) for number, ids in enumerate(together)}


def _rounded(size: int, unit: int) -> int:
    """Up to a multiple of the unit, at least one."""
    return max(1, -(-size // unit)) * unit


def _keep_first(texts: dict[int, str], number: int, text: str) -> None:
    """Keeps the texts with the lowest numbers."""
    texts[number] = text
    if len(texts) > TEXTS:
        del texts[max(texts)]
