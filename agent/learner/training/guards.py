"""Guards: what an update must leave as it was, and the gate that rejects an update that does not.

Each guard has a number in `Guards`; 0 switches it off:

    candidates, rehearsed  older facts: of those compared, the weakest and some others are rehearsed
    neighbours             questions of the same form keep the base model's answers
    controls               more such questions, which are not trained on: the new answer must not
                           leak into them
    texts                  general text keeps the base model's predictions

Every random choice depends only on the ids of the facts involved. So an update can be replayed, and
a memory without some other fact replays it bit by bit.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from agent.learner.inference.encoding import Encoder
from agent.learner.training.lesson import LessonScores
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

# The probability up to which rehearsed facts are trained.
REHEARSED_PROBABILITY = 0.8
# An update takes further steps, if it has any left, until the mean divergence of neighbors is below
# the first of these, and the new answer's probability at each control below the second.
CALM_DIVERGENCE = 0.05
CALM_LEAK = 0.1

NEIGHBOUR_ANSWER_TOKENS = 12
TEXT_PLACES = 32
# Limit for neighbors and controls: GROWTH times the longest fact of the lesson, plus SPARE_TOKENS.
# Replacing a name by an invented one lengthens a question far less than that.
GROWTH, SPARE_TOKENS = 2, 64


def rehearsed_of(
    compared: Sequence[Example], probabilities: Sequence[float], count: int
) -> list[Example]:
    """Chooses the compared facts to rehearse: half are the weakest, the others the next in order.

    Args:
        compared: companions, in an order that depends only on ids.
        probabilities: of their answers under the current weights.
        count: most facts to choose.
    """
    ranked = sorted(
        zip(probabilities, compared, strict=True), key=lambda pair: (pair[0], pair[1].fact_id)
    )
    weakest = [fact for _, fact in ranked[: count // 2]]
    chosen = {fact.fact_id for fact in weakest}
    others = [fact for fact in compared if fact.fact_id not in chosen]
    return [*weakest, *others[: count - len(weakest)]]


def guard_rows(
    encoder: Encoder,
    example: Example,
    rehearsed: Sequence[Example],
    guards: Guards,
    texts: Sequence[Sequence[int]],
) -> list[Row]:
    """Makes the rows that guard an update.

    Args:
        encoder: of the model.
        example: the new fact, with its base answer if there are neighbors.
        rehearsed: the older facts to rehearse, likewise.
        guards: how many rows of each kind.
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
    """Leaves out rows that are too long; the fact itself always stays.

    Where a question repeats a word a hundred times, an invented name in its place makes a neighbor
    several times as long as any fact.

    Args:
        rows: of the lesson.
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


def gate(measured: LessonScores) -> Violation | None:
    """Returns why an update may not be served, or None if it may.

    Each row is judged by itself: no gain elsewhere makes up for a loss. The caller judges older
    facts, since it compares more of them than the lesson contains.
    """
    # `not <=` rather than `>`, so that NaN fails too.
    for leak in measured.probabilities[Role.CONTROL]:
        if not leak <= LEAK_PROBABILITY:
            message = f"a question never taught would get its answer (probability {leak:.2f})"
            return Violation(Refusal.LEAK, message)
    for divergence in measured.divergences[Role.TEXT]:
        if not divergence <= TEXT_DIVERGENCE:
            message = f"general text would change (divergence {divergence:.2f} nats a token)"
            return Violation(Refusal.GENERAL_TEXT, message)
    return None


def leak(measured: LessonScores) -> float | None:
    """The largest probability of the new answer at a control; None without controls."""
    return max(measured.probabilities[Role.CONTROL], default=None)


def text_divergence(measured: LessonScores) -> float | None:
    """The largest divergence of a general text, nats a token; None without texts."""
    return max(measured.divergences[Role.TEXT], default=None)


def within_limits(measured: LessonScores) -> bool:
    """Whether rehearsed facts, neighbors and controls allow the update to end."""
    divergences = measured.divergences[Role.NEIGHBOUR]
    mean = sum(divergences) / len(divergences) if divergences else 0.0
    rehearsed = measured.probabilities[Role.REHEARSED]
    return (
        mean < CALM_DIVERGENCE
        and min(rehearsed, default=1.0) >= REHEARSED_PROBABILITY
        and max(measured.probabilities[Role.CONTROL], default=0.0) <= CALM_LEAK
    )


def drawn(key: str) -> int:
    """A pseudorandom number of 64 bits that depends only on the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _rehearsed_row(encoder: Encoder, example: Example, older: Example) -> Row:
    """A rehearsed fact; for half of them, some function words of the question are left out."""
    key = f"{example.fact_id} rehearses {older.fact_id}"
    question = older.question
    if drawn(key) % 2:
        question = without_function_words(question, key)
    return Row.answering(Role.REHEARSED, encoder, question, older.answer)


def _neighbour_row(encoder: Encoder, about: Example, key: str) -> Row:
    """A question with the base model's own answer, where an invented name replaces the subject."""
    question = about.question
    if drawn(key) % 4 == 0:
        question = without_function_words(question, key)
    asked, said = neighbour(
        question, about.base_answer or "", invented_name(key), subject(about.question)
    )
    return held_row(encoder, Role.NEIGHBOUR, asked, said)


def held_row(encoder: Encoder, role: Role, question: str, said: str) -> Row:
    """A question that must keep the base model's answer; only the answer's beginning counts."""
    row = Row.answering(role, encoder, question, said)
    first = row.places[0]
    end = min(first + NEIGHBOUR_ANSWER_TOKENS, len(row.tokens) - 1)
    return Row(role, row.tokens[: end + 1], range(first, end))


def _text_row(text: Sequence[int], key: str) -> Row:
    """A general text at a sample of its places: each place costs V logits."""
    places = range(len(text) - 1)
    draw = random.Random(key)
    return Row(Role.TEXT, text, sorted(draw.sample(places, min(TEXT_PLACES, len(places)))))
