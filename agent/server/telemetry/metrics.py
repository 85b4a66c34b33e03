"""The metrics of a server, for Prometheus; docs/operations describes each.

Events are counted as they happen. Gauges are looked up at every scrape.
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
# The newest probes of held facts, which retention is computed from.
RETENTION_WINDOW = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The state of a server at a moment; `GAUGES` says what each field means.

    None leaves a gauge out.
    """

    facts: Mapping[FactState, int]
    queue_oldest_seconds: float
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

    @property
    def queue_depth(self) -> int:
        """Facts that are not learned yet."""
        return self.facts[FactState.QUEUED] + self.facts[FactState.LEARNING]


# Gauges by their names, which are those of the attributes of `Standing`.
GAUGES = {
    "queue_depth": "Facts that wait to be learned",
    "queue_oldest_seconds": "How long the fact that waits longest has waited",
    "model_version": "Head of the ledger",
    "learner_ready": "1 if questions can be asked",
    "updates_to_replay": "How far recovery has to go",
    "learning_paused": "1 if an operator stopped learning",
    "database_bytes": "Size of the database file",
    "wal_bytes": "Size of the write-ahead log",
    "snapshot_version": "Version of the newest snapshot",
    "snapshot_age_seconds": "Time since the newest snapshot was written",
    "operation_done_facts": "Facts that the operation in progress has learned again",
    "operation_total_facts": "Facts that the operation in progress is to learn again",
    "clean_up_failures": "Failed attempts at removing what a forgotten fact left behind",
}


class Metrics:
    """The metrics of one server.

    Args:
        stand: returns the gauges; called in the thread that serves a scrape.

    Attributes:
        registry: holds all metrics.
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
        self._retention.set(float("nan"))  # until the first probe

    def called(self, method: str, code: str, seconds: float) -> None:
        """Counts a call that has ended."""
        self._calls.labels(method, code).observe(seconds)

    def learned(self, outcome: Outcome, seconds: float) -> None:
        """Counts an attempt that has ended, however it ended."""
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
        """Counts a probe of a held fact: of its own question, and of correlated ones."""
        self._probe_seconds.observe(seconds)
        own, *correlated = answers
        self._probe(ProbeKind.RETENTION, own)
        for answer in correlated:
            self._probe(ProbeKind.TRANSFER, answer)
        self._retained.append(own.correct)
        self._retention.set(sum(self._retained) / len(self._retained))

    def updated(self, update: Update) -> None:
        """Counts a row of the ledger that is served."""
        self._updates.labels(update.kind.value).inc()

    def _probe(self, kind: ProbeKind, answer: Answer) -> None:
        self._probes.labels(kind.value, "right" if answer.correct else "wrong").inc()


class _Standings(Collector):
    """Looks the gauges up at every scrape."""

    def __init__(self, stand: Callable[[], Standing]) -> None:
        self._stand = stand

    def describe(self) -> list[GaugeMetricFamily]:
        """Returns nothing, so that registering looks nothing up."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields a family for each gauge."""
        now = self._stand()
        facts = GaugeMetricFamily("continual_facts", "Facts in each state", labels=["state"])
        for state, count in now.facts.items():
            facts.add_metric([state.value], count)
        yield facts
        for name, help_ in GAUGES.items():
            if (value := getattr(now, name)) is not None:
                yield GaugeMetricFamily(f"continual_{name}", help_, value=float(value))
