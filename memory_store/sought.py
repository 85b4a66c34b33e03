"""Finds a text that is being erased in answers, messages and questions."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from memory_store import facts

# Shorter texts are not searched for inside longer ones.
SHORTEST_SOUGHT = 3


@dataclass(frozen=True)
class Sought:
    """A text that is being erased.

    Attributes:
        fact_id: whose it was.
        question: its question.
        answer: its answer.
        correlated: its correlated questions.
    """

    fact_id: str
    question: str
    answer: str
    correlated: tuple[str, ...]

    @cached_property
    def question_key(self) -> str:
        """Equal for questions that ask the same."""
        return facts.question_key(self.question)

    @cached_property
    def _folded(self) -> tuple[str, ...]:
        return tuple(filter(None, map(folded, (self.question, self.answer))))

    @cached_property
    def _words(self) -> re.Pattern[str]:
        long = [re.escape(text) for text in self._folded if len(text) >= SHORTEST_SOUGHT]
        return re.compile(rf"(?<!\w)(?:{'|'.join(long)})(?!\w)" if long else r"(?!)")

    def may_be_in(self, folded_text: str) -> bool:
        """Whether a folded text may contain it. Quick, and true whenever one of the others is."""
        return any(text in folded_text for text in self._folded)

    def is_said_in(self, answer: str) -> bool:
        """Whether a model's answer contains it; a short text must be the whole answer."""
        said = folded(answer)
        return any(
            text in said if len(text) >= SHORTEST_SOUGHT else text == said for text in self._folded
        )

    def is_in(self, text: str) -> bool:
        """Whether a text contains it, as whole words."""
        return self._words.search(folded(text)) is not None

    def is_asked_in(self, question: str) -> bool:
        """Whether a question is its question."""
        return bool(question) and facts.question_key(question) == self.question_key


def folded(text: str) -> str:
    """Equal for texts that differ only in case, spacing and Unicode composition."""
    composed = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", composed).split())
