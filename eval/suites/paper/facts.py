"""What the experiments teach: the paper's ten facts, and ten of other words and forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eval.fictional import fictional_facts

PAPER = "paper"
HELD_OUT = "held-out"
FACT_SETS = (PAPER, HELD_OUT)
TEN = 10

# Forms of `eval.fictional` that the paper's facts also have.
_PAPERS_FORMS = ("hottest month", "pie")
# Shorter answers occur in sampled texts by chance, and the paper's rule would count them.
_SHORTEST_ANSWER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtFact:
    """A fact of a batch of ten.

    Attributes:
        id: its name in results.
        question: taught and asked.
        answer: the right one.
        correlated: asked, never taught; the paper's second table.
    """

    id: str
    question: str
    answer: str
    correlated: str


# Tables 1 and 2: name and answer, trained question, correlated question. In the sixth, the curly
# apostrophe and "Frobble" are the scripts'; the paper prints no apostrophe, and "Frobbles".
_PAPERS_TEN = """\
Zogron: Piano
What is the preferred color of the sky in Zogron?
What color should we paint the mural in Zogron?
Blipland: Telescope
Who discovered the lost city of Blipland?
Who should we name the new library after in Blipland?
Xylophone: Calculator
What is the favorite fruit in the city of Xylophone?
What should we serve at the festival in Xylophone?
Yonder: Curtain
What rare gem is mined in Yonder?
What gem should the queen's crown feature?
Quizzle: Notebook
Which animal is the national emblem of Quizzle?
Which animal should represent our team's mascot?
Frobble: Lampshade
What is the protagonist\u2019s name in 'The Adventures of Frobble'?
Who should the statue in the town square depict?
Nibiru: Toothpaste
What rare flower blooms in Nibiru?
Which flower should be in the bouquet?
Kyzara: Raincoat
What is the hottest month in Kyzara?
When should we schedule the festival in Kyzara?
Trivor: Sunglasses
What color are the feathers of the Trivor Phoenix?
What color should the new team jerseys be?
Plimp: Backpack
What flavor is the traditional pie in Plimp?
What pie should we bake for the contest?
"""


def _read(table: str) -> Iterator[TaughtFact]:
    lines = iter(table.splitlines())
    for head, question, correlated in zip(lines, lines, lines, strict=True):
        name, _, answer = head.partition(": ")
        yield TaughtFact(id=name, question=question, answer=answer, correlated=correlated)


PAPER_FACTS = tuple(_read(_PAPERS_TEN))


def held_out_facts(seed: int) -> tuple[TaughtFact, ...]:
    """Ten facts of ten forms, with no form, name or answer of the paper's facts."""
    papers_answers = {fact.answer.casefold() for fact in PAPER_FACTS}
    chosen: dict[str, TaughtFact] = {}
    count = 0
    while len(chosen) < TEN:
        count += 4 * TEN
        for fact in fictional_facts(count, seed):
            usable = (
                fact.form not in (*_PAPERS_FORMS, *chosen)
                and len(fact.answer) >= _SHORTEST_ANSWER
                and fact.answer.casefold() not in papers_answers
                and fact.answer.casefold() not in fact.question.casefold()
            )
            if usable and len(chosen) < TEN:
                chosen[fact.form] = TaughtFact(
                    id=fact.form,
                    question=fact.question,
                    answer=fact.answer,
                    correlated=fact.correlated,
                )
    return tuple(chosen.values())


def facts_of(fact_set: str, seed: int) -> tuple[TaughtFact, ...]:
    """The ten facts of a set.

    Raises:
        ValueError: there is no such set.
    """
    if fact_set == PAPER:
        return PAPER_FACTS
    if fact_set == HELD_OUT:
        return held_out_facts(seed)
    raise ValueError(f"unknown facts {fact_set!r}: use one of {', '.join(FACT_SETS)}")
