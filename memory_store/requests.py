"""Request ids: what makes a repeated `teach` teach nothing twice."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import datetime

from memory_store.connection import Connection
from memory_store.encoding import write_json, write_time
from memory_store.errors import FactExistsError
from memory_store.records import NewFact


def payload_hash(new: NewFact) -> str:
    """Digest of all that a request says, its own id aside."""
    content = asdict(new)
    del content["request_id"]
    if new.policy is not None:
        # Not the client's to say; and requests from before it existed keep their digests.
        del content["policy"]["predictor"]
    return hashlib.sha256(write_json(content).encode()).hexdigest()


def find_fact_id(connection: Connection, request_id: str, new: NewFact) -> str | None:
    """The fact that this request led to, if it was seen before.

    Raises:
        FactExistsError: it was seen before, and said something else.
    """
    rows = connection.execute(
        "SELECT payload_hash, fact_id FROM requests WHERE request_id = ?", [request_id]
    )
    if not rows:
        return None
    if rows[0]["payload_hash"] != payload_hash(new):
        raise FactExistsError(
            f"The request id {request_id!r} was used before, with other content (it led to fact "
            f"{rows[0]['fact_id']}). Repeat the request unchanged, or choose a new request id."
        )
    return str(rows[0]["fact_id"])


def remember(
    connection: Connection, request_id: str, new: NewFact, fact_id: str, at: datetime
) -> None:
    """Notes which fact a request led to."""
    connection.execute(
        "INSERT INTO requests (request_id, payload_hash, fact_id, created_at) VALUES (?, ?, ?, ?)",
        [request_id, payload_hash(new), fact_id, write_time(at)],
    )
