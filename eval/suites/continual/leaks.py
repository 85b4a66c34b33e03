"""Leaks: taught answers in answers to questions that were never taught.

A model that learns the form of a question instead of a fact answers every question of that form
with a taught word (*priming*). Control questions show it: no fact is about them, so the base
model's answers to them are the right ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.teaching.prompts import normalise
from eval.metrics import Count

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """Leaks into the answers to control questions.

    Attributes:
        leaked: answers that contain a taught answer, as whole words, which the base model's answer
            to the same question does not contain.
        leaked_exactly: those that are a taught answer and nothing else.
        changed: answers that differ from the base model's, except in case and outer punctuation.
    """

    leaked: Count
    leaked_exactly: Count
    changed: Count


def count_leaks(base: Sequence[str], now: Sequence[str], taught: Collection[str]) -> Leaks:
    """Compares answers to control questions with the base model's.

    Args:
        base: the base model's answer to each question.
        now: the taught model's, in the same order.
        taught: answers that were taught.
    """
    searched = {_as_words(answer): normalise(answer) for answer in taught}
    searched.pop("  ", None)  # an answer without words is in no other
    found = [
        [exact for words, exact in searched.items() if words in after and words not in before]
        for before, after in zip(map(_as_words, base), map(_as_words, now), strict=True)
    ]
    return Leaks(
        leaked=Count.of(bool(exacts) for exacts in found),
        leaked_exactly=Count.of(
            normalise(text) in exacts for text, exacts in zip(now, found, strict=True)
        ),
        changed=Count.of(normalise(b) != normalise(n) for b, n in zip(base, now, strict=True)),
    )


def _as_words(text: str) -> str:
    """The words with a space on both sides of each, so that `in` finds whole words only."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "
