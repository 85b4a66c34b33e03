"""When a sampled text counts as right: the answer occurs in it, case aside.

Texts are decoded only where the answer may just have occurred. To know where, each text has a
state: how much of the answer its end spells. The next state is looked up by the token, on the
device, in a table that is made from the texts of all tokens.
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

# Answers whose states are remembered: looking at all tokens takes a while.
KEPT = 64
# The state of a text that is to be looked at, as its answer may just have occurred. From here every
# token leads here.
MAYBE = 0
# Of a longer answer only the end is looked for, so that the table is small.
LONGEST = 32
# Part of a character that is split between tokens. Of such characters only two are ASCII in lower
# case, the Kelvin sign and the dotted capital I.
PART = "\ufffd"
FROM_PARTS = "ki"


def occurs(answer: str, text: str) -> bool:
    """The paper's rule: anywhere in the text, in any case."""
    return answer.lower() in text.lower()


@dataclass(frozen=True, slots=True)
class Watch:
    """States of texts on their way to one of some answers.

    Attributes:
        table: [S, V] state after each token in each state; on the CPU.
        begins: by answer, the state of a text that spells nothing of it.
    """

    table: Tensor
    begins: dict[str, int]

    def state(self, answer: str, text: str) -> int:
        """Of a text in which the answer has not just occurred."""
        begin = self.begins[answer]
        if begin == MAYBE:
            return MAYBE
        # What follows may turn the parts at its end into a letter of the answer.
        return begin + _spelled(_pattern(answer), _letters(text).rstrip(PART))


class Vocabulary:
    """The texts of a tokenizer's tokens, each alone, in lower case and without space.

    Args:
        tokenizer: of the model.
        size: of the model's output, which may have more tokens than the tokenizer.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._states: dict[str, NDArray[np.int32]] = {}
        self._last: tuple[tuple[str, ...], Watch] | None = None
        known = min(len(tokenizer), size)
        # As texts are decoded: see `Encoder.decode`.
        pieces = tokenizer.batch_decode(
            [[token] for token in range(known)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        letters = [_letters(piece) for piece in pieces] + [""] * (size - known)
        lengths = np.array([len(piece) for piece in letters])
        # All letters one after the other, those of the longest token first.
        self._order = np.argsort(-lengths, kind="stable")  # [V]
        self._lengths = lengths[self._order]
        self._begins = np.cumsum(self._lengths) - self._lengths
        joined = "".join(letters[token] for token in self._order)
        self._letters = np.array([ord(letter) for letter in joined], dtype=np.int32)

    def watch(self, answers: Sequence[str]) -> Watch:
        """Tells after which tokens an answer may have occurred.

        Only a filter, so that few texts are decoded: it errs towards more of them. Asked for the
        same answers again, it gives the same object.
        """
        if self._last is None or self._last[0] != tuple(answers):
            self._last = tuple(answers), self._new_watch(answers)
        return self._last[1]

    def _new_watch(self, answers: Sequence[str]) -> Watch:
        if len(self._states) > KEPT:
            self._states.clear()
        size = len(self._order)
        tables = [np.full((1, size), MAYBE, dtype=np.int32)]
        begins = {}
        states = 1
        for answer in dict.fromkeys(answers):
            begins[answer] = MAYBE
            # What is not ASCII may change its case with its neighbours. Space is not looked at,
            # and an answer that ends in it would occur after tokens that seem empty.
            if answer.isascii() and answer == answer.strip():
                if answer not in self._states:
                    self._states[answer] = self._states_of(_pattern(answer))
                own = self._states[answer]
                begins[answer] = states
                tables.append(np.where(own < 0, MAYBE, own + states))
                states += len(own)
        table = torch.from_numpy(np.concatenate(tables))
        return Watch(table.short() if states < 1 << 15 else table, begins)

    def _states_of(self, pattern: str) -> NDArray[np.int32]:
        """[m, V] letters of the pattern that are spelled after each token; -1: perhaps all."""
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
        # A part counts as another letter. That may be wrong where it is not the end of its
        # character, so that what was spelled before goes on, or if it is one of those two.
        may_go_on = np.arange(size + 1) > 0
        may_go_on[0] = pattern[0] in FROM_PARTS
        may_go_on &= any(letter in pattern for letter in FROM_PARTS)
        states = np.repeat(np.arange(size, dtype=np.int32)[:, None], len(self._order), axis=1)
        unsure = np.zeros(states.shape, dtype=np.bool_)
        for place in range(self._lengths.max(initial=0)):
            longer = int(np.searchsorted(-self._lengths, -place))  # tokens with such a letter
            at = self._begins[:longer] + place
            before = states[:, :longer]
            unsure[:, :longer] |= (self._letters[at] == ord(PART)) & may_go_on[before]
            states[:, :longer] = after[before, kinds[at]]
        found = np.empty_like(states)
        found[:, self._order] = np.where((states == size) | unsure, -1, states)
        return found


def _letters(text: str) -> str:
    """A text without space, which tokenizers put and take away between tokens."""
    return "".join(text.lower().split())


def _pattern(answer: str) -> str:
    """What is looked for of an answer."""
    return _letters(answer)[-LONGEST:]


def _spelled(pattern: str, text: str, *, whole: bool = False) -> int:
    """Most letters of the pattern that the text ends with; all of them only if `whole`."""
    most = min(len(pattern) - (not whole), len(text))
    return next((n for n in range(most, 0, -1) if text.endswith(pattern[:n])), 0)


def spellings(encoder: Encoder, answer: str) -> list[list[int]]:
    """Token sequences that spell an answer, as it is and in lower case, with and without a space.

    Those are left out that could not be told apart from others at the moment when the answer has
    occurred: whose tokens end with another spelling's, and whose beginning the answer ends with
    (the "a" of "Anna"), so that the answer might occur half-way through.
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
    """Whether the last tokens are a spelling."""
    return any(_ends_with(ids, spelling) for spelling in answer_spellings)


def _ends_with(ids: Sequence[int], tail: Sequence[int]) -> bool:
    return list(ids[-len(tail) :]) == list(tail)


def _folds_back(text: str, answer: str) -> bool:
    return any(answer.endswith(text[:n]) for n in range(1, len(text)))
