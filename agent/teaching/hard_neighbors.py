"""Hard neighbors: questions that a memory of many facts must not answer with a taught answer.

Neighbors whose names come from another generator than the taught ones teach a model to tell the
*generators* apart: it stays calm on them and answers other untaught names with taught words.
Names spliced from pieces of taught names, and taught names asked about in another fact's form,
leave only one way out, which is to read the whole name (docs/LOG.md).

Everything is drawn from a `random.Random` of the caller's, so that a batch can be drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from agent.teaching.neighbor_questions import FUNCTION_WORDS, invented_name, neighbour, subject
from agent.teaching.real_questions import real_names
from agent.teaching.types import Example

# Draws until a name or question is found that nobody taught.
TRIES = 20
VOWELS = frozenset("aeiouyAEIOUY")


class QuestionForm(IntEnum):
    """How a question is worded when a model learns from it."""

    AS_TAUGHT = 0
    FEWER_FUNCTION_WORDS = 1
    CONTENT_WORDS = 2


def reworded(question: str, form: QuestionForm, draw: random.Random) -> str:
    """The question in one form; as it is where that would leave fewer than two words.

    Args:
        question: as taught.
        form: `CONTENT_WORDS` come in a random order two times out of three, since paraphrases
            move them around.
        draw: decides which function words stay and in which order words come.
    """
    words = question.split()
    if form is QuestionForm.FEWER_FUNCTION_WORDS:
        words = [word for word in words if not _is_function(word) or draw.random() < 0.5]
    elif form is QuestionForm.CONTENT_WORDS:
        words = [word.strip("?.,!") for word in words if not _is_function(word)]
        if draw.random() < 2 / 3:
            draw.shuffle(words)
    return " ".join(words) if len(words) > 1 else question


def splice(first: str, second: str, draw: random.Random) -> str:
    """The beginning of one name with the end of another: "Vekzora", "Malthin" -> "Vekthin"."""
    head, tail = first[: _cut(first, draw)], second[_cut(second, draw) :]
    return head + tail


@dataclass(frozen=True, slots=True)
class _Template:
    """A taught question as a form for other names.

    Attributes:
        question: as taught.
        said: what the base model answers to it.
        name: what it is about.
    """

    question: str
    said: str
    name: str

    def about(self, name: str) -> tuple[str, str]:
        """Question and base answer with another name."""
        return neighbour(self.question, self.said, name, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameShares:
    """How often a neighbor's name is of each kind; the rest are invented.

    Attributes:
        spliced: of pieces of two taught names.
        taught: a taught name, asked about in another fact's form. It teaches that a name's answer
            belongs to one question, and costs paraphrases: 92% were answered with none of these
            names, 82% with a quarter of them (1,000 facts, docs/LOG.md).
        real: a real name of any kind.
    """

    spliced: float = 0.6
    taught: float = 0.0
    real: float = 0.2


class HardNeighbors:
    """Draws neighbors of a set of facts.

    Args:
        facts: all that are taught, each with its base answer.
        shares: of the kinds of names.
    """

    def __init__(self, facts: Sequence[Example], shares: NameShares) -> None:
        self._shares = shares
        self._templates = [
            _Template(fact.question, fact.base_answer or "", subject(fact.question))
            for fact in facts
        ]
        self._names = list(dict.fromkeys(template.name for template in self._templates))
        self._taught_names = {name.casefold() for name in self._names}
        self._taught_questions = {fact.question.casefold() for fact in facts}

    def draw(self, about: Sequence[int], count: int, draw: random.Random) -> list[tuple[str, str]]:
        """Untaught questions, each with what the base model would answer.

        Args:
            about: indices of facts; every other neighbor asks in the form of one of them, and the
                others in the form of any fact.
            count: of neighbors.
            draw: source of all choices.

        Returns:
            (question, base answer) pairs. Fewer than `count` where a taught question is all that
            can be drawn, which takes a set of very few facts.
        """
        found = []
        for number in range(count):
            near = about if number % 2 == 0 and about else range(len(self._templates))
            for _ in range(TRIES):
                template = self._templates[draw.choice(near)]
                question, said = template.about(self._name(draw))
                if question.casefold() not in self._taught_questions:
                    form = QuestionForm(draw.randrange(len(QuestionForm)))
                    found.append((reworded(question, form, draw), said))
                    break
        return found

    def _name(self, draw: random.Random) -> str:
        spliced, taught, real = self._shares.spliced, self._shares.taught, self._shares.real
        kind = draw.random()
        if kind < spliced and len(self._names) > 1:
            for _ in range(TRIES):
                first, second = draw.sample(self._names, 2)
                name = splice(first, second, draw)
                if name.casefold() not in self._taught_names:
                    return name
        elif spliced <= kind < spliced + taught:
            return draw.choice(self._names)
        elif spliced + taught <= kind < spliced + taught + real:
            return draw.choice(real_names()[draw.choice(list(real_names()))])
        return invented_name(str(draw.random()))


def _is_function(word: str) -> bool:
    return word.casefold().strip("?.,!") in FUNCTION_WORDS


def _cut(name: str, draw: random.Random) -> int:
    """A place inside a name to cut it at: after a vowel, or between two consonants."""
    inner = range(2, len(name) - 1)
    natural = [place for place in inner if name[place - 1] in VOWELS or name[place] not in VOWELS]
    places = natural or list(inner) or [max(1, len(name) // 2)]
    return draw.choice(places)
