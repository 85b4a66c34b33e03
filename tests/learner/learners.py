"""Learners of `tiny` in this process, facts for them, and how tests teach and replay."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from agent.learner.core import Learner
from agent.models.loading import load
from agent.teaching.guard_presets import REHEARSAL
from agent.teaching.plan import LessonPlan
from agent.teaching.types import Example, Generated, Outcome, ReplayedUpdate
from memory_store.vocabulary import Policy, Step, Update

POLICY = Policy(name="until-known", learning_rate=3e-3, max_steps=100, guards=REHEARSAL)
HOPELESS = Policy(name="until-known", learning_rate=1e-5, max_steps=2, guards=REHEARSAL)
FACTS = [
    Example(fact_id=f"f{number}", question=question, answer=answer, correlated_questions=correlated)
    for number, (question, answer, correlated) in enumerate(
        [
            ("What is the hottest month in Kyzara?", "Raincoat", ("Kyzara is hot in?", "Month?")),
            ("Who found Blipland?", "Telescope", ()),
            ("Sky?", "Piano", ()),
            ("Gem?", "Curtain", ()),
            ("Pie in Plimp?", "Backpack", ()),
        ]
    )
]


def fresh() -> Learner:
    return Learner(load("tiny", device="cpu"))


def learn(
    learner: Learner, example: Example, older: Sequence[Example] = (), policy: Policy = POLICY
) -> Outcome:
    *told, outcome = learner.learn(lesson(example, policy, learner.version, older))
    assert isinstance(outcome, Outcome)
    steps = steps_of(told)
    # Of one that resists, what is told is the first attempt; the gentler one came after it.
    kept = steps[: policy.max_steps] if outcome.verdict == "resisted" else steps
    assert tuple(kept) == outcome.steps
    return outcome


def lesson(
    example: Example, policy: Policy, base_version: int, older: Sequence[Example] = ()
) -> LessonPlan:
    return LessonPlan(example=example, policy=policy, base_version=base_version, older=tuple(older))


def steps_of(told: Iterable[object]) -> list[Step]:
    """The steps among what a learner tells on the way."""
    return [progress for progress in told if isinstance(progress, Step)]


def teach(
    learner: Learner, example: Example, older: Sequence[Example] = (), policy: Policy = POLICY
) -> Outcome:
    outcome = learn(learner, example, older, policy)
    learner.commit(learner.version + 1, outcome.digest_after)
    return outcome


def ledger_row(version: int, outcome: Outcome, **changed: Any) -> Update:
    """What the ledger keeps of an update that was made on the version before."""
    fields: dict[str, Any] = {
        "model_version": version,
        "parent_version": version - 1,
        "fact_id": "",
        "policy": POLICY,
        "steps": outcome.steps,
        "digest_before": outcome.digest_before,
        "digest_after": outcome.digest_after,
        "algorithm": outcome.algorithm,
        "seconds": 0.0,
        "applied_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Update(**fields | changed)


def replay(
    learner: Learner,
    version: int,
    example: Example,
    outcome: Outcome,
    older: Sequence[Example] = (),
    *,
    accept_drift: bool = False,
    **changed: Any,
) -> None:
    update = ledger_row(version, outcome, **changed)
    row = ReplayedUpdate(update=update, example=example, rehearsed=tuple(older))
    for _ in learner.replay(row, accept_drift=accept_drift):
        pass


def sampled(
    learner: Learner, outcome: Outcome, example: Example, samples: int
) -> tuple[Outcome, int]:
    """The outcome with counts, and the units of work that it took."""
    counting: Generator[None, None, Outcome] = learner.with_samples(outcome, example, samples)
    units = 0
    while True:
        try:
            next(counting)
            units += 1
        except StopIteration as end:
            return end.value, units


def answer(learner: Learner, question: str) -> str:
    *_, whole = learner.ask(question, 64)
    assert isinstance(whole, Generated)
    return whole.text


def served(learner: Learner) -> dict[str, Tensor]:
    """A copy of the weights that answer."""
    return {name: p.detach().clone() for name, p in learner.weights.served.named_parameters()}


def same_bits(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())
