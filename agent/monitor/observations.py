"""What the monitor is told: all that its state is made of, and all that a recording holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.client.types import Status
from memory_store.vocabulary import Event, Fact, Probe, RetentionPoint, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A server answers.

    Attributes:
        at: when.
        address: of the server.
        after_sequence: the events from there on follow.
    """

    at: datetime
    address: str
    after_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """No server answers, or it has ended the stream of events."""

    at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSeen:
    """How things stand."""

    at: datetime
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSeen:
    """Something happened."""

    at: datetime
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsSeen:
    """Facts that are new or have changed.

    Attributes:
        at: when.
        facts: as they are now.
        whole: these are all that are shown; what was known of others may be wrong by now.
        sequence: all events up to this one had happened when the facts were read; others may have.
    """

    at: datetime
    facts: tuple[Fact, ...]
    whole: bool = False
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSeen:
    """The held facts that are shown, and probes of them that are new.

    Attributes:
        at: when.
        ages: updates since each was taught last, by fact id, in the order accepted.
        points: new probes by fact id, newest first.
        whole: these are all probes; what was known before is of other weights.
    """

    at: datetime
    ages: Mapping[str, int]
    points: Mapping[str, tuple[RetentionPoint, ...]]
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailSeen:
    """The history of a fact that was picked.

    Attributes:
        at: when.
        fact: as it is now.
        updates: its rows of the ledger.
        probes: its probes.
        sequence: as in `FactsSeen`.
    """

    at: datetime
    fact: Fact
    updates: tuple[Update, ...]
    probes: tuple[Probe, ...]
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The service did not do what was asked for at the keyboard."""

    at: datetime
    reason: str


Observation = (
    Connected | Lost | StatusSeen | EventSeen | FactsSeen | RetentionSeen | DetailSeen | Refused
)
