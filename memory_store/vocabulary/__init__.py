"""The vocabulary of the project: frozen dataclasses and enums that every package speaks. No SQL.

Glossary. One word has one meaning, here and in the documentation.

The memory
    fact        A question and its answer, as taught, with correlated questions that only probe.
    position    The place of a fact in the order of acceptance, from 1. Never a place in the ledger.
    held        Of a fact: the served weights answer it (`learned` or `known`, see `HELD`).
    companions  The older held facts that are read for a fact's lesson. Which ones depends on ids
                alone, so a repeated history draws the same ones.
    compared    The companions whose probability is measured before and after the update.
    rehearsed   The compared companions that the update also trains on.

Learning
    policy      How the learning rates of a fact are chosen.
    guards      What else an update must leave as it was, and how much of it is looked at.
    gate        The check that a finished attempt must pass before it is served. See `Refusal`.
    lesson      The rows of text of an update: the fact, its companions, neighbors, general text.
    attempt     One try to learn a fact, from its first step to its verdict.
    verdict     How an attempt ended. See `Verdict`.
    candidates  The learning rates that are scored to choose the rate of a step. (The field
                `Guards.candidates` counts compared facts; its released name stays.)
    leak        The new answer is given to a question that was never taught.
    general     Text that no fact is about. Its divergence from the base model is limited.
    sampling    Drawing text from the model at random. Choosing older facts is not called that.
    learner     The owner of a model and its weights. It keeps nothing durable.

The ledger
    update      A row of the ledger: all that is needed to repeat one change of the weights.
    version     Position of a row in the ledger, from 1; also names the weights after it (0 is the
                base checkpoint). `model_version` on the wire.
    lineage     The rows from the base checkpoint to a version, each made on the one before.
    head        The version that is served.
    replay      Taking the recorded steps again to reach a version.
    drift       A replay that gives weights other than those recorded. See `ReplayDrift`. (The field
                `Learning.drift` is the divergence of general text; its released name stays.)

Undo
    operation   A request to forget a fact or to roll back. Both are kinds of undo.
    phase       Where an operation stands: requested, building, switched, done, or given up. See
                `Phase`, and `Transition` for the ways between.
    erase       Forget, and also remove the text of the fact everywhere.
    branch      A new line of the ledger, built beside the head, that takes its place when complete.
    relearn     Learn a fact again on a branch.
    restate     Write the state that a fact has on the new line, after the head has moved.
    clean up    Remove what a forgotten fact left in files, after the head has moved.

Reviews
    review      A held fact is asked again, and taught again if the weights have lost it.
    retention   How many held facts are still answered, by age.
    age         Updates since the fact was taught last.
"""

from memory_store.vocabulary.events import Event, EventKind
from memory_store.vocabulary.facts import HELD, Accepted, Fact, FactState, NewFact
from memory_store.vocabulary.learner import LearnerState
from memory_store.vocabulary.operations import (
    GIVEN_UP,
    Compaction,
    Operation,
    OperationKind,
    OperationState,
    Phase,
    Place,
    PlaceKind,
    Transition,
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
    Attempt,
    Learning,
    LedgerKind,
    NewUpdate,
    RatePoint,
    Refusal,
    ReplayDrift,
    Step,
    Update,
    Verdict,
)

__all__ = [
    "GIVEN_UP",
    "HELD",
    "Accepted",
    "Attempt",
    "Compaction",
    "Event",
    "EventKind",
    "Fact",
    "FactRetention",
    "FactState",
    "Guards",
    "LearnerState",
    "Learning",
    "LedgerKind",
    "NewFact",
    "NewProbe",
    "NewReview",
    "NewUpdate",
    "Operation",
    "OperationKind",
    "OperationState",
    "Phase",
    "Place",
    "PlaceKind",
    "Policy",
    "Probe",
    "ProbeKind",
    "RatePoint",
    "Refusal",
    "ReplayDrift",
    "Retention",
    "RetentionPoint",
    "Review",
    "ReviewOutcome",
    "Step",
    "Transition",
    "Update",
    "Verdict",
]
