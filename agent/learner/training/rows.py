"""Rows of a lesson: texts with the places where predictions matter, and what each kind weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from agent.learner.inference.encoding import Encoder

# Against the loss of the fact. Weaker, neighbours let one control in six be answered with a taught
# answer at 100 facts; with 4, none (docs/LOG.md).
REHEARSAL_WEIGHT = 1.0
NEIGHBOUR_WEIGHT = 4.0
ORDINARY_WEIGHT = 2.0
TEXT_WEIGHT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """What each kind of row weighs, compared with the mean loss of the facts.

    Attributes:
        rehearsed: of the mean loss of rehearsed facts.
        neighbor: of the mean divergence of neighbors.
        ordinary: of the mean divergence of ordinary questions.
        text: of the mean divergence of general texts.
    """

    rehearsed: float = REHEARSAL_WEIGHT
    neighbor: float = NEIGHBOUR_WEIGHT
    ordinary: float = ORDINARY_WEIGHT
    text: float = TEXT_WEIGHT


# Those of a single update.
UPDATE_WEIGHTS = LossWeights()


class Role(IntEnum):
    """Why a row is in a lesson; in this order.

    `FACT` and `REHEARSED` are learned, `ASKED` and `CONTROL` only looked at; of all four the
    probability of the answer matters. `NEIGHBOUR`, `ORDINARY` (what people ask) and `TEXT` are held
    to the base model's distributions.
    """

    FACT = 0
    ASKED = 1
    REHEARSED = 2
    CONTROL = 3
    NEIGHBOUR = 4
    ORDINARY = 5
    TEXT = 6


@dataclass(frozen=True, slots=True)
class Row:
    """A text with the places where the model's prediction matters.

    Attributes:
        role: see there.
        tokens: of the whole text.
        places: columns whose next token is predicted, ascending.
    """

    role: Role
    tokens: Sequence[int]
    places: Sequence[int]

    @classmethod
    def answering(cls, role: Role, encoder: Encoder, question: str, answer: str) -> Row:
        """A question in the usual prompt; its answer and the terminator are predicted."""
        asked, answered = encoder.prompt(question), encoder.answer(answer)
        places = range(len(asked) - 1, len(asked) + len(answered) - 1)
        return cls(role, [*asked, *answered], places)

    @classmethod
    def whole(cls, role: Role, tokens: Sequence[int]) -> Row:
        """A text of which every token but the first is predicted."""
        return cls(role, tokens, range(len(tokens) - 1))
