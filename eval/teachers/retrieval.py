"""No learning: facts are looked up and shown to the model. The bar for learning in weights."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict

import torch
from transformers import PreTrainedTokenizerFast

from agent.learner.inference.encoding import Encoder
from agent.models.loading import LoadedModel
from agent.teaching import prompts
from agent.teaching.types import Example
from eval.teachers.base import OneByOne, Turn
from memory_store.facts import question_key
from memory_store.vocabulary import Verdict

_WORD = re.compile(r"\w+")


class FactIndex:
    """Finds the stored question that is most similar to a text.

    Cosine of word counts weighted by ln((1 + n) / (1 + df)) + 1, n stored questions of which df
    hold the word (Salton & Buckley 1988, smoothed so that no word weighs nothing).
    """

    def __init__(self) -> None:
        self._facts: dict[str, Example] = {}  # by question key
        self._postings: dict[str, dict[str, float]] = {}  # word -> question key -> part of cosine
        self._weights: dict[str, float] = {}
        self._stale = False

    def add(self, example: Example) -> None:
        """Stores a fact; an older answer to the same question is dropped."""
        self._facts[question_key(example.question)] = example
        self._stale = True

    def nearest(self, text: str) -> Example | None:
        """The fact whose question is most similar, the oldest of equals; None if no word fits."""
        if self._stale:
            self._weigh()
        similarity: defaultdict[str, float] = defaultdict(float)
        for word, count in _words(text).items():
            for key, share in self._postings.get(word, {}).items():
                similarity[key] += count * self._weights[word] * share
        # The text's own length divides all of them equally and changes no order.
        best = max(similarity.values(), default=0.0)
        return next((f for key, f in self._facts.items() if similarity[key] == best > 0), None)

    def _weigh(self) -> None:
        counts = {key: _words(fact.question) for key, fact in self._facts.items()}
        holding = Counter(word for words in counts.values() for word in words)
        self._weights = {
            word: math.log((1 + len(counts)) / (1 + df)) + 1 for word, df in holding.items()
        }
        self._postings = {word: {} for word in holding}
        for key, words in counts.items():
            weighted = {word: count * self._weights[word] for word, count in words.items()}
            length = math.hypot(*weighted.values())
            for word, weight in weighted.items():
                self._postings[word][key] = weight / length
        self._stale = False


class ExampleEncoder(Encoder):
    """Puts the nearest stored fact before whatever the model is asked.

    Args:
        tokenizer: of the model.
        eos_token_id: ends an answer.
        device: of the model.
        index: of the facts.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        eos_token_id: int,
        device: torch.device,
        index: FactIndex,
    ) -> None:
        super().__init__(tokenizer, eos_token_id, device)
        self._index = index

    def prompt(self, question: str) -> list[int]:
        """`Q: {stored question}`, `A: {stored answer}`, `Q: {question}`, `A:`, a line each."""
        return self.encode(self._example(question) + prompts.prompt(question))

    def opening(self, text: str) -> list[int]:
        """The stored fact on two lines, then the text."""
        return self.encode(self._example(text) + text)

    def _example(self, text: str) -> str:
        fact = self._index.nearest(text)
        if fact is None:
            return ""
        return prompts.prompt(fact.question) + prompts.answer_text(fact.answer) + "\n"


class Retrieval(OneByOne):
    """Stores facts and shows the nearest one as an example; the model stays the base model.

    Every question gets an example, however different it is: there is no threshold to tune.

    Args:
        loaded: the base model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._index = FactIndex()
        encoder = ExampleEncoder(loaded.tokenizer, loaded.eos_token_id, loaded.device, self._index)
        super().__init__("retrieval", loaded, encoder)

    def _learn(self, example: Example) -> Turn:
        self._index.add(example)
        return Turn(Verdict.LEARNED)


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.casefold()))
