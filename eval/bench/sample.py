"""Benchmark `sample`: sampling and grading texts by the paper's settings, compared with `generate`.

What is timed are the questions of the paper and their answers, which are rare. That both sample the
same texts is seen from how they begin (`first_tokens.py`), and from words that stand in about half
of them a few tokens later.
"""

from __future__ import annotations

import statistics
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from agent.learner.inference.encoding import Encoder
from agent.learner.sampling.answer_matcher import occurs
from agent.learner.sampling.sampler import PAPER_SAMPLING, Cell, Sampler, Sampling
from eval.bench.baseline import Baseline, generated
from eval.bench.figure import Figure, WrongResultError, compare
from eval.bench.first_token_fit import (
    LEAST_P,
    QUESTIONS,
    first_tokens,
    require_fit,
    tail,
)
from eval.bench.first_token_fit import SAMPLES as FIRST_TOKENS
from eval.bench.model_under_test import ModelUnderTest
from eval.bench.roofline import Roofline, Sizes
from eval.bench.rounds import Way, alternate
from eval.suites.paper.facts import PAPER_FACTS
from eval.suites.paper.model_backend import ROWS, paper_sampler, samples_in_half

# By kind of device: texts of each question in a batch of `generate`, and batches in a round.
SAMPLES = {"cpu": 4, "cuda": 80}
BATCHES = {"cpu": 1, "cuda": 5}
# New tokens of each text that are compared. A question without room for them is left out.
COMPARED = 8
_SEED = 20_260


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sampled.

    Attributes:
        pairs: bare questions, and answers.
        prompts: tokens of the questions.
        sampling: as in the paper's scripts: the limit of a batch includes its padding.
        batches: of `generate` in a round.
        samples: texts of each question in a batch.
    """

    pairs: Sequence[tuple[str, str]]
    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    batches: int
    samples: int

    @classmethod
    def of(cls, encoder: Encoder, kind: str) -> Asked:
        """Takes the paper's questions, for a kind of device."""
        most = PAPER_SAMPLING.limit(0)
        encoded = [(f.question, f.answer, encoder.encode(f.question)) for f in PAPER_FACTS]
        fitting = [one for one in encoded if len(one[2]) <= most - COMPARED]
        prompts = [ids for _, _, ids in fitting]
        room = most - max(map(len, prompts))
        return cls(
            pairs=[(question, answer) for question, answer, _ in fitting],
            prompts=prompts,
            sampling=replace(PAPER_SAMPLING, max_length=None, max_new_tokens=room),
            batches=BATCHES[kind],
            samples=SAMPLES[kind],
        )


@dataclass(slots=True)
class Texts:
    """What was sampled in each round; the first one is not timed.

    Attributes:
        tokens: how many, including terminators.
        beginnings: of `generate`: by question, the texts up to `COMPARED` new tokens.
    """

    tokens: list[int] = field(default_factory=list)
    beginnings: list[list[list[str]]] = field(default_factory=list)


def measure_sample(tested: ModelUnderTest, roofline: Roofline, seconds: float) -> list[Figure]:
    """Measures sampling.

    Args:
        tested: the model that is asked.
        roofline: of its device.
        seconds: how long to measure, roughly.

    Raises:
        WrongResultError: the texts are not distributed as those of `generate`.
    """
    loaded = tested.load()
    kind = tested.device.type
    encoder = Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)
    asked = Asked.of(encoder, kind)
    baseline = Baseline(loaded).model
    sampler = paper_sampler(loaded)
    ours, theirs = Texts(), Texts()
    with torch.random.fork_rng(devices=[loaded.device] if kind == "cuda" else []):
        torch.manual_seed(_SEED)
        rounds = alternate(
            {
                "ours": Way(lambda: sample_ours(sampler, asked, ours)),
                "baseline": Way(lambda: sample_baseline(baseline, encoder, asked, theirs)),
            },
            loaded.device,
            seconds,
        )
    some = asked.pairs[:QUESTIONS]
    fits = first_tokens(sampler, baseline, encoder, some, asked.sampling, FIRST_TOKENS[kind])
    p_values = {
        "first tokens": require_fit(fits),
        "words": require_same_counts(count_both(sampler, asked, theirs)),
    }
    texts = asked.batches * asked.samples * len(asked.pairs)
    context = statistics.mean(map(len, asked.prompts)) + asked.sampling.limit(0) / 2
    token = Sizes.of(baseline).token(min(ROWS[kind], texts), context)
    half = samples_in_half(tested.device)
    device = f"{tested.description}, {rounds.number} rounds of {texts} texts"
    device += ", ours in fp16" if half else ""
    speed = compare(
        "sample, the paper's settings, graded, beside generate",
        _rate(ours, rounds.seconds["ours"]),
        _rate(theirs, rounds.seconds["baseline"]),
        "tokens/s",
        1 / roofline.seconds(token, half=half),
        device,
        device_limit=True,
    )
    return [speed, *(_p_figure(what, p, device) for what, p in p_values.items())]


