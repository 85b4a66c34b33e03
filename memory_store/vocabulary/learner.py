"""The learner process, as the server sees it."""

from __future__ import annotations

from enum import StrEnum


class LearnerState(StrEnum):
    """What the learner is doing."""

    STARTING = "starting"
    """It is loading the model."""
    RECOVERING = "recovering"
    """It is replaying the ledger."""
    READY = "ready"
    """It serves the head: it answers questions, and learns facts."""
    DOWN = "down"
    """It died, and is about to be started again."""
