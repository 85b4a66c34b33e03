"""What operators get from a server, as records: rows of a table, for `pandas` too."""

from __future__ import annotations

from dataclasses import dataclass

from continual.v1 import admin_pb2
from continual.v1 import memory_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The weights of one version on disk.

    Attributes:
        model_version: whose weights they are.
        digest: of the weights.
        size_bytes: of the file.
        created_at: ISO 8601, UTC.
    """

    model_version: int
    digest: str
    size_bytes: int
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """What one update did to the probability of an answer; see `Influence` in memory.proto."""

    model_version: int
    cause_fact_id: str
    cause_question: str
    probability_before: float
    probability_after: float
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The fact that a question is of, and what moved its answer, largest movement first."""

    fact_id: str
    influences: tuple[Influence, ...]


def decode_snapshot(message: admin_pb2.Snapshot) -> Snapshot:
    """The message as our record."""
    return Snapshot(
        model_version=message.model_version,
        digest=message.digest,
        size_bytes=message.size_bytes,
        created_at=message.create_time,
    )


def decode_explanation(message: pb.ExplainResponse) -> Explanation:
    """The message as our record."""
    return Explanation(
        fact_id=message.fact_id,
        influences=tuple(
            Influence(
                model_version=influence.model_version,
                cause_fact_id=influence.cause_fact_id,
                cause_question=influence.cause_question,
                probability_before=influence.probability_before,
                probability_after=influence.probability_after,
                kind=influence.kind,
            )
            for influence in message.influences
        ),
    )
