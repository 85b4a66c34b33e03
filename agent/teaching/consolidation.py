"""Planning a consolidation: which facts are learned together, and how.

The second procedure beside `plan`, and of the same shape:

    plan = ConsolidationPlan(facts, settings, seed)
    consolidated = await drain(learner.consolidate(plan, checkpoint), on_epoch)

The result is a pure function of the base weights and the plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass, field

from agent.errors import LearnerUnavailableError
from agent.teaching.algorithm import CONSOLIDATION
from agent.teaching.hard_neighbors import NameShares
from agent.teaching.types import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationSettings:
    """How facts are learned together.

    Attributes:
        epochs: passes over all facts.
        facts: in each step.
        neighbors: untaught questions in each step.
        ordinary: ordinary questions in each step.
        texts: general texts in each step.
        learning_rate: the highest, after the warm-up.
        final_share: of the learning rate that is left at the last step.
        warmup_steps: over which the rate rises from zero.
        neighbor_weight: of the mean divergence of neighbors, compared with the loss of facts.
        ordinary_weight: of that of ordinary questions.
        text_weight: of that of general texts.
        names: what neighbors are about.
    """

    epochs: int = 30
    facts: int = 32
    neighbors: int = 48
    ordinary: int = 64
    texts: int = 24
    learning_rate: float = 3e-4
    final_share: float = 0.05
    warmup_steps: int = 20
    neighbor_weight: float = 2.0
    ordinary_weight: float = 4.0
    text_weight: float = 3.0
    names: NameShares = field(default_factory=NameShares)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, from 0 to `steps` - 1."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        progress = step / max(1, steps - 1)
        return self.learning_rate * warm * (1 - (1 - self.final_share) * progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationPlan:
    """All that a learner needs to consolidate.

    Attributes:
        facts: in the order of teaching, at least one.
        settings: see there.
        seed: of all random choices.
    """

    facts: tuple[Example, ...]
    settings: ConsolidationSettings = field(default_factory=ConsolidationSettings)
    seed: int = 0

    @property
    def digest(self) -> str:
        """Of everything but the base weights that the result depends on, in hexadecimal.

        Ids and correlated questions are not part of it: nothing is drawn by them.
        """
        facts = [(fact.question, fact.answer) for fact in self.facts]
        content = [CONSOLIDATION, facts, asdict(self.settings), self.seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Epoch:
    """How one pass over all facts went.

    Attributes:
        number: from 1.
        loss: mean over its steps, weighted sum of all terms.
        lowest: the lowest probability of an answer when its batch came.
        held: share of answers that had a probability of at least one half.
    """

    number: int
    loss: float
    lowest: float
    held: float


@dataclass(frozen=True, slots=True)
class Consolidated:
    """The end of a consolidation: its weights are in the working copy.

    Attributes:
        digest: of the weights.
        algorithm: name and version of the procedure.
    """

    digest: str
    algorithm: str


async def drain(
    consolidating: AsyncIterator[Epoch | Consolidated], on_epoch: Callable[[Epoch], None]
) -> Consolidated:
    """Has facts learned together on the learner's working copy.

    Args:
        consolidating: by `Learner.consolidate`.
        on_epoch: called after each epoch that is not resumed.

    Raises:
        LearnerUnavailableError: the learner died.
        LearningFailedError: the loss is not finite.
    """
    async for progress in consolidating:
        if isinstance(progress, Consolidated):
            return progress
        on_epoch(progress)
    raise LearnerUnavailableError("it ended without a result")


def drain_now(
    consolidating: Iterable[Epoch | Consolidated | None],
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Consolidated:
    """The same with a learner in this process, which also yields None after each step."""
    for progress in consolidating:
        match progress:
            case Consolidated():
                return progress
            case Epoch():
                on_epoch(progress)
    raise AssertionError("a consolidation ends with its result")
