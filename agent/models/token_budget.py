"""Whether a fact fits a model: what only its tokenizer can decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.errors import InvalidFactError
from agent.teaching import prompts

MAX_FACT_TOKENS = 512
"""Prompt, answer and terminator. Far below a model's context: memory grows with it."""


class TokenBudget:
    """The longest fact that a model learns.

    Args:
        encode: from a text to its token ids; without special tokens, and with what looks like one
            spelled out.
        max_tokens: the model's context.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], max_tokens: int) -> None:
        self._encode = encode
        self.max_tokens = min(max_tokens, MAX_FACT_TOKENS)
        # What is left of an answer whose characters the tokenizer drops.
        self._prefix = list(encode(prompts.ANSWER_PREFIX))
        # The last answer and its tokens: a fact has up to 33 questions with the same one.
        self._answered: tuple[str, Sequence[int]] = ("", [])

    def forget_texts(self) -> None:
        """Drops the last answer."""
        self._answered = ("", [])

    def require(self, question: str, answer: str, field: str = "question") -> None:
        """Lets a question with its answer pass if the model can learn it.

        Args:
            question: as it will be asked.
            answer: the fact's.
            field: the question's name in the API.

        Raises:
            InvalidFactError: the two are too long, or the tokenizer drops the whole answer.
        """
        answered = self._answer_tokens(answer)
        if answered in ([], self._prefix):
            raise InvalidFactError(
                "answer", "the model's tokenizer turns it into nothing: use other characters"
            )
        total = len(self._encode(prompts.prompt(question))) + len(answered) + 1
        if total > self.max_tokens:
            raise InvalidFactError(
                field,
                f"with its answer it has {total} tokens, but this model learns at most"
                f" {self.max_tokens}: shorten it or split the fact",
            )

    def _answer_tokens(self, answer: str) -> Sequence[int]:
        last, tokens = self._answered
        if answer != last:
            tokens = list(self._encode(prompts.answer_text(answer)))
            self._answered = answer, tokens
        return tokens
