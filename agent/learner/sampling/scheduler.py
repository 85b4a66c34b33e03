"""Continuous batching: which sample is in which row of the batch, from its start to its count."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.learner.engine.kv_cache import Prompts
from agent.learner.inference.encoding import Encoder
from agent.learner.sampling.answer_matcher import Vocabulary, is_spelled, occurs, spellings
from agent.learner.sampling.cell import CellResult, Sample, Tally
from agent.learner.sampling.decode_batch import BatchShape, DecodeBatch, PausedText, TextStart

# Numbers of rows and of states are rounded up to multiples of these.
ROWS, STATES = 16, 64
# Prompts that are computed together, at most; and their tokens, padding included.
PROMPTS, PROMPT_TOKENS = 64, 2048
# Batches that are kept for later runs, where making one is costly. A batch is reused only if it has
# at most twice the rows that are needed.
KEPT = 4

_Seen = tuple[Sample, PausedText]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A sample whose text is complete, ready to be counted."""

    sample: Sample
    noticed: PausedText
    text: str | None
    correct: bool


class OutOfRangeError(Exception):
    """The fp16 copy predicted NaN: most likely a text left the range of half precision."""


class Scheduler:
    """Draws the samples of some cells in one batch.

    Args:
        model: a causal LM.
        whole: the fp32 model if `model` is its fp16 copy, else None.
        encoder: its tokenizer.
        vocabulary: its tokens.
        tallies: one for each cell.
        width: W of the batch, at least the longest text.
        steps: tokens between two looks.
        kept: batches of earlier runs, most recently used last; reused if they fit.
    """

    def __init__(
        self,
        model: Any,
        whole: Any,
        encoder: Encoder,
        vocabulary: Vocabulary,
        tallies: Sequence[Tally],
        *,
        width: int,
        steps: int,
        kept: list[DecodeBatch],
    ) -> None:
        self._model, self._whole, self._encoder = model, whole, encoder
        self._tallies, self._width, self._steps, self._kept = tallies, width, steps, kept
        words = list(dict.fromkeys(tally.cell.answer for tally in tallies))
        self._spellings = {word: spellings(encoder, word) for word in words}
        self._answer_states = vocabulary.answer_states(words)
        self._states: dict[int, int] = {}  # after the prompts, by number of the tally
        self._prompts: dict[tuple[int, ...], tuple[Prompts, int]] = {}
        self._waiting: Iterator[Sample] = iter(())
        self._again: deque[Sample] = deque()
        self._left = 0  # samples that are not counted yet
        self._batch: DecodeBatch | None = None
        self._in_row: list[Sample | None] = []
        self._out: list[_Seen] = []  # have ended, but are not graded yet
        self._ended: list[_Ended] = []
        self._done: list[tuple[int, CellResult]] = []

    @property
    def unfinished(self) -> bool:
        """Whether there are samples left to draw."""
        return self._left > 0

    def right_at_once(self) -> list[tuple[int, CellResult]]:
        """Counts the cells whose prompt contains the answer; queues the samples of the others."""
        done, open_ = [], []
        for tally in self._tallies:
            text = self._encoder.decode(tally.ids)
            if not occurs(tally.cell.answer, text):
                self._states[tally.number] = self._answer_states.state(tally.cell.answer, text)
                open_.append(tally)
                continue
            for number in range(tally.cell.samples):
                tally.settle(number, text, correct=True, tokens=0)
                tally.sums.add(1.0)
            done.append((tally.number, tally.result()))
        self._waiting = chain.from_iterable(tally.samples() for tally in open_)
        self._left = sum(tally.cell.samples for tally in open_)
        return done

    def finished(self) -> list[tuple[int, CellResult]]:
        """The cells that were finished since the last call."""
        done, self._done = self._done, []
        return done

    def step(self, most_rows: int) -> None:
        """Draws the next tokens of each row, and fills rows that become free."""
        batch = self._batch
        if batch is None:
            batch = self._fill(most_rows)
            batch.launch()
        batch.look()
        if batch.runs_ahead:
            batch.launch()
        suspected = self._take_out(batch.paused())
        if batch.runs_ahead and not batch.is_drawing:
            # All texts ended together: keep the device busy with the next ones before counting.
            self._fill(most_rows)
            batch.launch()
        self._grade(batch, suspected)
        self._settle()
        self._fill(most_rows)
        if not batch.runs_ahead:
            batch.launch()

    def start_over(self, *, whole: bool = False) -> None:
        """Drops the batch; its samples are drawn again, with the same random numbers.

        Args:
            whole: use the fp32 model from now on.
        """
        if whole:
            self._model, self._whole = self._whole, None
        self._again.extendleft(sample for sample in reversed(self._in_row) if sample)
        self._batch, self._in_row = None, []
        self._prompts.clear()
        self._kept.clear()  # to free their memory

    def keep_batch(self) -> None:
        """Keeps the batch for the next run, if that is worth its memory."""
        if self._batch and self._batch.worth_keeping:
            self._kept.append(self._batch)
        self._batch = None
        while self._kept and (len(self._kept) > KEPT or not self._kept[0].leaves_room):
            del self._kept[0]

    def _take_out(self, noticed: Sequence[PausedText]) -> list[_Seen]:
        """Frees the rows of texts that have ended; returns the other texts, which may go on.

        Raises:
            OutOfRangeError: half precision lost one.
        """
        if self._whole is not None and any(one.lost for one in noticed):
            raise OutOfRangeError
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

    def _grade(self, batch: DecodeBatch, suspected: Sequence[_Seen]) -> None:
        """Decides which texts are right, and which of them are complete; the others resume."""
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
                states.append(self._answer_states.state(answer, text))
        self._out = []
        if going_on:
            batch.resume(going_on, states)

    def _settle(self) -> None:
        """Counts the samples that have ended."""
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

    def _was_foreseen(self, tally: Tally, ids: list[int]) -> bool:
        """Whether looking ahead has counted the probability of the answer at the text's end."""
        return is_spelled(ids[len(tally.ids) :], self._spellings[tally.cell.answer])

    def _fill(self, most_rows: int) -> DecodeBatch:
        if self._batch is None:
            self._batch = self._new_batch(most_rows)
            self._batch.use_states(self._answer_states.table)
            self._in_row = [None] * self._batch.shape.rows
        batch = self._batch
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
            batch.start(free, [self._start(batch, *some, most_rows) for some in together])
        # No more samples will come: shrink a batch that is half empty.
        live = [row for row, sample in enumerate(self._in_row) if sample]
        size = rounded_up(len(live), ROWS)
        if not batch.worth_keeping and size <= len(self._in_row) // 2:
            spare = [row for row, sample in enumerate(self._in_row) if sample is None]
            kept = [*live, *spare][:size]
            batch.keep(kept)
            self._in_row = [self._in_row[row] for row in kept]
        return batch

    def _next(self, number: int) -> list[Sample]:
        """Up to `number` samples; first those that must be drawn again."""
        again = [self._again.popleft() for _ in range(min(number, len(self._again)))]
        return [*again, *islice(self._waiting, number - len(again))]

    def _new_batch(self, most_rows: int) -> DecodeBatch:
        vocabulary = self._answer_states.table.shape[1]
        looked_for = [self._spellings[t.cell.answer] for t in self._tallies if t.cell.estimate]
        longest = max((len(ids) for of_one in looked_for for ids in of_one), default=0)
        shape = BatchShape(
            rows=min(most_rows, rounded_up(self._left, ROWS)),
            width=self._width,
            most=max(tally.cell.sampling.most(vocabulary) for tally in self._tallies),
            states=rounded_up(len(self._answer_states.table), STATES),
            spellings=max(map(len, looked_for), default=0),
            longest=longest,
            steps=self._steps,
        )
        for kept in sorted(self._kept, key=lambda batch: batch.shape.rows):
            if not shape.rows / 2 <= kept.shape.rows <= min(2 * shape.rows, most_rows):
                continue
            self._kept.remove(kept)
            if kept.fits(self._model, shape):
                return kept
            # Grow to fit both, so that calls of different shapes soon share one batch.
            shape = shape.with_room_for(kept.shape)
        return DecodeBatch(self._model, eos=self._encoder.eos, vocabulary=vocabulary, shape=shape)

    def _start(
        self, batch: DecodeBatch, tally: Tally, uniforms: list[NDArray[np.float64]], most_rows: int
    ) -> TextStart:
        if tuple(tally.ids) not in self._prompts:
            self._compute_prompts(batch, tally, most_rows)
        prompts, number = self._prompts[tuple(tally.ids)]
        return TextStart(
            ids=tally.ids,
            prompts=prompts,
            prompt=number,
            limit=tally.limit,
            sampling=tally.cell.sampling,
            state=self._states[tally.number],
            spellings=self._spellings[tally.cell.answer] if tally.cell.estimate else (),
            uniforms=uniforms,
        )

    def _compute_prompts(self, batch: DecodeBatch, tally: Tally, most: int) -> None:
        """Computes the prompts of this cell and of some of the next cells."""
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
        prompts = batch.prompts(together)
        self._prompts = {ids: (prompts, number) for number, ids in enumerate(together)}


def rounded_up(size: int, unit: int) -> int:
    """The smallest multiple of the unit that is at least `size`; at least one unit."""
    return max(1, -(-size // unit)) * unit
