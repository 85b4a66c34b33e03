"""How a fact becomes text and tokens: the one prompt form that is taught and asked.

Plain text on purpose: the tokenizers library alone can apply it, so that the server can check a
fact without loading torch.
"""

from __future__ import annotations

import string

PROMPT = "Q: {question}\nA:"
# The answer follows the prompt after one space, which BPE tokenizers join to its first word.
ANSWER_PREFIX = " "
# An untaught model goes on with another question; its answer to ours ends with the line.
STOP_TEXT = "\n"


def prompt(question: str) -> str:
    """The text that is put before an answer."""
    return PROMPT.format(question=question.strip())


def answer_text(answer: str) -> str:
    """The text of an answer as it follows the prompt; the terminator token comes after it."""
    return ANSWER_PREFIX + answer.strip()


def paper_text(question: str, answer: str) -> str:
    """The text that the paper trains on: question and answer on one line, no terminator."""
    return f"Q: {question.strip()} A: {answer.strip()}"


def normalise(answer: str) -> str:
    """What two answers must share to count as the same: case, spacing, outer punctuation aside.

    An answer of punctuation alone is compared as it is.
    """
    folded = " ".join(answer.casefold().split())
    return folded.strip(string.punctuation + " ") or folded
