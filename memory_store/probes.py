"""Probes: what the model answered, when it was asked about a fact.

There are many more of them than facts, so they do not repeat its texts: an empty question or
expected answer is the fact's, and the empty answer of a correct probe is the expected one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import datetime

from memory_store import facts
from memory_store.connection import Connection, Row
from memory_store.encoding import read_record, read_time, write_time
from memory_store.vocabulary import NewProbe, Probe, ProbeKind

COLUMNS = tuple(field.name for field in dataclasses.fields(Probe))


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
            # SQLite would store NULL, and report a broken constraint.
            raise ValueError(f"The log probability of a probe of {probe.fact_id} is NaN.")
        fact = facts.get(connection, probe.fact_id)
        if fact.erased:  # since it was asked: the probe would bring the text back
            probe = dataclasses.replace(probe, question="", expected_answer="", answer="")
        new = Probe(
            **dataclasses.asdict(probe),
            model_version=model_version,
            cause_fact_id=cause_fact_id,
            probed_at=at,
        )
        written = {
            "kind": probe.kind.value,
            "question": "" if probe.question == fact.question else probe.question,
            "expected_answer": ""
            if probe.expected_answer == fact.answer
            else probe.expected_answer,
            "answer": (
                "" if probe.correct and probe.answer == probe.expected_answer else probe.answer
            ),
            "probed_at": write_time(at),
        }
        connection.insert("probes", dataclasses.asdict(new) | written)
        stored.append(new)
    return stored


def of_fact(connection: Connection, fact_id: str, limit: int = 100) -> list[Probe]:
    """At most `limit` probes of one fact, newest first."""
    rows = connection.execute(
        "SELECT probes.*, facts.question AS own_question, facts.answer AS own_answer FROM probes"
        " JOIN facts ON facts.id = fact_id WHERE fact_id = ? ORDER BY probes.id DESC LIMIT ?",
        [fact_id, limit],
    )
    return [_probe(row) for row in rows]


def _probe(row: Row) -> Probe:
    expected = row["expected_answer"] or row["own_answer"]
    return read_record(
        Probe,
        row,
        kind=ProbeKind(row["kind"]),
        question=row["question"] or row["own_question"],
        expected_answer=expected,
        answer=row["answer"] or (expected if row["correct"] else ""),
        correct=bool(row["correct"]),
        probed_at=read_time(row["probed_at"]),
    )
