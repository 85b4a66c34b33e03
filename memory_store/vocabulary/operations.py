"""Forget and rollback, and what an operator does with the data folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class OperationKind(StrEnum):
    """What an operator asked for that moves the head of the ledger."""

    FORGET = "forget"
    ROLLBACK = "rollback"


class OperationState(StrEnum):
    """How far an operation is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


# States of operations that came to nothing: what is served stayed as it was.
GIVEN_UP = (OperationState.FAILED, OperationState.CANCELLED)


class PlaceKind(StrEnum):
    """What was written outside the data folder."""

    BACKUP = "backup"
    EXPORT = "export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request to forget or to roll back, and how far it is.

    Attributes:
        id: from 1, in the order requested.
        kind: forget or rollback.
        state: how far it is.
        fact_id: what to forget; empty for a rollback.
        erase: whether the fact's text is to be removed too.
        to_version: where to roll back to; 0 for forgetting too.
        branch_version: newest row of the branch being built; None before it began.
        position: facts up to this position are on the branch already.
        message: why it failed, or what was done.
        proof: what was measured in the end, as JSON values; None until then.
        requested_at: when.
        finished_at: when; None until then.
        after_event: sequence of the last event before the request.
        base_version: the version that the branch grew from; None before it began.
        first_position: facts from this position on are repeated on the branch; 0 before it began.
        first_review: so are reviews from this id on; 0 if only those after that position are.
        never_saw: probability of the fact's answer where the branch begins; None if not measured.
        done: facts that are on the branch.
        total: facts that are to be on it, as far as is known now; 0 before it began.
    """

    id: int
    kind: OperationKind
    state: OperationState
    fact_id: str
    erase: bool
    to_version: int
    branch_version: int | None
    position: int
    message: str
    proof: Mapping[str, Any] | None
    requested_at: datetime
    finished_at: datetime | None
    after_event: int = 0
    base_version: int | None = None
    first_position: int = 0
    first_review: int = 0
    never_saw: float | None = None
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A backup or an export that was written outside the data folder."""

    kind: PlaceKind
    path: str
    model_version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What compacting did.

    Attributes:
        bytes_before: of the database file.
        bytes_after: the same afterwards.
        removed_probes: old probes that the rule does not keep.
        removed_events: likewise.
        reclaimable_bytes: free in the file, given back only when it is rewritten.
    """

    bytes_before: int
    bytes_after: int
    removed_probes: int
    removed_events: int
    reclaimable_bytes: int
