"""Probes: the model's answers to questions, and its probabilities of the right answers.

Also counts right answers in sampled texts, as the paper does. The service (before and after each
update) and `agent eval` share this implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import torch

from agent.learner.inference.encoding import Encoder
from agent.learner.inference.generation import generate_answers
from agent.learner.sampling.sampler import Cell, CellResult, Sampler
from agent.learner.training.update import score_answers
from agent.teaching import prompts
from agent.teaching.types import Answer, Generated

# From a model, its tokenizer, questions, and the limit of each answer, to the answers.
Generate = Callable[[Any, Encoder, Sequence[str], Sequence[int]], list[Generated]]
# From a model, its tokenizer and pairs to the log-probability of each answer, and whether greedy
# generation is known to yield it.
Score = Callable[[Any, Encoder, Sequence[tuple[str, str]]], tuple[list[float], list[bool]]]
# Tokens beyond the expected answer, to see whether the model's answer goes on.
SPARE_TOKENS = 8
# Rows in one forward pass, to bound memory.
ROWS = 64


def score_pairs(
    model: Any, encoder: Encoder, pairs: Sequence[tuple[str, str]]
) -> tuple[list[float], list[bool]]:
    """One forward pass over all pairs; see `Score`."""
    scores = score_answers(model, encoder.batch(pairs))
    return scores.log_probability.tolist(), scores.greedy.tolist()


@torch.inference_mode()
def probe(
    model: Any,
    encoder: Encoder,
    pairs: Sequence[tuple[str, str]],
    *,
    always_generate: bool = False,
    generate: Generate = generate_answers,
    score: Score = score_pairs,
) -> list[Answer]:
    """Asks each question and grades the answer.

    One forward pass over all pairs gives the exact probabilities, and shows which answers greedy
    generation would yield (see `score_answers`); only the others are generated.

    Args:
        model: a causal LM.
        encoder: its tokenizer.
        pairs: (question, expected answer).
        always_generate: also generate answers that the forward pass shows to be right.
        generate: generates answers.
        score: computes probabilities.

    Returns:
        One answer per pair, in order.
    """
    answers: list[Answer] = []
    for start in range(0, len(pairs), ROWS):
        chunk = pairs[start : start + ROWS]
        answers += _probe_rows(model, encoder, chunk, always_generate, generate, score)
    return answers


def count_samples(
    sampler: Sampler,
    pairs: Sequence[tuple[str, str]],
    answers: Sequence[Answer],
    samples: int,
    key: str,
) -> Generator[None, None, list[Answer]]:
    """Samples texts from the bare questions, as the paper does; yields between steps.

    Args:
        sampler: of the model that gave the answers.
        pairs: (question, expected answer).
        answers: what `probe` found for them.
        samples: number of texts for each question, at least 1.
        key: seed of the random numbers.

    Returns:
        The answers with their counts. A question that fills the paper's 50 tokens has no samples.

    Raises:
        ModelError: the model cannot be sampled from, or there is too little memory for one text.
    """
    cells = [
        Cell(
            prompt=question.strip(),
            answer=expected.strip(),
            samples=samples,
            key=f"{key} {number}",
        )
        for number, (question, expected) in enumerate(pairs)
    ]
    rooms = [n for n, cell in enumerate(cells) if sampler.has_room(cell)]
    found: dict[int, CellResult] = {}
    for done in sampler.steps([cells[n] for n in rooms]):
        found.update((rooms[n], sampled) for n, sampled in done)
        yield
    return [
        replace(answer, samples=found[n].samples, correct_samples=found[n].correct)
        if n in found
        else answer
        for n, answer in enumerate(answers)
    ]


def _probe_rows(
    model: Any,
    encoder: Encoder,
    pairs: Sequence[tuple[str, str]],
    always_generate: bool,
    generate: Generate,
    score: Score,
) -> list[Answer]:
    log_probability, greedy = score(model, encoder, pairs)
    asked = [row for row, sure in enumerate(greedy) if always_generate or not sure]
    # Each row has its own limit, so that an answer does not depend on the other rows.
    limits = [len(encoder.answer(pairs[row][1])) + SPARE_TOKENS for row in asked]
    texts = generate(model, encoder, [pairs[row][0] for row in asked], limits)
    generated = dict(zip(asked, texts, strict=True))
    answers = []
    for row, (_, expected) in enumerate(pairs):
        if row not in generated:
            text, correct = expected.strip(), True
        else:
            text = generated[row].text
            same = prompts.normalise(text) == prompts.normalise(expected)
            correct = generated[row].finished and same
        answers.append(Answer(text=text, correct=correct, log_probability=log_probability[row]))
    return answers
