"""Records what a history leads to: the ledger, the states of the facts, and the weights.

Each step of a history has two halves. The *outline* (versions, kinds of rows, policies, states,
events) must be the same on every machine. The *bits* (digests, losses, probabilities) depend on
what floating-point sums depend on, so they are stored under a fingerprint of the machine.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from memory_store import reviews
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import Operation, Policy, Update
from tests.store.builders import ledger_rows
from tests.undo.memory import Memory

Steps = list[dict[str, Any]]


def fingerprint() -> str:
    """The parts of this machine that the bits of a result on a CPU depend on."""
    return ", ".join(
        (
            f"torch {torch.__version__}",
            f"transformers {transformers.__version__}",
            f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} of {_vendor()}",
            "1 thread",
        )
    )


def _vendor() -> str:
    """The vendor of the CPU: libraries choose their kernels by it."""
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        for line in cpu.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("vendor_id", "CPU implementer"):
                return value.strip()
    return platform.processor() or "unknown"


class Recorder:
    """Collects the steps of one history.

    Attributes:
        outline: for each step what must be the same everywhere.
        bits: for each step what is the same on machines with one fingerprint.
    """

    def __init__(self) -> None:
        self.outline: Steps = []
        self.bits: Steps = []
        self._rows = self._events = self._reviews = 0

    async def memory(
        self, step: str, memory: Memory, operation: Operation | None = None, **outline: Any
    ) -> None:
        """Adds a step: what a running memory holds now, and the operation that led there."""
        await memory.settle()
        if operation is not None:
            outline["operation"] = f"{operation.kind.value} {operation.state.value}"
            proof = operation.proof or {}
            bits = {"proof": {name: _proved(name, proof[name]) for name in sorted(proof)}}
        else:
            bits = {}
        await memory.store.read(
            partial(self.store, step, memory.learner, outline=outline, bits=bits)
        )

    def store(
        self,
        step: str,
        learner: Any,
        store: MemoryStore,
        *,
        outline: dict[str, Any],
        bits: dict[str, Any],
    ) -> None:
        """Adds a step: what a store holds now, and the weights of its learner."""
        rows = ledger_rows(store.connection, after_version=self._rows)
        facts = store.facts(limit=1000)
        events = store.events(after_sequence=self._events)
        reviewed = [review for fact in facts for review in reviews.of_fact(store, fact.id)]
        new = sorted(
            (review for review in reviewed if review.id > self._reviews), key=lambda r: r.id
        )
        self._rows += len(rows)
        self._events = store.last_event_sequence()
        self._reviews += len(new)
        self.add(
            step,
            learner,
            outline={
                "head": store.model_version(),
                "rows": [_row(row) for row in rows],
                "states": {fact.id: fact.state.value for fact in facts},
                "events": [f"{event.kind.value} {event.fact_id}".strip() for event in events],
                "reviews": [f"{review.fact_id} {review.outcome.value}" for review in new],
                **outline,
            },
            bits={
                "rows": [row_bits(row) for row in rows],
                "reviews": [review.probability for review in new],
                **bits,
            },
        )

    def findings(self, step: str, learner: Any, store: MemoryStore) -> None:
        """Adds a step: what is kept about each fact, and its probes."""
        facts = store.facts(limit=1000)
        probes = {fact.id: probes_of(store.connection, fact.id) for fact in facts}
        tried = {fact.id: _policy(fact.tried_policy) for fact in facts}
        self.add(
            step,
            learner,
            outline={
                "tried by": tried,
                "probes": {
                    id_: dict(sorted(Counter(probe.kind.value for probe in found).items()))
                    for id_, found in probes.items()
                },
            },
            bits={
                "learning": {fact.id: _learning(fact.learning) for fact in facts},
                "probes": {
                    id_: short_hash(
                        [
                            [p.question, p.answer, p.correct, p.log_probability, p.model_version]
                            for p in found
                        ]
                    )
                    for id_, found in probes.items()
                },
            },
        )

    def add(
        self, step: str, learner: Any, *, outline: dict[str, Any], bits: dict[str, Any]
    ) -> None:
        """Adds a step of a learner: its version, its digest, and all its weights."""
        self.outline.append({"step": step, "version": learner.version, **outline})
        self.bits.append(
            {
                "step": step,
                "digest": learner.digest[:16],
                "weights": all_weights(learner.model),
                **bits,
            }
        )


def all_weights(model: torch.nn.Module) -> str:
    """A hash of every bit of the weights; the ledger's digest reads a sample of them."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _row(row: Update) -> str:
    """One row of the ledger, in one line."""
    by = f" by {_policy(row.policy)}" if row.policy else ""
    made = f"{row.model_version} {row.kind.value} on {row.parent_version}: {row.fact_id or '-'}"
    return f"{made}{by} ({row.algorithm})"


def row_bits(row: Update) -> str:
    """What a row says in numbers; a field that is added to a step changes nothing here."""
    steps = [
        [
            step.learning_rate,
            step.loss,
            step.probability,
            list(step.rehearsed_fact_ids),
            step.gradient_norm,
            step.answer_tokens,
            step.candidates,
        ]
        for step in row.steps
    ]
    predictor = list(row.policy.predictor or ()) if row.policy else []
    return (
        f"{row.model_version}: {row.digest_before[:16]} to {row.digest_after[:16]}"
        f" in {len(steps)} steps {short_hash([steps, predictor])}"
    )


def _policy(policy: Policy | None) -> str | None:
    """A policy in one line; `guards` are candidates/rehearsed/neighbors/controls/texts."""
    if policy is None:
        return None
    guards = policy.guards
    held = (
        "guards of the server"
        if guards is None
        else f"guards {guards.candidates}/{guards.rehearsed}/{guards.neighbours}"
        f"/{guards.controls}/{guards.texts}"
    )
    return (
        f"{policy.name} {policy.learning_rate:g} x {policy.max_steps}, {held}"
        f"{', gated' if policy.gated else ''}{', predictor' if policy.predictor else ''}"
    )


def _proved(name: str, value: Any) -> Any:
    """A number of a proof as it is; of a text only whether there is one, since words may change."""
    if name == "seconds":
        return "measured by the clock"
    if name.startswith("digest"):
        return value[:16]
    return bool(value) if isinstance(value, str) else value


def _learning(learning: Any) -> list[Any] | None:
    if learning is None:
        return None
    return [
        learning.model_version,
        learning.probability_before,
        learning.probability_after,
        learning.leak,
        learning.drift,
        short_hash([learning.answer_before, learning.answer_after, learning.base_answer]),
        short_hash([list(learning.learning_rates)]),
        short_hash([[point.learning_rate, point.probability] for point in learning.curve]),
    ]


def short_hash(value: Any) -> str:
    """Short hash of JSON values; floats are written so that they are read back exactly."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
