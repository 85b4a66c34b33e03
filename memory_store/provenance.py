"""Provenance: which updates moved the probability of an answer, from the recorded probes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from memory_store import facts, ledger, probes
from memory_store.errors import FactNotFoundError
from memory_store.store import MemoryStore
from memory_store.undone import by_rollbacks
from memory_store.vocabulary import Fact, LedgerKind, ProbeKind

PROBES_READ = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """The effect of one update on the probability of an answer, according to probes.

    Attributes:
        model_version: of the weights after the update.
        cause_fact_id: the fact that it taught, or removed by forgetting.
        cause_question: that fact's question; empty if it was erased.
        probability_before: of the answer at the probe before, 0 to 1.
        probability_after: at the probe that followed the update.
        kind: what the update did.
    """

    model_version: int
    cause_fact_id: str
    cause_question: str
    probability_before: float
    probability_after: float
    kind: LedgerKind


def influences_on(store: MemoryStore, question: str) -> tuple[Fact, list[Influence]]:
    """The fact of a question, and the updates that moved its answer, the largest first.

    The effect of an update without a probe after it is attributed to the next one with a probe.
    Updates that a rollback undid are left out.

    Raises:
        FactNotFoundError: no fact has this question.
    """
    fact = facts.find_by_question(store.connection, question)
    if fact is None:
        raise FactNotFoundError(
            f"No fact has the question {question!r}. List the facts to see which there are."
        )
    undone = by_rollbacks(store.connection)
    measured = [
        probe
        for probe in reversed(probes.of_fact(store.connection, fact.id, PROBES_READ))
        if probe.kind is not ProbeKind.TRANSFER
        and not any(probe.model_version in span for span in undone)
    ]
    before = fact.learning.probability_before if fact.learning else 0.0
    influences = []
    for probe in measured:
        after = math.exp(probe.log_probability)
        # Probes without a cause (audits, requests) follow no update.
        if probe.cause_fact_id:
            update = ledger.find(store.connection, probe.model_version)
            # A fact that resisted, or was known, is probed on the weights of an update before it.
            if update is not None and update.fact_id == probe.cause_fact_id:
                influences.append(
                    Influence(
                        model_version=probe.model_version,
                        cause_fact_id=probe.cause_fact_id,
                        cause_question=store.fact(probe.cause_fact_id).question,
                        probability_before=before,
                        probability_after=after,
                        kind=update.kind,
                    )
                )
            before = after
    influences.sort(key=lambda i: abs(i.probability_after - i.probability_before), reverse=True)
    return fact, influences
