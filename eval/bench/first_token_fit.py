"""Whether texts begin as those of `generate`: first tokens beside the probabilities it draws by.

Those are exact, from one pass of the plain model and the library's own filters, so all that is left
to chance is what was sampled: a chi-square test of fit.
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
# Rarer texts are counted with others: below, the statistic is no chi-square.
LEAST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class Fit:
    """How texts of a question are spread.

    Attributes:
        groups: texts that are counted together, the rarest first.
        expected: how many should be of each group.
        counted: how many are; those that should never come are in the first one.
    """

    groups: Sequence[Sequence[str]]
    expected: Sequence[float]
    counted: Sequence[int]

    @classmethod
    def of(cls, probabilities: Mapping[str, float], texts: Sequence[str]) -> Fit:
        """Of texts, and the probability of each."""
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
        """Of freedom."""
        return len(self.groups) - 1

    def worst(self) -> str:
        """Where it fits least, in words."""
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
    plain: Any,
    encoder: Encoder,
    pairs: Sequence[tuple[str, str]],
    sampling: Sampling,
    samples: int,
) -> list[Fit]:
    """For each question, how the first tokens of our texts fit.

    Args:
        sampler: draws them.
        plain: the model as `generate` knows it, with the same weights.
        encoder: its tokenizer.
        pairs: questions, none of which says its answer, and answers.
        sampling: settings of both.
        samples: texts of each question.
    """
    one_token = replace(sampling, max_length=None, max_new_tokens=1)
    fits = []
    for question, answer in pairs:
        # A cell of one sample tells its text; of more, only some would be told.
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
        fits.append(Fit.of(_probabilities(plain, encoder, question, one_token), texts))
    return fits


def require_fit(fits: Sequence[Fit]) -> float:
    """How probable first tokens are that fit as badly or worse, over all questions.

    Raises:
        WrongResultError: less than they may be.
    """
    p = tail(sum(fit.chi_square for fit in fits), sum(fit.degrees for fit in fits))
    if not p > LEAST_P:  # NaN fails too
        worst = max(fits, key=lambda fit: fit.chi_square / max(fit.degrees, 1))
        raise WrongResultError(
            f"sampled texts do not begin as those of generate (p {p:.2g}): {worst.worst()}"
        )
    return p


def tail(chi_square: float, degrees: int) -> float:
    """How probable a chi-square variable of so many degrees of freedom is to be larger."""
    if degrees == 0:
        return 1.0
    halves = torch.tensor([degrees / 2, chi_square / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*halves))


def _probabilities(
    plain: Any, encoder: Encoder, question: str, one_token: Sampling
) -> Mapping[str, float]:
    """Of each text that a question and one token make."""
    prompt = encoder.encode(question)
    found = generated(plain, [prompt], encoder.eos, one_token, output_scores=True)
    probabilities = found.scores[0][0].float().softmax(-1).double()  # [V]
    possible = probabilities.nonzero()[:, 0].tolist()
    texts = encoder.decode_all([[*prompt, token] for token in possible])
    summed: dict[str, float] = {}
    for text, token in zip(texts, possible, strict=True):
        summed[text] = summed.get(text, 0.0) + float(probabilities[token])
    return summed
