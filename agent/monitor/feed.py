"""Observes a server with two threads, across its restarts.

One follows the events. The other polls every second what events do not report, and carries out
requests from the keyboard. Neither draws, and neither waits for the drawing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

from agent.client.client import Client
from agent.client.types import Status
from agent.errors import AgentError
from agent.monitor.observations import (
    Connected,
    DetailSeen,
    EventSeen,
    FactsSeen,
    Lost,
    Observation,
    Refused,
    RetentionSeen,
    StatusSeen,
)
from agent.monitor.state import EVENTS, FACTS, POINTS, unseen
from agent.monitor.ui import Pause, Request, ShowFact
from memory_store.vocabulary import Event, EventKind, RetentionPoint

Put = Callable[[Observation], None]

LOOK_SECONDS = 1.0
# The learner's memory changes all the time; it alone updates the header at this interval.
MEMORY_SECONDS = 10.0
# The shortest interval between two polls of retention (new weights), and the longest.
RETENTION_SECONDS, QUIET_RETENTION_SECONDS = 2.0, 20.0
# Pauses before a lost server is tried again: doubled each time, up to the last.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.25, 4.0
FACTS_AT_FIRST, FACTS_LATER, FACTS_ONE_BY_ONE = 200, 50, 5
HELD_FACTS = 120
# Events that change facts without naming them.
RESTATING = (EventKind.ROLLED_BACK, EventKind.FORGOTTEN, EventKind.DRIFT_ACCEPTED)
# What a closed connection may raise in the other thread.
ENDS = (AgentError, ValueError)


def gather(client: Client) -> Iterator[Observation]:
    """Yields all that is known now, for one frame.

    Raises:
        AgentError: the server cannot be reached, or refuses.
    """
    known = Known()
    status = client.status()
    after = known.first_sequence(status)
    yield Connected(at=_now(), address=client.address, after_sequence=after)
    yield StatusSeen(at=_now(), status=status)
    if after < status.event_sequence:
        for event in client.watch(after):
            known.note(event)
            yield EventSeen(at=_now(), event=event)
            if event.sequence >= status.event_sequence:
                break
    yield from known.facts(client)
    yield from known.retention(client)


class Known:
    """What was observed already, so that nothing is observed twice."""

    def __init__(self) -> None:
        self.sequence = 0
        self._happened = 0  # the newest event, by the last status
        self._facts: dict[str, None] = {}  # ids, the newest last
        # Ids that events were about; filled by one thread, emptied by the other.
        self._heard: deque[str] = deque(maxlen=FACTS)
        self._begin = True
        self._facts_stale = self._points_stale = False
        self._status: Status | None = None
        self._status_at = 0.0
        self._points: dict[str, tuple[RetentionPoint, ...]] = {}
        self._ages: dict[str, int] | None = None

    def first_sequence(self, status: Status) -> int:
        """Returns the last event to skip: the last known one, if it is of this memory."""
        if not 0 < self.sequence <= status.event_sequence:
            self.__init__()  # type: ignore[misc] # another memory
            self.sequence = max(0, status.event_sequence - EVENTS)
        self._happened = status.event_sequence
        # Requests were lost with the connection, and facts may have changed that no event names.
        self._begin = self._points_stale = True
        return self.sequence

    def note(self, event: Event) -> None:
        """Takes note of an event."""
        self.sequence = max(self.sequence, event.sequence)
        if event.fact_id and event.fact_id not in self._facts:
            self._heard.append(event.fact_id)
        if event.kind in RESTATING:
            self._facts_stale = self._points_stale = True

    def status(self, client: Client) -> Iterator[StatusSeen]:
        """Yields the status, if more than the memory has changed."""
        status, now = client.status(), time.monotonic()
        self._happened = status.event_sequence
        memory = self._status.memory_bytes if self._status else 0
        if (
            replace(status, memory_bytes=memory) != self._status
            or now - self._status_at > MEMORY_SECONDS
        ):
            self._status, self._status_at = status, now
            yield StatusSeen(at=_now(), status=status)

    def facts(self, client: Client) -> Iterator[Observation]:
        """Yields the newest facts at first, and when known ones may have changed unnamed.

        Otherwise, unknown facts that events were about.
        """
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        whole = self._begin or self._facts_stale
        if not whole and not heard:
            return
        # Before the call, so that what happens meanwhile is not missed.
        self._begin = self._facts_stale = False
        happened = self.happened
        size = max(FACTS_AT_FIRST, len(self._facts)) if whole else FACTS_LATER
        if whole:
            self._facts = {}
        newest = islice(client.facts((), min(size, FACTS_AT_FIRST), newest_first=True), size)
        found = {fact.id: fact for fact in newest if fact.id not in self._facts}
        missing = [i for i in dict.fromkeys(heard) if i not in found and i not in self._facts]
        for fact_id in missing[-FACTS_ONE_BY_ONE:]:
            with suppress(AgentError):
                found[fact_id] = client.fact(fact_id)
        self._facts = dict.fromkeys([*self._facts, *reversed(found)][-FACTS:])
        if found or whole:
            facts = tuple(found.values())
            yield FactsSeen(at=_now(), facts=facts, whole=whole, sequence=happened)

    def retention(self, client: Client) -> Iterator[Observation]:
        """Yields new probes; all of them after an event that may have undone some."""
        whole, self._points_stale = self._points_stale, False
        if whole:
            self._points = {}
        held, _ = client.retention(HELD_FACTS, POINTS)
        new: dict[str, tuple[RetentionPoint, ...]] = {}
        for fact in held:
            known = self._points.get(fact.fact_id, ())
            points = unseen(fact.points, known)
            if points:
                new[fact.fact_id], self._points[fact.fact_id] = points, fact.points
        ages = {fact.fact_id: fact.age for fact in held}
        self._points = {id_: points for id_, points in self._points.items() if id_ in ages}
        if new or whole or ages != self._ages:
            self._ages = ages
            yield RetentionSeen(at=_now(), ages=ages, points=new, whole=whole)

    @property
    def happened(self) -> int:
        """Sequence of the newest event known: whatever is read reflects it."""
        return max(self.sequence, self._happened)

    @property
    def has_stale_points(self) -> bool:
        """Whether observed probes may be of weights that are no longer served."""
        return self._points_stale


class Feed:
    """Follows a server until it is stopped, through restarts.

    Args:
        connect: opens a connection.
        address: of the server, for people.
        put: receives observations; called from other threads.
    """

    def __init__(self, connect: Callable[[], Client], address: str, put: Put) -> None:
        self._connect, self._address, self._put = connect, address, put
        self._known = Known()
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._client: Client | None = None
        self._shown = ""  # the fact whose history was requested last
        self._thread = threading.Thread(target=self._live, name="monitor-events", daemon=True)

    def start(self) -> None:
        """Starts to observe."""
        self._thread.start()

    def stop(self) -> None:
        """Stops; waits a moment for what is running."""
        self._stopped.set()
        if (client := self._client) is not None:
            client.close()
        self._thread.join(2.0)

    def request(self, request: Request) -> None:
        """Requests something of the server; its effect is observed."""
        self._requests.put(request)

    def _live(self) -> None:
        pause, reported = FIRST_RETRY_SECONDS, ""
        while not self._stopped.is_set():
            sequence = self._known.sequence
            reason = "the server stopped"
            try:
                with self._connect() as client:
                    self._client = client
                    self._follow(client)
            except ENDS as error:
                reason = str(error)
            except KeyError as error:
                reason = f"it sends what this release does not know ({error}): update this one"
            finally:
                self._client = None
            if self._stopped.is_set():
                return
            if self._known.sequence != sequence:
                pause, reported = FIRST_RETRY_SECONDS, ""
            if reason != reported:
                self._put(Lost(at=_now(), reason=reason))
                reported = reason
            self._stopped.wait(pause)
            pause = min(2 * pause, LAST_RETRY_SECONDS)

    def _follow(self, client: Client) -> None:
        """Follows events until their stream ends.

        Raises:
            AgentError: the server is gone, or refuses.
        """
        status = client.status()
        after = self._known.first_sequence(status)
        self._put(Connected(at=_now(), address=self._address, after_sequence=after))
        ended = threading.Event()
        looking = threading.Thread(
            target=self._look_on, args=(client, ended), name="monitor-looks", daemon=True
        )
        looking.start()
        try:
            for event in client.watch(after):
                self._known.note(event)
                self._put(EventSeen(at=_now(), event=event))
                if self._shown and (
                    event.kind in RESTATING or (event.sequence and event.fact_id == self._shown)
                ):
                    self.request(ShowFact(self._shown))  # its history has changed
        finally:
            ended.set()
            self._requests.put(None)  # wakes it
            client.close()
            looking.join()

    def _look_on(self, client: Client, ended: threading.Event) -> None:
        """Polls every second, and carries out requests as they come."""
        known, seen_version, retention_at = self._known, -1, -QUIET_RETENTION_SECONDS
        next_look = time.monotonic()
        try:
            while not ended.is_set():
                with suppress(queue.Empty):
                    request = self._requests.get(timeout=max(next_look - time.monotonic(), 0.0))
                    if request is not None:
                        self._carry_out(client, request)
                    continue
                next_look = time.monotonic() + LOOK_SECONDS
                version = seen_version
                for seen in known.status(client):
                    self._put(seen)
                    version = seen.status.model_version
                self._put_all(known.facts(client))
                waited = time.monotonic() - retention_at
                wanted = RETENTION_SECONDS if version != seen_version else QUIET_RETENTION_SECONDS
                if waited >= wanted or known.has_stale_points:
                    retention_at, seen_version = time.monotonic(), version
                    self._put_all(known.retention(client))
        except (*ENDS, KeyError):
            client.close()  # ends the stream of events too; `_live` connects again

    def _put_all(self, observations: Iterable[Observation]) -> None:
        for seen in observations:
            self._put(seen)

    def _carry_out(self, client: Client, request: Request) -> None:
        try:
            if isinstance(request, Pause):
                client.pause_learning(paused=request.paused)
                self._put_all(self._known.status(client))
            else:
                self._shown, happened = request.fact_id, self._known.happened
                fact, updates, probes = client.history(request.fact_id)
                self._put(
                    DetailSeen(
                        at=_now(),
                        fact=fact,
                        updates=tuple(updates),
                        probes=tuple(probes),
                        sequence=happened,
                    )
                )
        except AgentError as error:
            self._put(Refused(at=_now(), reason=str(error)))


def _now() -> datetime:
    return datetime.now(UTC)
