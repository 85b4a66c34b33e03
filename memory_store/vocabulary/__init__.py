"""What the memory holds, as frozen records: the vocabulary that every other package speaks."""

from memory_store.vocabulary.events import Event, EventKind
from memory_store.vocabulary.facts import HELD, Accepted, Fact, FactState, NewFact
from memory_store.vocabulary.operations import (
    GIVEN_UP,
    Compaction,
    Operation,
    OperationKind,
    OperationState,
    Place,
    PlaceKind,
)
from memory_store.vocabulary.policies import Guards, Policy
from memory_store.vocabulary.probes import NewProbe, Probe, ProbeKind
from memory_store.vocabulary.reviews import (
    FactRetention,
    NewReview,
    Retention,
    RetentionPoint,
    Review,
    ReviewOutcome,
)
from memory_store.vocabulary.updates import (
    Drift,
    Learning,
    LedgerKind,
    NewUpdate,
    RatePoint,
    Step,
    Update,
)

__all__ = [
    "GIVEN_UP",
    "HELD",
    "Accepted",
    "Compaction",
    "Drift",
    "Event",
    "EventKind",
    "Fact",
    "FactRetention",
    "FactState",
    "Guards",
    "Learning",
    "LedgerKind",
    "NewFact",
    "NewProbe",
    "NewReview",
    "NewUpdate",
    "Operation",
    "OperationKind",
    "OperationState",
    "Place",
    "PlaceKind",
    "Policy",
    "Probe",
    "ProbeKind",
    "RatePoint",
    "Retention",
    "RetentionPoint",
    "Review",
    "ReviewOutcome",
    "Step",
    "Update",
]
