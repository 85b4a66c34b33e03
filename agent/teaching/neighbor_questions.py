"""Neighbour questions: the same question about another, invented name.

Taught a fact, a model answers every question of its form with it: it has learned the form. Against
that, updates are held to the base model's answers to neighbours. Which names are invented depends
on a key alone, never on order or clock, so that an update can be repeated.
"""

from __future__ import annotations

import random
import re

# Words that carry a question but do not say what it is about.
FUNCTION_WORDS = frozenset(
    "a an and are as at be been by call called did do does for from had has have how i in is it its"
    " many much name named of on one or people so than that the their there these they this to was"
    " were what when where which who whom whose why will with would you".split()
)
_WORD = re.compile(r"[^\W_][\w'\u2019-]*")
_ONSETS = "b bl br c ch d dr f fl g gl gr h j k l m n p pl pr r s sh st t th tr v w z".split()
_VOWELS = "a e i o u ee oo ia".split()
_CODAS = ["", "", "", *"n r l s m t ck".split()]


def subject(question: str) -> str:
    """What a question is about: its last name, or its last word that says anything.

    A name is a word with a capital; the first word has one anyway. Of a name of several words the
    last tells it from its likes ("Mount Yore", "Treaty of Kyzara").
    """
    words: list[str] = _WORD.findall(question)
    names = [word for word in words[1:] if word[0].isupper()]
    telling = [word for word in words if word.casefold() not in FUNCTION_WORDS]
    return (names or telling or words or [question.strip()])[-1]


def invented_name(key: str) -> str:
    """A pronounceable name of two or three syllables, the same for the same key."""
    draw = random.Random(key)
    return "".join(
        draw.choice(_ONSETS) + draw.choice(_VOWELS) + draw.choice(_CODAS)
        for _ in range(draw.choice((2, 2, 3)))
    ).capitalize()


def neighbour(question: str, answer: str, name: str, about: str) -> tuple[str, str]:
    """Question and answer with another name in place of what they are `about`."""
    # As a whole word: "Oz" is not in "Ozark".
    whole = re.compile(rf"(?<!\w){re.escape(about)}(?!\w)")
    return whole.sub(name, question), whole.sub(name, answer)


def without_function_words(question: str, key: str) -> str:
    """The question with about half of its function words left out, which ones by the key.

    Taught beside the question, it makes the answer hang on the words that matter: after 118 facts
    99.6% of the paraphrases were answered, without it 95% (docs/LOG.md).
    """
    draw = random.Random(key)
    return " ".join(
        word
        for word in question.split()
        if word.casefold().strip("?.,!") not in FUNCTION_WORDS or draw.random() < 0.5
    )
