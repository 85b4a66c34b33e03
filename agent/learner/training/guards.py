"""What an update must leave as it is, and the gate that it passes or not.

Each guard can be switched off by its number in `Guards`:

    candidates, rehearsed  older facts: the weakest and some drawn ones are learned along
    neighbours             questions of the same form keep the base model's answers
    controls               more of those, not learned from: the new answer must not leak into them,
                           whatever their form
    texts                  general text keeps the base model's predictions

Everything drawn is drawn by the fact's id, so that an update can be repeated, and so that a memory
without another fact repeats it bit by bit.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from agent.learner.inference.encoding import Encoder
from agent.learner.training.lesson import Measured
from agent.learner.training.rows import Role, Row
from agent.teaching.guard_presets import LEAK_PROBABILITY, TEXT_DIVERGENCE
from agent.teaching.neighbor_questions import (
    invented_name,
    neighbour,
    subject,
    without_function_words,
)
from agent.teaching.types import Example, Violation
from memory_store.vocabulary import Guards, Refusal

# What rehearsal brings the facts in the lesson to.
REHEARSED_PROBABILITY = 0.8
# The update goes on, as long as it has steps, until the mean over all neighbours is below this,
CALM_DIVERGENCE = 0.05
# and each control finds its answer less likely than this.
CALM_LEAK = 0.1

NEIGHBOUR_ANSWER_TOKENS = 12
TEXT_PLACES = 32
# Neighbours and controls may be this many times as long as the longest fact of the lesson, and some
# tokens more: far longer than a name in place of another makes them.
GROWTH, SPARE_TOKENS = 2, 64


def rehearsed_of(
    candidates: Sequence[Example], probabilities: Sequence[float], count: int
) -> list[Example]:
    """Which older facts are learned along: half the weakest, the others as they come.

    Args:
        candidates: in an order that depends on ids alone.
        probabilities: of their answers now.
        count: how many at most.
    """
    ranked = sorted(
        zip(probabilities, candidates, strict=True), key=lambda pair: (pair[0], pair[1].fact_id)
    )
    weakest = [candidate for _, candidate in ranked[: count // 2]]
    chosen = {candidate.fact_id for candidate in weakest}
    others = [candidate for candidate in candidates if candidate.fact_id not in chosen]
    return [*weakest, *others[: count - len(weakest)]]


def guard_rows(
    encoder: Encoder,
    example: Example,
    rehearsed: Sequence[Example],
    guards: Guards,
    texts: Sequence[Sequence[int]],
) -> list[Row]:
    """The rows that keep an update from doing harm.

    Args:
        encoder: of the model.
        example: the new fact, its base answer known if there are neighbours.
        rehearsed: older facts that are learned along, likewise.
        guards: how many of each.
        texts: the pool of general text.
    """
    rows = [_rehearsed_row(encoder, example, older) for older in rehearsed]
    for number in range(guards.neighbours):
        # Every other one is of an older fact's form, so that old forms stay calm too.
        of_older = number % 2 and rehearsed
        about = rehearsed[number // 2 % len(rehearsed)] if of_older else example
        rows.append(_neighbour_row(encoder, about, f"{example.fact_id} neighbour {number}"))
    for number in range(guards.controls):
        # Every other one is of an older fact's form: there the newest answers leak too.
        asked = example.question
        if number % 2 and rehearsed:
            asked = rehearsed[-1 - number // 2 % len(rehearsed)].question
        name = invented_name(f"{example.fact_id} control {number}")
        question, _ = neighbour(asked, "", name, subject(asked))
        rows.append(Row.answering(Role.CONTROL, encoder, question, example.answer))
    for number in range(min(guards.texts, len(texts))):
        text = texts[drawn(f"{example.fact_id} text {number}") % len(texts)]
        if len(text) > 1:
            rows.append(_text_row(text, f"{example.fact_id} places {number}"))
    return rows


def fitting(rows: Sequence[Row], max_tokens: int) -> list[Row]:
    """The rows of a lesson that are not too long; the fact itself always stays.

    An invented name in place of a word that a question repeats a hundred times makes a neighbour
    several times as long as any fact.

    Args:
        rows: of the whole lesson.
        max_tokens: the model's context.
    """
    own, *_ = (row for row in rows if row.role is Role.FACT)
    facts = [len(row.tokens) for row in rows if row.role in (Role.FACT, Role.REHEARSED)]
    invented = min(max_tokens, GROWTH * max(facts) + SPARE_TOKENS)
    return [
        row
        for row in rows
        if row is own
        or row.role is Role.ASKED
        or len(row.tokens)
        <= (invented if row.role in (Role.NEIGHBOUR, Role.CONTROL) else max_tokens)
    ]


def gate(measured: Measured) -> Violation | None:
    """Why an update may not be served; None if it may. Each row is judged by itself.

    A gain in one place never pays for a loss in another. Older facts are judged by the caller,
    who looks at more of them than are in the lesson.
    """
    # Written so that NaN fails too.
    for leak in measured.probabilities[Role.CONTROL]:
        if not leak <= LEAK_PROBABILITY:
            message = f"a question never taught would get its answer (probability {leak:.2f})"
            return Violation(Refusal.LEAK, message)
    for drift in measured.divergences[Role.TEXT]:
        if not drift <= TEXT_DIVERGENCE:
            message = f"general text would change (divergence {drift:.2f} nats a token)"
            return Violation(Refusal.GENERAL_TEXT, message)
    return None


def leak(measured: Measured) -> float | None:
    """The control that finds the new answer likeliest; None if there are none."""
    return max(measured.probabilities[Role.CONTROL], default=None)


def drift(measured: Measured) -> float | None:
    """The general text that has changed most; None if there are none."""
    return max(measured.divergences[Role.TEXT], default=None)


def within_limits(measured: Measured) -> bool:
    """Whether older facts, neighbours and controls are where the update may end early."""
    divergences = measured.divergences[Role.NEIGHBOUR]
    mean = sum(divergences) / len(divergences) if divergences else 0.0
    rehearsed = measured.probabilities[Role.REHEARSED]
    return (
        mean < CALM_DIVERGENCE
        and min(rehearsed, default=1.0) >= REHEARSED_PROBABILITY
        and max(measured.probabilities[Role.CONTROL], default=0.0) <= CALM_LEAK
    )


def drawn(key: str) -> int:
    """A number that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _rehearsed_row(encoder: Encoder, example: Example, older: Example) -> Row:
    """An older fact, its question every other time without some function words."""
    key = f"{example.fact_id} rehearses {older.fact_id}"
    question = older.question
    if drawn(key) % 2:
        question = without_function_words(question, key)
    return Row.answering(Role.REHEARSED, encoder, question, older.answer)


def _neighbour_row(encoder: Encoder, about: Example, key: str) -> Row:
    """The base model's own answer to a question, with another name in both."""
    question = about.question
    if drawn(key) % 4 == 0:
        question = without_function_words(question, key)
    asked, said = neighbour(
        question, about.base_answer or "", invented_name(key), subject(about.question)
    )
    return held_row(encoder, Role.NEIGHBOUR, asked, said)


def held_row(encoder: Encoder, role: Role, question: str, said: str) -> Row:
    """A question that must keep the base model's answer, of which the beginning counts."""
    row = Row.answering(role, encoder, question, said)
    first = row.places[0]
    end = min(first + NEIGHBOUR_ANSWER_TOKENS, len(row.tokens) - 1)
    return Row(role, row.tokens[: end + 1], range(first, end))


def _text_row(text: Sequence[int], key: str) -> Row:
    """A text; some of its places, for the vocabulary's sake."""
    places = range(len(text) - 1)
    draw = random.Random(key)
    return Row(Role.TEXT, text, sorted(draw.sample(places, min(TEXT_PLACES, len(places)))))
