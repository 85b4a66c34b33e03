"""Probes: questions that are put to the model, and its answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ProbeKind(StrEnum):
    """Why a question was put to the model."""

    RETENTION = "retention"
    """The fact's own question."""
    TRANSFER = "transfer"
    """A correlated question of the fact, which was never trained on."""
    FORGETTING = "forgetting"
    """The question of an older fact, after an update for another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProbe:
    """A measurement before it is stored; see `Probe`."""

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
    """One question put to the model, and its answer.

    Attributes:
        kind: why it was asked.
        fact_id: the fact that it is about.
        question: as asked.
        expected_answer: the right answer.
        answer: free greedy generation.
        correct: the generation ended by itself and says the expected answer.
        log_probability: of the exact answer, terminator included, natural logarithm.
        samples: how many texts were sampled from the bare question, as in the paper; 0 for none.
        correct_samples: how many of them say the answer.
        model_version: the version that was asked.
        cause_fact_id: the fact whose learning led to this probe, or empty.
        probed_at: when it was stored.
    """

    model_version: int
    cause_fact_id: str
    probed_at: datetime