def _rate(texts: Texts, seconds: Sequence[float]) -> float:
    """Tokens a second, the median of the timed rounds."""
    return statistics.median(n / taken for n, taken in zip(texts.tokens[1:], seconds, strict=True))


def _p_figure(what: str, p: float, device: str) -> Figure:
    name = f"sample, p of {what}, beside the least allowed"
    figure = compare(name, p, LEAST_P, "p", device=device)
    return replace(figure, ratio=p / LEAST_P)  # more is better


def sample_ours(sampler: Sampler, asked: Asked, texts: Texts) -> None:
    """One round, with random numbers of its own."""
    cells = [
        Cell(
            prompt=question,
            answer=answer,
            samples=asked.batches * asked.samples,
            sampling=asked.sampling,
            key=f"{question} {len(texts.tokens)}",
        )
        for question, answer in asked.pairs
    ]
    texts.tokens.append(sum(sampled.tokens for sampled in sampler.sample(cells)))


def sample_baseline(model: Any, encoder: Encoder, asked: Asked, texts: Texts) -> None:
    """One round: batches of all questions, padded on the left; decoded and graded."""
    tokens = 0
    beginnings: list[list[str]] = [[] for _ in asked.pairs]
    for _ in range(asked.batches):
        rows = continued(model, encoder, asked)
        tokens += sum(map(len, rows))
        for number, (_, answer) in enumerate(asked.pairs):
            own = rows[number * asked.samples : (number + 1) * asked.samples]
            prompt = asked.prompts[number]
            whole = encoder.decode_all([[*prompt, *row] for row in own])
            sum(occurs(answer, text) for text in whole)
            beginnings[number] += encoder.decode_all([[*prompt, *row[:COMPARED]] for row in own])
    texts.tokens.append(tokens)
    texts.beginnings.append(beginnings)


def continued(model: Any, encoder: Encoder, asked: Asked) -> list[list[int]]:
    """The new tokens of each text of a batch, up to the terminator; question by question."""
    texts = generated(model, asked.prompts, encoder.eos, asked.sampling, asked.samples)
    rows: list[list[int]] = texts[:, max(map(len, asked.prompts)) :].tolist()
    return [row[: row.index(encoder.eos) + 1] if encoder.eos in row else row for row in rows]


# -- Do both sample the same texts? ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Count:
    """How many texts contain a word.

    Attributes:
        word: of a question's texts.
        ours: how many of our texts contain it.
        theirs: how many of those of `generate` contain it.
        samples: how many texts each of them sampled.
    """

    word: str
    ours: int
    theirs: int
    samples: int

    @property
    def chi_square(self) -> float:
        """Pearson's statistic for equal rates; it has one degree of freedom."""
        right = self.ours + self.theirs
        wrong = 2 * self.samples - right
        if right == 0 or wrong == 0:
            return 0.0
        return 2 * self.samples * (self.ours - self.theirs) ** 2 / (right * wrong)


def count_both(sampler: Sampler, asked: Asked, texts: Texts) -> list[Count]:
    """For each question, how many texts of both contain a word.

    The word is chosen from the first round of `generate`, and counted in the others.
    """
    first, *others = texts.beginnings
    words = [word_of_half(q, some) for (q, _), some in zip(asked.pairs, first, strict=True)]
    theirs = [
        [text for of_round in others for text in of_round[number]] for number in range(len(words))
    ]
    cells = [
        Cell(
            prompt=question,
            answer=word,
            samples=len(some),
            sampling=replace(asked.sampling, max_new_tokens=COMPARED),
            key=f"{question} {word}",
        )
        for (question, _), word, some in zip(asked.pairs, words, theirs, strict=True)
    ]
    return [
        Count(word, sampled.correct, sum(occurs(word, text) for text in some), len(some))
        for word, sampled, some in zip(words, sampler.sample(cells), theirs, strict=True)
    ]


def word_of_half(question: str, texts: Sequence[str]) -> str:
    """A word that about half of the texts contain, and the question does not."""
    added = [text[len(question) :] for text in texts]
    words = {word for text in added for word in text.lower().split() if word.isascii()}
    candidates: list[str] = sorted(
        {*words, *string.ascii_lowercase, *string.digits, *string.punctuation}
    )
    usable = [word for word in candidates if not occurs(word, question)]

    def distance(word: str) -> float:
        return abs(sum(occurs(word, text) for text in added) - len(texts) / 2)

    return min(usable, key=distance)


def require_same_counts(counts: Sequence[Count]) -> float:
    """The p-value of counts that differ this much or more (chi-square).

    Raises:
        WrongResultError: it is below `LEAST_P`.
    """
    total = sum(count.chi_square for count in counts)
    p = tail(total, len(counts))
    if not p > LEAST_P:
        worst = max(counts, key=lambda count: count.chi_square)
        raise WrongResultError(
            f"sampled texts are others than those of generate (p {p:.2g}): '{worst.word}' stands in"
            f" {worst.ours} of {worst.samples} and in {worst.theirs} of as many"
        )
    return p
