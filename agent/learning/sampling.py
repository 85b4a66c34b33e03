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
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.errors import ConfigError, ModelError
from agent.learning.drawing import PAPER_SAMPLING, Sampling
from agent.learning.encoding import Encoder
from agent.learning.estimate import Estimate, Sums
from agent.learning.matching import Vocabulary, is_spelled, occurs, spellings
from agent.learning.rows import Answers, Rows, Start
from agent.learning.slots import TOO_LITTLE_MEMORY, Prompt, is_out_of_memory, require_slots

__all__ = ["PAPER_SAMPLING", "Cell", "Sampled", "Sampler", "Sampling"]

logger = logging.getLogger(__name__)

# Rows are added and given up in multiples of this.
ROWS = 16
# Prompts that are kept computed.
PROMPTS = 64
# Texts that are kept of a cell: of its first samples, and of its first right ones.
TEXTS = 3


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
        model: a causal LM, in evaluation mode.
        tokenizer: its tokenizer.
        eos: the token that ends a text.
        rows: texts at once, at most. Halved if memory does not suffice, and left so.
        max_tokens: longest text that the model takes.

    Raises:
        ConfigError: there is no row.
        ModelError: the model has no key-value cache of the usual kind, or memory does not suffice
            for one text.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, eos: int, rows: int = 256, max_tokens: int = 2048
    ) -> None:
        if rows < 1:
            raise ConfigError(f"{rows} rows: choose at least 1")
        self._model = model
        self._device: torch.device = model.get_input_embeddings().weight.device
        self._encoder = Encoder(tokenizer, eos, self._device)
        require_slots(model, self._device)
        size: int = model.get_output_embeddings().weight.shape[0]
        self._vocabulary = Vocabulary(tokenizer, size, self._device)
        self._max_tokens = max_tokens
        self.rows = rows
        self._halved = False

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
        """As `finished`, a token of every row at a time; yields what that finished."""
        run = _Run(self._model, self._encoder, self._vocabulary, self._tallies(cells))
        yield run.right_at_once()
        while run.unfinished:
            try:
                done = run.step(self.rows)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                done = None
            # Not in the handler: there the error's traceback holds on to tensors.
            if done is None:
                run.start_over()
                self._halve()
            yield done or []

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
        for number in range(self.cell.samples):
            yield _Sample(self, number, stream.random(self.limit - len(self.ids)))

    def settle(self, number: int, text: str, *, correct: bool, tokens: int) -> None:
        """Counts one sample."""
        self._settled += 1
        self._correct += correct
        self._tokens += tokens
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


