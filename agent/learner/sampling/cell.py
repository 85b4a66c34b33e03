"""A cell: samples of one prompt with the same settings, and what was counted in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from agent.learner.sampling.estimate import Estimate, Sums
from agent.learner.sampling.truncation import PAPER_SAMPLING, Sampling

# Number of samples whose random numbers are drawn together.
DRAWN = 256
# How many texts of a cell are kept: of its first samples, and of its first correct ones.
TEXTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What to sample: one prompt, its answer, and settings.

    Attributes:
        prompt: text that the model continues, without any template.
        answer: a sample is right if this occurs in its decoded text, in any case. The prompt is
            part of the text: if it says the answer, all samples are right at once (the paper's
            rule).
        samples: their number, at least 1.
        sampling: settings.
        key: seed of the random numbers; the same key gives the same samples.
        estimate: also estimate the answer's probability, at the cost of looking ahead.

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
class CellResult:
    """The counts of a cell.

    Attributes:
        samples: number of samples.
        correct: number of samples in which the answer occurred.
        tokens: number of sampled tokens, terminators included.
        texts: the first samples' texts, prompt included, up to where sampling stopped.
        correct_texts: the first correct samples' texts.
        estimate: of the answer's probability, if the cell asked for it.
    """

    samples: int
    correct: int
    tokens: int
    texts: tuple[str, ...]
    correct_texts: tuple[str, ...]
    estimate: Estimate | None = None


class Tally:
    """A cell and its counts so far."""

    def __init__(self, number: int, cell: Cell, ids: list[int], limit: int) -> None:
        self.number, self.cell, self.ids, self.limit = number, cell, ids, limit
        self._correct = self._tokens = self._settled = 0
        self._texts: dict[int, str] = {}
        self._correct_texts: dict[int, str] = {}
        self.sums = Sums()

    @property
    def done(self) -> bool:
        """Whether all samples are counted."""
        return self._settled == self.cell.samples

    def samples(self) -> Iterator[Sample]:
        """All samples in order, each with its random numbers."""
        seed = int.from_bytes(hashlib.sha256(self.cell.key.encode()).digest()[:16], "big")
        stream = np.random.Generator(np.random.Philox(seed))
        for first in range(0, self.cell.samples, DRAWN):
            some = min(DRAWN, self.cell.samples - first)
            uniforms = stream.random((some, self.limit - len(self.ids)))
            for number in range(some):
                yield Sample(self, first + number, uniforms[number])

    def wants_text(self, number: int) -> bool:
        """Whether this sample's text may be among those that are kept."""
        return len(self._texts) < TEXTS or number < max(self._texts)

    def settle(self, number: int, text: str | None, *, correct: bool, tokens: int) -> None:
        """Counts one sample. Its text is required if it is correct or wanted."""
        self._settled += 1
        self._correct += correct
        self._tokens += tokens
        if text is not None:
            _keep_first(self._texts, number, text)
            if correct:
                _keep_first(self._correct_texts, number, text)

    def result(self) -> CellResult:
        """The counts of a cell that is done."""
        return CellResult(
            samples=self.cell.samples,
            correct=self._correct,
            tokens=self._tokens,
            texts=tuple(text for _, text in sorted(self._texts.items())),
            correct_texts=tuple(text for _, text in sorted(self._correct_texts.items())),
            estimate=self.sums.estimate(self._tokens) if self.cell.estimate else None,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a cell.

    Attributes:
        tally: of its cell.
        number: in its cell, from 0.
        uniforms: [most new tokens] random numbers in [0, 1), one for each token.
    """

    tally: Tally
    number: int
    uniforms: NDArray[np.float64]


def _keep_first(texts: dict[int, str], number: int, text: str) -> None:
    """Keeps the texts with the lowest numbers."""
    texts[number] = text
    if len(texts) > TEXTS:
        del texts[max(texts)]
