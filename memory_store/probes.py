"""Probes: what the model answered, when it was asked about a fact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import datetime

from memory_store import facts
from memory_store.connection import Connection, Row
from memory_store.encoding import read_time, write_time
from memory_store.records import NewProbe, Probe, ProbeKind


def insert(
    connection: Connection,
    probes: Sequence[NewProbe],
    model_version: int,
    cause_fact_id: str,
    at: datetime,
) -> list[Probe]:
    """Stores probes of the weights at `model_version`, in their order, and returns the rows.

    Raises:
        FactNotFoundError: a probe is about a fact that is not stored.
        ValueError: a log probability is not a number.
    """
    stored = []
    for probe in probes:
        if math.isnan(probe.log_probability):
            # SQLite would store NULL: say what is wrong, not which constraint broke.
            raise ValueError(f"The log probability of a probe of {probe.fact_id} is NaN.")
        facts.get(connection, probe.fact_id)
        connection.execute(
            "INSERT INTO probes (kind, fact_id, question, expected_answer, answer, correct,"
            " log_probability, samples, correct_samples, model_version, cause_fact_id, probed_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                probe.kind.value,
                probe.fact_id,
                probe.question,
                probe.expected_answer,
                probe.answer,
                int(probe.correct),
                probe.log_probability,
                probe.samples,
                probe.correct_samples,
                model_version,
                cause_fact_id,
                write_time(at),
            ],
        )
        stored.append(
            Probe(
                **dataclasses.asdict(probe),
                model_version=model_version,
                cause_fact_id=cause_fact_id,
                probed_at=at,
            )
        )
    return stored


def of_fact(connection: Connection, fact_id: str, limit: int) -> list[Probe]:
    """At most `limit` probes of one fact, newest first."""
    rows = connection.execute(
        "SELECT * FROM probes WHERE fact_id = ? ORDER BY id DESC LIMIT ?", [fact_id, limit]
    )
    return [_probe(row) for row in rows]


def _probe(row: Row) -> Probe:
    return Probe(
        kind=ProbeKind(row["kind"]),
        fact_id=row["fact_id"],
        question=row["question"],
        expected_answer=row["expected_answer"],
        answer=row["answer"],
        correct=bool(row["correct"]),
        log_probability=row["log_probability"],
        samples=row["samples"],
        correct_samples=row["correct_samples"],
        model_version=row["model_version"],
        cause_fact_id=row["cause_fact_id"],
        probed_at=read_time(row["probed_at"]),
    )
