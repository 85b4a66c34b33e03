"""Do texts begin like those of `generate`? Their first tokens against its probabilities.

The probabilities are exact, from one pass of the baseline model and the library's own filters, so
only our samples are random: a chi-square test of fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from agent.learner.inference.encoding import Encoder
from agent.learner.sampling.sampler import Cell, Sampler, Sampling
from eval.bench.baseline import generated
from eval.bench.figure import WrongResultError

LEAST_P = 1e-4
# By kind of device: texts of each question, and how many questions.
SAMPLES = {"cpu": 200, "cuda": 1000}
QUESTIONS = 4
# Rarer texts are counted together: below this, the statistic has no chi-square distribution.
LEAST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class Fit:
    """The distribution of the texts of a question.

    Attributes:
        groups: texts that are counted together, the rarest first.
        expected: the expected number of texts in each group.
        counted: the actual number; impossible texts count in the first group.
    """

    groups: Sequence[Sequence[str]]
    expected: Sequence[float]
    counted: Sequence[int]

    @classmethod
    def of(cls, probabilities: Mapping[str, float], texts: Sequence[str]) -> Fit:
        """Counts texts, given the probability of each."""
        groups: list[list[str]] = []
        expected: list[float] = []
        for text, probability in sorted(probabilities.items(), key=lambda pair: pair[1]):
            if not groups or expected[-1] >= LEAST_EXPECTED:
                groups.append([])
                expected.append(0.0)
            groups[-1].append(text)
            expected[-1] += probability * len(texts)
        if len(groups) > 1 and expected[-1] < LEAST_EXPECTED:
            groups[-2:] = [[*groups[-2], *groups[-1]]]
            expected[-2:] = [sum(expected[-2:])]
        group_of = {text: number for number, group in enumerate(groups) for text in group}
        counted = [0] * len(groups)
        for text in texts:
            counted[group_of.get(text, 0)] += 1
        return cls(groups, expected, counted)

    @property
    def chi_square(self) -> float:
        """Pearson's statistic."""
        return sum(self._distances())

    @property
    def degrees(self) -> int:
        """Degrees of freedom."""
        return len(self.groups) - 1

    def worst(self) -> str:
        """The group that fits worst, in words."""
        distances = self._distances()
        number = distances.index(max(distances))
        among = ", ".join(map(repr, self.groups[number][:3]))
        due, came = self.expected[number], self.counted[number]
        return f"{came} are of the group of {among}, not about {due:.1f}"

    def _distances(self) -> list[float]:
        pairs = zip(self.counted, self.expected, strict=True)
        return [(came - due) ** 2 / due for came, due in pairs]


def first_tokens(
    sampler: Sampler,
    baseline: Any,
    encoder: Encoder,
    pairs: Sequence[tuple[str, str]],
    sampling: Sampling,
    samples: int,
) -> list[Fit]:
    """The fit of the first tokens of our texts, for each question.

    Args:
        sampler: draws the texts.
        baseline: the model with the same weights, for `generate`.
        encoder: its tokenizer.
        pairs: questions and answers; no question contains its answer.
        sampling: settings of both.
        samples: texts of each question.
    """
    one_token = replace(sampling, max_length=None, max_new_tokens=1)
    fits = []
    for question, answer in pairs:
        # Cells of one sample: a cell of more keeps only some of its texts.
        cells = [
            Cell(
                prompt=question,
                answer=answer,
                samples=1,
                sampling=one_token,
                key=f"{number} {question}",
            )
            for number in range(samples)
        ]
        texts = [sampled.texts[0] for sampled in sampler.sample(cells)]
        fits.append(Fit.of(_probabilities(baseline, encoder, question, one_token), texts))
    return fits


def require_fit(fits: Sequence[Fit]) -> float:
    """The p-value over all questions: how probable a fit is that is as bad or worse.

    Raises:
        WrongResultError: it is below `LEAST_P`.
    """
    p = tail(sum(fit.chi_square for fit in fits), sum(fit.degrees for fit in fits))
    if not p > LEAST_P:  # NaN fails too
        worst = max(fits, key=lambda fit: fit.chi_square / max(fit.degrees, 1))
        raise WrongResultError(
            f"sampled texts do not begin as those of generate (p {p:.2g}): {worst.worst()}"
        )
    return p


def tail(chi_square: float, degrees: int) -> float:
    """The probability that a chi-square variable with these degrees of freedom is larger."""
    if degrees == 0:
        return 1.0
    halves = torch.tensor([degrees / 2, chi_square / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*halves))


def _probabilities(
    baseline: Any, encoder: Encoder, question: str, one_token: Sampling
) -> Mapping[str, float]:
    """The probability of each text of a question and one token."""
    prompt = encoder.encode(question)
    found = generated(baseline, [prompt], encoder.eos, one_token, output_scores=True)
    probabilities = found.scores[0][0].float().softmax(-1).double()  # [V]
    possible = probabilities.nonzero()[:, 0].tolist()
    texts = encoder.decode_all([[*prompt, token] for token in possible])
    summed: dict[str, float] = {}
    for text, token in zip(texts, possible, strict=True):
        summed[text] = summed.get(text, 0.0) + float(probabilities[token])
    return summed
