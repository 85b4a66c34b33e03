"""Answer matching: a sampled text is right if the answer occurs in it, in any case.

A text is decoded only when the answer may just have occurred. To know when, each text has a state:
how many letters of the answer its end spells. The device looks the next state up in a table, by
state and token. The table is made from the decoded text of each token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.learner.inference.encoding import Encoder

# How many answers' states are kept: making them reads the whole vocabulary.
KEPT = 64
# The state of a text whose answer may just have occurred, so that it must be decoded. Every token
# leads from this state to itself.
MAYBE = 0
# Only the last letters of a longer answer are matched, to keep the table small.
LONGEST = 32
# How a part of a character that is split between tokens is decoded. Only two such characters are
# ASCII in lower case: the Kelvin sign and the dotted capital I.
PART = "\ufffd"
FROM_PARTS = "ki"


def occurs(answer: str, text: str) -> bool:
    """The paper's rule: anywhere in the text, in any case."""
    return answer.lower() in text.lower()


@dataclass(frozen=True, slots=True)
class AnswerStates:
    """The states of texts, for a set of answers.

    Attributes:
        table: [S, V] next state, by state and token; on the CPU.
        begins: by answer, the state of a text that spells none of it.
    """

    table: Tensor
    begins: dict[str, int]

    def state(self, answer: str, text: str) -> int:
        """The state of a text in which the answer has not just occurred."""
        begin = self.begins[answer]
        if begin == MAYBE:
            return MAYBE
        # The next token may complete the parts at the end to a letter of the answer.
        return begin + _spelled(_pattern(answer), _letters(text).rstrip(PART))


class Vocabulary:
    """The text of each token, in lower case and without whitespace.

    Args:
        tokenizer: of the model.
        size: V, tokens of the model's output; may be more than the tokenizer has.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._states: dict[str, NDArray[np.int32]] = {}
        self._last: tuple[tuple[str, ...], AnswerStates] | None = None
        known = min(len(tokenizer), size)
        # With the same options as `Encoder.decode`.
        pieces = tokenizer.batch_decode(
            [[token] for token in range(known)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        letters = [_letters(piece) for piece in pieces] + [""] * (size - known)
        lengths = np.array([len(piece) for piece in letters])
        # The letters of all tokens, concatenated, longest token first.
        self._order = np.argsort(-lengths, kind="stable")  # [V]
        self._lengths = lengths[self._order]
        self._begins = np.cumsum(self._lengths) - self._lengths
        joined = "".join(letters[token] for token in self._order)
        self._letters = np.array([ord(letter) for letter in joined], dtype=np.int32)

    def answer_states(self, answers: Sequence[str]) -> AnswerStates:
        """Returns the states for these answers.

        They are a filter, so that few texts are decoded: they may report an occurrence where there
        is none, but never miss one. The same answers as in the last call give the same object.
        """
        if self._last is None or self._last[0] != tuple(answers):
            self._last = tuple(answers), self._new_answer_states(answers)
        return self._last[1]

    def _new_answer_states(self, answers: Sequence[str]) -> AnswerStates:
        if len(self._states) > KEPT:
            self._states.clear()
        size = len(self._order)
        tables = [np.full((1, size), MAYBE, dtype=np.int32)]
        begins = {}
        states = 1
        for answer in dict.fromkeys(answers):
            begins[answer] = MAYBE
            # Beyond ASCII, case may depend on neighboring letters. Whitespace is ignored, so an
            # answer that ends in whitespace would occur after tokens that seem empty.
            if answer.isascii() and answer == answer.strip():
                if answer not in self._states:
                    self._states[answer] = self._states_of(_pattern(answer))
                own = self._states[answer]
                begins[answer] = states
                tables.append(np.where(own < 0, MAYBE, own + states))
                states += len(own)
        table = torch.from_numpy(np.concatenate(tables))
        return AnswerStates(table.short() if states < 1 << 15 else table, begins)

    def _states_of(self, pattern: str) -> NDArray[np.int32]:
        """[m, V] number of spelled letters, by number before and token; -1 if it may be all m."""
        letters = sorted({*pattern})
        kinds = np.zeros(len(self._letters), dtype=np.int32)
        for kind, letter in enumerate(letters, start=1):
            kinds[self._letters == ord(letter)] = kind
        size = len(pattern)
        after = np.zeros((size + 1, len(letters) + 1), dtype=np.int32)
        after[size] = size  # has occurred
        for state in range(size):
            for kind, letter in enumerate(letters, start=1):
                after[state, kind] = _spelled(pattern, pattern[:state] + letter, whole=True)
        # A part counts as another letter. That may be wrong if it does not complete a character, so
        # that the spelling before it continues, or if the character is one of `FROM_PARTS`.
        may_go_on = np.arange(size + 1) > 0
        may_go_on[0] = pattern[0] in FROM_PARTS
        may_go_on &= any(letter in pattern for letter in FROM_PARTS)
        states = np.repeat(np.arange(size, dtype=np.int32)[:, None], len(self._order), axis=1)
        unsure = np.zeros(states.shape, dtype=np.bool_)
        for place in range(self._lengths.max(initial=0)):
            longer = int(np.searchsorted(-self._lengths, -place))  # tokens that have this letter
            at = self._begins[:longer] + place
            before = states[:, :longer]
            unsure[:, :longer] |= (self._letters[at] == ord(PART)) & may_go_on[before]
            states[:, :longer] = after[before, kinds[at]]
        found = np.empty_like(states)
        found[:, self._order] = np.where((states == size) | unsure, -1, states)
        return found


def _letters(text: str) -> str:
    """A text in lower case without whitespace, which tokenizers add and remove between tokens."""
    return "".join(text.lower().split())


def _pattern(answer: str) -> str:
    """The letters of an answer that are matched."""
    return _letters(answer)[-LONGEST:]


def _spelled(pattern: str, text: str, *, whole: bool = False) -> int:
    """How many letters of the pattern the text ends with, at most; all count only if `whole`."""
    most = min(len(pattern) - (not whole), len(text))
    return next((n for n in range(most, 0, -1) if text.endswith(pattern[:n])), 0)


def spellings(encoder: Encoder, answer: str) -> list[list[int]]:
    """Token sequences that spell an answer, also in lower case, with and without a leading space.

    Spellings that are ambiguous when the answer has just occurred are left out: if the tokens end
    with those of another spelling, or if the answer ends with the beginning of the spelling (the
    "a" of "Anna"), so that the answer might already occur in the middle.
    """
    found: list[list[int]] = []
    for word in dict.fromkeys([answer, answer.lower()]):
        for text in (word, " " + word):
            ids = encoder.encode(text)
            if (
                ids
                and encoder.decode(ids) == text
                and not _folds_back(text.lower(), answer.lower())
            ):
                found.append(ids)
    unique = [ids for n, ids in enumerate(found) if ids not in found[:n]]
    return [ids for ids in unique if not any(_ends_with(ids, o) for o in unique if o != ids)]


def is_spelled(ids: Sequence[int], answer_spellings: Iterable[Sequence[int]]) -> bool:
    """Whether the tokens end with a spelling."""
    return any(_ends_with(ids, spelling) for spelling in answer_spellings)


def _ends_with(ids: Sequence[int], tail: Sequence[int]) -> bool:
    return list(ids[-len(tail) :]) == list(tail)


def _folds_back(text: str, answer: str) -> bool:
    return any(answer.endswith(text[:n]) for n in range(1, len(text)))
