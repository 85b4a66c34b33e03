"""Probes: questions put to the model, and how it did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ProbeKind(StrEnum):
    """Why a question was put to the model."""

    RETENTION = "retention"
    TRANSFER = "transfer"
    FORGETTING = "forgetting"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProbe:
    """A measurement about to be stored; see `Probe`."""

    kind: ProbeKind
    fact_id: str
    question: str
    expected_answer: str
    answer: str
    correct: bool
    log_probability: float
    samples: int = 0
    correct_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(NewProbe):
    """One question put to the model, and how it did.

    Attributes:
        kind: why it was asked.
        fact_id: the fact that it is about.
        question: as asked.
        expected_answer: the right answer.
        answer: free greedy generation.
        correct: the generation ended by itself and says the expected answer.
        log_probability: of the exact answer, terminator included, natural logarithm.
        samples: texts that were sampled from the bare question, as in the paper; 0 if none were.
        correct_samples: how many of them say the answer.
        model_version: position in the ledger of the weights that were asked.
        cause_fact_id: the fact whose learning led to this probe, or empty.
        probed_at: when it was stored.
    """

    model_version: int
    cause_fact_id: str
    probed_at: datetime
