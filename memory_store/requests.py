"""Request ids: a repeated `teach` teaches nothing twice, and gets its first answer again."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from memory_store.encoding import write_json
from memory_store.errors import RequestIdUsedError
from memory_store.vocabulary import NewFact


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """A request that was answered before.

    Attributes:
        payload_hash: of its content.
        fact_id: the fact of its answer.
        created: whether it stored that fact.
        event_sequence: of its answer.
        replaces: id of the fact that this one superseded; empty if there was none.
    """

    payload_hash: str
    fact_id: str
    created: bool
    event_sequence: int
    replaces: str


def payload_hash(new: NewFact) -> str:
    """Digest of the content of a request, without its id and without settings of the server."""
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
    """The error for an id that is used again with other content."""
    return RequestIdUsedError(
        f"The request id {request_id!r} was used before, with other content (it led to fact "
        f"{earlier.fact_id}). Repeat the request unchanged, or choose a new request id."
    )
