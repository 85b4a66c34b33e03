"""How the learning rate of a fact is chosen, and what guards its update."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """What an update must leave as it was, and how much of it is looked at. 0 switches one off.

    Attributes:
        candidates: number of companions to compare (see `compared` in the glossary; the name of
            the field is older than the word).
        rehearsed: how many of them are trained on too: half the weakest, half drawn.
        neighbours: questions of the same form about invented names. They keep the base model's
            answer.
        controls: more such questions, which no loss contains. The gate asks them.
        texts: pieces of general text, kept near the base model.
    """

    candidates: int = 0
    rehearsed: int = 0
    neighbours: int = 0
    controls: int = 0
    texts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the learning rate of a fact is chosen, and what guards its update.

    Attributes:
        name: a key of `agent.teaching.rates.POLICIES`.
        learning_rate: of each step; `search` and `predicted` choose none larger. 1e-8 to 1e-1.
        max_steps: 1 to 1000.
        guards: None leaves them to the server.
        predictor: for `predicted`, the numbers of an
            `agent.teaching.rate_prediction.RatePredictor`, which the server adds. None while there
            is none.
        gated: an update that harms older facts, other questions or general text is refused,
            whatever the policy and its guards.
    """

    name: str
    learning_rate: float
    max_steps: int
    guards: Guards | None = None
    predictor: tuple[float, ...] | None = None
    gated: bool = False
