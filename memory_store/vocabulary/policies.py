"""How the learning rate of a fact is chosen, and what guards its update."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """How much of everything else an update is held to; 0 switches a guard off.

    Attributes:
        candidates: older facts that are looked at before and after.
        rehearsed: how many of them are learned along, half the weakest, half drawn.
        neighbours: questions of the same form about invented names, held to the base model.
        controls: more of those, of which the update never learns, asked at the gate.
        texts: pieces of general text, held to the base model.
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
        name: a key of `agent.learning.rates.POLICIES`.
        learning_rate: of a step; with `search` and `predicted` the largest that they may choose.
            1e-8 to 1e-1.
        max_steps: 1 to 1000.
        guards: None leaves them to the server.
        predictor: with `predicted`, the numbers of an `agent.learning.prediction.RatePredictor`,
            which the server adds; None while it has none.
        gated: an update that harms what was there before is refused, whatever the policy and its
            guards. Rows from before this existed are read as not gated, so that learning them
            again gives the same result.
    """

    name: str
    learning_rate: float
    max_steps: int
    guards: Guards | None = None
    predictor: tuple[float, ...] | None = None
    gated: bool = False