class _Run:
    """The samples of some cells, on their way through the rows.

    Args:
        model: a causal LM.
        encoder: its tokenizer.
        vocabulary: its tokens.
        tallies: one for each cell.
    """

    def __init__(
        self, model: Any, encoder: Encoder, vocabulary: Vocabulary, tallies: Sequence[_Tally]
    ) -> None:
        self._model, self._encoder = model, encoder
        self._tallies = tallies
        words = list(dict.fromkeys(tally.cell.answer for tally in tallies))
        self._number_of = {word: number for number, word in enumerate(words)}
        self._spellings = [spellings(encoder, word) for word in words]
        self._answers = Answers(vocabulary.may_end(words), self._spellings)
        self._prompts: dict[tuple[int, ...], Prompt] = {}
        self._waiting: Iterator[_Sample] = iter(())
        self._again: deque[_Sample] = deque()
        self._left = 0  # not settled
        self._rows: Rows | None = None
        self._in_row: list[_Sample | None] = []

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
                open_.append(tally)
                continue
            for number in range(tally.cell.samples):
                tally.settle(number, text, correct=True, tokens=0)
                tally.sums.add(1.0)
            done.append((tally.number, tally.result()))
        self._waiting = chain.from_iterable(tally.samples() for tally in open_)
        self._left = sum(tally.cell.samples for tally in open_)
        return done

    def step(self, most_rows: int) -> list[tuple[int, Sampled]]:
        """Fills free rows and draws a token in each; returns the cells that this finished."""
        self._fill(most_rows)
        assert self._rows is not None
        done, free = [], []
        for noticed in self._rows.step():
            sample = self._in_row[noticed.row]
            assert sample is not None
            tally = sample.tally
            text = self._encoder.decode(noticed.ids)
            correct = occurs(tally.cell.answer, text)
            if not (correct or noticed.ended):
                continue
            tally.settle(
                sample.number,
                text,
                correct=correct,
                tokens=len(noticed.ids) - len(tally.ids),
            )
            tally.sums.add(
                noticed.chance,
                otherwise=correct and not self._was_foreseen(tally, noticed.ids),
                extra_tokens=noticed.extra_tokens,
            )
            self._in_row[noticed.row] = None
            free.append(noticed.row)
            self._left -= 1
            if tally.done:
                done.append((tally.number, tally.result()))
        self._rows.free(free)
        return done

    def start_over(self) -> None:
        """Gives up the rows; what was in them comes again, with the same random numbers."""
        self._again.extendleft(sample for sample in reversed(self._in_row) if sample)
        self._rows, self._in_row = None, []
        self._prompts.clear()

    def _was_foreseen(self, tally: _Tally, ids: list[int]) -> bool:
        """Whether the answer at the end was part of the chances that were summed."""
        known = self._spellings[self._number_of[tally.cell.answer]]
        return is_spelled(ids[len(tally.ids) :], known)

    def _fill(self, most_rows: int) -> None:
        if self._rows is None:
            size = min(most_rows, _rounded(self._left))
            self._rows = self._new_rows(size)
            self._in_row = [None] * size
        free = [row for row, sample in enumerate(self._in_row) if sample is None]
        samples = self._next(len(free))
        if samples:
            for row, sample in zip(free, samples, strict=False):
                self._in_row[row] = sample
            self._rows.start(free[: len(samples)], [self._start(sample) for sample in samples])
        # Nothing more will come: half-empty batches are given up.
        live = [row for row, sample in enumerate(self._in_row) if sample]
        if _rounded(len(live)) <= len(self._in_row) // 2:
            spare = [row for row, sample in enumerate(self._in_row) if sample is None]
            kept = [*live, *spare][: _rounded(len(live))]
            self._rows.keep(kept)
            self._in_row = [self._in_row[row] for row in kept]

    def _next(self, number: int) -> list[_Sample]:
        """At most so many samples; first those that come again."""
        again = [self._again.popleft() for _ in range(min(number, len(self._again)))]
        return [*again, *islice(self._waiting, number - len(again))]

    def _new_rows(self, size: int) -> Rows:
        vocabulary = self._answers.may_end.shape[1]
        return Rows(
            self._model,
            self._answers,
            eos=self._encoder.eos,
            size=size,
            width=max(tally.limit for tally in self._tallies),
            most=max(min(t.cell.sampling.top_k or vocabulary, vocabulary) for t in self._tallies),
        )

    def _start(self, sample: _Sample) -> Start:
        tally = sample.tally
        key = tuple(tally.ids)
        if key not in self._prompts:
            if len(self._prompts) >= PROMPTS:
                self._prompts.clear()
            self._prompts[key] = Prompt(self._model, tally.ids)
        return Start(
            prompt=self._prompts[key],
            limit=tally.limit,
            sampling=tally.cell.sampling,
            answer=self._number_of[tally.cell.answer],
            uniforms=sample.uniforms,
            estimated=tally.cell.estimate,
        )


def _rounded(rows: int) -> int:
    return max(1, -(-rows // ROWS)) * ROWS


def _keep_first(texts: dict[int, str], number: int, text: str) -> None:
    """Keeps the texts with the lowest numbers."""
    texts[number] = text
    if len(texts) > TEXTS:
        del texts[max(texts)]
