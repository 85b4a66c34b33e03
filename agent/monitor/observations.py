"""What the monitor observes: its state is made of nothing else, and a recording holds all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.client.types import Status
from memory_store.vocabulary import Event, Fact, Probe, RetentionPoint, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Something that was observed, and when."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Seen):
    """A server answers; the events after `after_sequence` follow."""

    address: str
    after_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Seen):
    """No server answers, or it has ended the stream of events."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSeen(Seen):
    """The status of the server."""

    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSeen(Seen):
    """An event of the server."""

    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsSeen(Seen):
    """Facts that are new or have changed.

    Attributes:
        facts: as they are now.
        whole: these are all facts to show; what was known of others may be wrong by now.
        sequence: all events up to this one had happened when the facts were read; later ones may
            have.
    """

    facts: tuple[Fact, ...]
    whole: bool = False
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSeen(Seen):
    """The held facts to show, and their new probes.

    Attributes:
        ages: updates since each was taught last, by fact id, in the order of acceptance.
        points: new probes by fact id, newest first.
        whole: these are all probes; earlier ones are of other weights.
    """

    ages: Mapping[str, int]
    points: Mapping[str, tuple[RetentionPoint, ...]]
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailSeen(Seen):
    """The history of the selected fact.

    Attributes:
        fact: as it is now.
        updates: its rows of the ledger.
        probes: its probes.
        sequence: as in `FactsSeen`.
    """

    fact: Fact
    updates: tuple[Update, ...]
    probes: tuple[Probe, ...]
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Seen):
    """The server refused what was asked for at the keyboard."""

    reason: str


Observation = (
    Connected | Lost | StatusSeen | EventSeen | FactsSeen | RetentionSeen | DetailSeen | Refused
)
