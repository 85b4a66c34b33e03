"""What learners find, for those who count it."""

from __future__ import annotations

from typing import Any

from agent.server.telemetry.metrics import Standing
from agent.teaching.types import Answer, Outcome
from memory_store.vocabulary import FactState, Step

RIGHT = Answer(text="Piano", correct=True, log_probability=-0.1)
WRONG = Answer(text="?", correct=False, log_probability=-5.0)


def outcome(verdict: str = "learned", **found: Any) -> Outcome:
    fields: dict[str, Any] = {
        "verdict": verdict,
        "steps": (Step(learning_rate=1e-3, loss=2.0, probability=0.95),),
        "before": WRONG,
        "after": RIGHT,
        "transfer": (),
        "forgetting": (),
        "digest_before": "d0",
        "digest_after": "d1",
        "algorithm": "answer-adamw/2",
    }
    return Outcome(**fields | found)


def standing(**known: Any) -> Standing:
    fields: dict[str, Any] = {
        "facts": dict.fromkeys(FactState, 0),
        "queue_oldest_seconds": 0.0,
        "model_version": 3,
        "learner_ready": True,
        "updates_to_replay": 0,
        "learning_paused": False,
        "database_bytes": 4096,
        "wal_bytes": 0,
        "snapshot_version": 2,
        "snapshot_age_seconds": 60.0,
    }
    return Standing(**fields | known)
