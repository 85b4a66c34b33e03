"""Request ids: what makes a repeated `teach` teach nothing twice, and gives its first answer."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from memory_store.encoding import write_json
from memory_store.errors import RequestIdUsedError
from memory_store.vocabulary import NewFact


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """A request that was answered.

    Attributes:
        payload_hash: of what it said.
        fact_id: the fact that it led to.
        created: whether it made that fact.
        event_sequence: of its answer.
        replaces: id of the fact that its own took the place of; empty if there was none.
    """

    payload_hash: str
    fact_id: str
    created: bool
    event_sequence: int
    replaces: str


def payload_hash(new: NewFact) -> str:
    """Digest of all that a request says, its own id aside; no setting of the server is in it."""
    asked = new.asked_policy or new.policy
    policy = None
    if asked is not None:
        policy = asdict(asked)
        del policy["predictor"], policy["gated"]  # the server decides these
    content = {
        "question": new.question,
        "answer": new.answer,
        "correlated_questions": new.correlated_questions,
        "policy": policy,
        "fact_id": new.fact_id,
    }
    return hashlib.sha256(write_json(content).encode()).hexdigest()


def used_otherwise(request_id: str, earlier: EarlierRequest) -> RequestIdUsedError:
    """The error for an id that comes again with other content."""
    return RequestIdUsedError(
        f"The request id {request_id!r} was used before, with other content (it led to fact "
        f"{earlier.fact_id}). Repeat the request unchanged, or choose a new request id."
    )
