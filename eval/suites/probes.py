"""Suite `probes`: asks a server about every fact that it holds, and about correlated questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.client.client import Client
from eval.metrics import Count, finite, mean
from memory_store.vocabulary import Probe, ProbeKind

KINDS = (ProbeKind.RETENTION, ProbeKind.TRANSFER)
PROBE_FIELDS = (
    *("kind", "fact_id", "question", "expected_answer", "answer", "correct"),
    *("log_probability", "model_version"),
)
# How answers are generated and graded; a part of every result.
SAMPLING = "greedy, one answer a question; right if it ends by itself and says the answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindAnswers:
    """The answers to probes of one kind.

    Attributes:
        correct: how many are.
        mean_probability: of the exact answers, 0 to 1; None without probes.
    """

    correct: Count
    mean_probability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """How many facts a server's model answers.

    Attributes:
        model: as the server calls it.
        model_versions: ledger positions that were probed; several if it learned meanwhile.
        answers: by kind of probe.
        probes: all of them, in the order asked.
    """

    model: str
    model_versions: tuple[int, ...]
    answers: dict[str, KindAnswers]
    probes: tuple[Probe, ...]

    @property
    def missed(self) -> list[Probe]:
        """Retention probes that went wrong."""
        return [p for p in self.probes if p.kind == ProbeKind.RETENTION and not p.correct]

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "suite": "probes",
            "model": self.model,
            "model_versions": list(self.model_versions),
            "sampling": SAMPLING,
            **{
                kind: {
                    **answers.correct.as_json("correct"),
                    "mean_probability": answers.mean_probability,
                }
                for kind, answers in self.answers.items()
            },
            "probes": [
                {name: getattr(probe, name) for name in PROBE_FIELDS} for probe in self.probes
            ],
        }


def probe_server(client: Client, progress: Callable[[int, int], None]) -> ProbeReport:
    """Probes all facts that are learned or known.

    Args:
        client: of the server.
        progress: called with facts done and facts in all.
    """
    probes = []
    for probe, done, total in client.probe():
        probes.append(probe)
        progress(done, total)
    return ProbeReport(
        model=client.status().model,
        model_versions=tuple(sorted({probe.model_version for probe in probes})),
        answers={kind.value: _answers([p for p in probes if p.kind == kind]) for kind in KINDS},
        probes=tuple(probes),
    )


def _answers(probes: Sequence[Probe]) -> KindAnswers:
    return KindAnswers(
        correct=Count.of(probe.correct for probe in probes),
        mean_probability=finite(mean([math.exp(probe.log_probability) for probe in probes])),
    )
