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
from agent.learner.sampling.decode_batch import Noticed, Rows, Shape, Start

# Rows are added and given up, and room is made for states, in multiples of these.
ROWS, STATES = 16, 64
# Prompts that are computed together, and their tokens, padding included.
PROMPTS, PROMPT_TOKENS = 64, 2048
# Rows that are kept where they are dear, of different numbers; those of more than twice the number
# that is needed are not used.
KEPT = 4

_Seen = tuple[Sample, Noticed]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A sample whose text is complete, to be counted."""

    sample: Sample
    noticed: Noticed
    text: str | None
    correct: bool


class OutOfRangeError(Exception):
    """A text left the range of half precision, for all that is known."""


class Scheduler:
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
        tallies: Sequence[Tally],
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
        self._waiting: Iterator[Sample] = iter(())
        self._again: deque[Sample] = deque()
        self._left = 0  # not settled
        self._rows: Rows | None = None
        self._in_row: list[Sample | None] = []
        self._out: list[_Seen] = []  # have ended, and are not graded
        self._ended: list[_Ended] = []
        self._done: list[tuple[int, CellResult]] = []

    @property
    def unfinished(self) -> bool:
        """Whether there are samples to be drawn."""
        return self._left > 0

    def right_at_once(self) -> list[tuple[int, CellResult]]:
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

    def finished(self) -> list[tuple[int, CellResult]]:
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

    def _was_foreseen(self, tally: Tally, ids: list[int]) -> bool:
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
        size = rounded_up(len(live), ROWS)
        if not rows.are_dear and size <= len(self._in_row) // 2:
            spare = [row for row, sample in enumerate(self._in_row) if sample is None]
            kept = [*live, *spare][:size]
            rows.keep(kept)
            self._in_row = [self._in_row[row] for row in kept]
        return rows

    def _next(self, number: int) -> list[Sample]:
        """At most so many samples; first those that come again."""
        again = [self._again.popleft() for _ in range(min(number, len(self._again)))]
        return [*again, *islice(self._waiting, number - len(again))]

    def _new_rows(self, most_rows: int) -> Rows:
        vocabulary = self._watch.table.shape[1]
        looked_for = [self._spellings[t.cell.answer] for t in self._tallies if t.cell.estimate]
        longest = max((len(ids) for of_one in looked_for for ids in of_one), default=0)
        shape = Shape(
            rows=min(most_rows, rounded_up(self._left, ROWS)),
            width=self._width,
            most=max(tally.cell.sampling.most(vocabulary) for tally in self._tallies),
            states=rounded_up(len(self._watch.table), STATES),
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
        self, rows: Rows, tally: Tally, uniforms: list[NDArray[np.float64]], most_rows: int
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

    def _compute_prompts(self, rows: Rows, tally: Tally, most: int) -> None:
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


def rounded_up(size: int, unit: int) -> int:
    """Up to a multiple of the unit, at least one."""
    return max(1, -(-size // unit)) * unit
