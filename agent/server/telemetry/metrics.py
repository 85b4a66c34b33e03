"""The metrics of a server, for Prometheus; what each means is told in docs/operations.

Two kinds: what is counted when it happens, and what is looked up when somebody scrapes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agent.teaching.types import Answer, Outcome
from memory_store.vocabulary import FactState, ProbeKind, Update

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
WORK_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
PROBABILITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1)
NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.15, 0.2, 0.25, 0.5, 1)
# Held facts that were asked last: what retention is told from.
RETENTION_WINDOW = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How things stand at a moment.

    Attributes:
        facts: how many are in each state.
        oldest_queued_seconds: how long the fact that has waited longest has; 0 if none waits.
        model_version: the head of the ledger.
        learner_ready: whether questions can be asked.
        updates_to_replay: how far recovery has to go.
        learning_paused: whether an operator stopped learning.
        database_bytes: size of the database file.
        wal_bytes: size of its write-ahead log.
        snapshot_version: of the newest snapshot; None if there is none.
        snapshot_age_seconds: since it was written.
        operation_done_facts: facts that the operation in progress has learned again.
        operation_total_facts: facts that it is to learn again; 0 if there is no operation.
        clean_up_failures: attempts at removing what a forgotten fact left behind that failed.
    """

    facts: Mapping[FactState, int]
    oldest_queued_seconds: float
    model_version: int
    learner_ready: bool
    updates_to_replay: int
    learning_paused: bool
    database_bytes: int
    wal_bytes: int
    snapshot_version: int | None
    snapshot_age_seconds: float | None
    operation_done_facts: int = 0
    operation_total_facts: int = 0
    clean_up_failures: int = 0


class Metrics:
    """What a server counts.

    Args:
        stand: tells how things stand; called in the thread that serves a scrape.

    Attributes:
        registry: holds all of them.
    """

    def __init__(self, stand: Callable[[], Standing]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Standings(stand))
        self._calls = Histogram(
            "continual_rpc_seconds",
            "Time of a call, streams to their end",
            ("method", "code"),
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self._attempts = Histogram(
            "continual_update_seconds",
            "Time that the learner took for a fact, probes included",
            ("verdict",),
            buckets=WORK_SECONDS,
            registry=registry,
        )
        self._updates = Counter(
            "continual_updates", "Rows of the ledger that are served", ("kind",), registry=registry
        )
        self._rates = Histogram(
            "continual_learning_rate",
            "Learning rates that steps were taken at",
            buckets=RATES,
            registry=registry,
        )
        self._leaks = Histogram(
            "continual_leak_probability",
            "Highest probability of a fact's answer among control questions, at the gate",
            buckets=PROBABILITIES,
            registry=registry,
        )
        self._divergences = Histogram(
            "continual_text_divergence_nats",
            "Largest change of a general text, at the gate; perplexity grows by its exponential",
            buckets=NATS,
            registry=registry,
        )
        self._probes = Counter(
            "continual_probes", "Facts that were asked", ("kind", "result"), registry=registry
        )
        self._probe_seconds = Histogram(
            "continual_probe_seconds",
            "Time of a probe of a held fact, waiting included",
            buckets=WORK_SECONDS,
            registry=registry,
        )
        self._retention = Gauge(
            "continual_retention_ratio",
            f"Share of the held facts asked last, at most {RETENTION_WINDOW}, that were answered",
            registry=registry,
        )
        self._retained: deque[bool] = deque(maxlen=RETENTION_WINDOW)
        self._retention.set(float("nan"))  # nobody knows yet

    def called(self, method: str, code: str, seconds: float) -> None:
        """A call of ours has ended."""
        self._calls.labels(method, code).observe(seconds)

    def learned(self, outcome: Outcome, seconds: float) -> None:
        """The learner is done with a fact, whatever came of it."""
        self._attempts.labels(outcome.verdict).observe(seconds)
        for step in outcome.steps:
            self._rates.observe(step.learning_rate)
        if outcome.leak is not None:
            self._leaks.observe(outcome.leak)
        if outcome.drift is not None:
            self._divergences.observe(outcome.drift)
        for kind, answers in (
            (ProbeKind.TRANSFER, outcome.transfer),
            (ProbeKind.FORGETTING, outcome.forgetting),
        ):
            for answer in answers:
                self._probe(kind, answer)

    def probed(self, answers: Sequence[Answer], seconds: float) -> None:
        """A held fact was asked its own question, and maybe correlated ones."""
        self._probe_seconds.observe(seconds)
        own, *correlated = answers
        self._probe(ProbeKind.RETENTION, own)
        for answer in correlated:
            self._probe(ProbeKind.TRANSFER, answer)
        self._retained.append(own.correct)
        self._retention.set(sum(self._retained) / len(self._retained))

    def updated(self, update: Update) -> None:
        """A row of the ledger is served."""
        self._updates.labels(update.kind.value).inc()

    def _probe(self, kind: ProbeKind, answer: Answer) -> None:
        self._probes.labels(kind.value, "right" if answer.correct else "wrong").inc()


class _Standings(Collector):
    """Asks how things stand at every scrape."""

    def __init__(self, stand: Callable[[], Standing]) -> None:
        self._stand = stand

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: else it would be asked when it is registered."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family for each figure."""
        now = self._stand()
        facts = GaugeMetricFamily("continual_facts", "Facts in each state", labels=["state"])
        for state, count in now.facts.items():
            facts.add_metric([state.value], count)
        yield facts
        queued = now.facts[FactState.QUEUED] + now.facts[FactState.LEARNING]
        for name, help_, value in (
            ("queue_depth", "Facts that wait to be learned", queued),
            (
                "queue_oldest_seconds",
                "How long the fact that waits longest has waited",
                now.oldest_queued_seconds,
            ),
            ("model_version", "Head of the ledger", now.model_version),
            ("learner_ready", "1 if questions can be asked", float(now.learner_ready)),
            ("updates_to_replay", "How far recovery has to go", now.updates_to_replay),
            (
                "learning_paused",
                "1 if an operator stopped learning",
                float(now.learning_paused),
            ),
            ("database_bytes", "Size of the database file", now.database_bytes),
            ("wal_bytes", "Size of the write-ahead log", now.wal_bytes),
            ("snapshot_version", "Version of the newest snapshot", now.snapshot_version),
            (
                "snapshot_age_seconds",
                "Time since the newest snapshot was written",
                now.snapshot_age_seconds,
            ),
            (
                "operation_done_facts",
                "Facts that the operation in progress has learned again",
                now.operation_done_facts,
            ),
            (
                "operation_total_facts",
                "Facts that the operation in progress is to learn again",
                now.operation_total_facts,
            ),
            (
                "clean_up_failures",
                "Failed attempts at removing what a forgotten fact left behind",
                now.clean_up_failures,
            ),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"continual_{name}", help_, value=value)
