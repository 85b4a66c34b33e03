"""`MemoryStore`: how facts are accepted, learned and read, each method one transaction.

Modules by subject have everything else, as functions of the store or of its connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from memory_store import acceptance, events, facts, ledger, probes, schedule, schema
from memory_store.connection import Connection
from memory_store.errors import FactNotFoundError, MemoryStoreError
from memory_store.vocabulary import (
    Accepted,
    Attempt,
    Event,
    EventKind,
    Fact,
    FactState,
    Learning,
    NewFact,
    NewProbe,
    Policy,
    Probe,
    Update,
)

# Why an attempt failed that the process did not survive.
CRASHED = "the server ended while it was being learned"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """Facts, ledger, probes and events in one SQLite database. Synchronous, for one thread.

    Every writing method is atomic and durable when it returns; inside `transaction` it is a
    savepoint, durable when the outermost one ends. Every method may raise `StoreUnusableError`
    (nothing was stored), or its subclass `StoreFailedError` (close the store and exit).

    Attributes:
        connection: for the other modules of this package.
        now: the clock.
    """

    def __init__(self, connection: Connection, now: Callable[[], datetime] = _utc_now) -> None:
        """Uses an open connection whose schema is up to date; see `open`."""
        self.connection = connection
        self.now = now

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        read_only: bool = False,
        must_exist: bool = False,
        now: Callable[[], datetime] = _utc_now,
    ) -> Self:
        """Opens a database file; makes it, or brings its schema up to date, unless `read_only`.

        Args:
            path: of the file; its folder must exist, and not be on a network file system.
            read_only: refuse every write.
            must_exist: do not make a missing file.
            now: the clock; must give aware times.

        Raises:
            StoreUnusableError: the file is missing (`read_only`, `must_exist`), damaged, locked, of
                a newer release or of another program; or SQLite is too old to be safe.
        """
        connection = Connection(path, read_only=read_only, must_exist=must_exist)
        try:
            schema.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return cls(connection, now)

    def close(self) -> None:
        """Closes the file; does nothing the second time."""
        self.connection.close()

    def __enter__(self) -> Self:
        """Returns the store itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the store."""
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing for the methods called inside.

        The outermost is a transaction; one inside another is a savepoint, so that it can fail
        alone. In a read-only store it gives all queries inside the same view of the memory.
        """
        with self.connection.transaction():
            yield

    # -- The model ---------------------------------------------------------------------------

    def model_version(self) -> int:
        """The version that is served: the head of the ledger; 0 is the base model."""
        return ledger.head_version(self.connection)

    # -- Teaching ----------------------------------------------------------------------------

    def teach(self, new: NewFact, max_queued: int | None = None) -> Accepted:
        """Accepts a fact, or finds that the memory holds it.

        A request id seen before gives its first answer. Otherwise the newest live fact (queued,
        learning, learned or known) of the same question is the same fact if its answer is the
        same; it then keeps its own id, policy and correlated questions.

        Raises:
            FactExistsError: the request id was used with other content (`RequestIdUsedError`), or
                the chosen fact id belongs to another fact.
            QueueFullError: it is new, and `max_queued` facts are queued.
        """
        [answer] = self.teach_many([new], max_queued)
        if isinstance(answer, MemoryStoreError):
            raise answer
        return answer

    def teach_many(
        self, new_facts: Sequence[NewFact], max_queued: int | None = None
    ) -> list[Accepted | MemoryStoreError]:
        """Teaches one after the other, for little more than the price of one.

        Returns:
            For each, in order, what `teach` would return or raise.
        """
        with self.transaction():
            return acceptance.accept(self.connection, new_facts, self.now(), max_queued)

    # -- Learning ----------------------------------------------------------------------------

    def claim(self) -> Fact | None:
        """Takes the oldest queued fact to `learning`; None if none is queued."""
        with self.transaction():
            at = self.now()
            fact = facts.claim_oldest(self.connection, at)
            if fact is not None:
                self.emit(EventKind.LEARNING, at, fact_id=fact.id)
            return fact

    def record(self, attempt: Attempt) -> Update | None:
        """Ends an attempt at learning a claimed fact; an update is in the ledger from here on.

        Takes the fact from `learning` to `learned`, `known` or `resisted`. The first two retire
        older answers to its question. The event carries the name of the state.

        Returns:
            The row of the ledger, if the fact was learned. It is applied exactly once.

        Raises:
            FactNotFoundError: no fact has the attempt's (or a probe's) fact id.
            LedgerConflictError: the update was not made on the newest model version.
            WrongStateError: the fact is not being learned.
        """
        with self.transaction():
            at, fact_id, state = self.now(), attempt.fact_id, FactState(attempt.verdict)
            row, learning = None, attempt.learning
            if attempt.update is not None and learning is not None:
                self.fact(fact_id)
                row = ledger.append_at_head(self.connection, attempt.update, at)
                learning = replace(learning, model_version=row.model_version)
            fact = facts.change_state(
                *(self.connection, fact_id, state, at),
                reason=attempt.reason,
                learning=learning,
                tried_policy=attempt.policy,
            )
            if state is not FactState.RESISTED:
                schedule.begin(self.connection, fact.position, at, self.model_version())
                for older_id in facts.supersede_older(self.connection, fact, at):
                    self.emit(EventKind.SUPERSEDED, at, fact_id=older_id, message=f"by {fact_id}")
            probes.insert(self.connection, attempt.probes, self.model_version(), fact_id, at)
            message = attempt.reason
            self.emit(EventKind(state), at, fact_id=fact_id, message=message, learning=learning)
            return row

    def record_failure(
        self, fact_id: str, reason: str, max_attempts: int, policy: Policy | None = None
    ) -> Fact:
        """Counts a failed attempt: back to `queued`, or `quarantined` after `max_attempts`.

        Raises:
            FactNotFoundError: no fact has this id.
            WrongStateError: the fact is not being learned.
        """
        with self.transaction():
            at = self.now()
            attempts = self.fact(fact_id).failed_attempts + 1
            quarantined = attempts >= max_attempts
            fact = facts.change_state(
                self.connection,
                fact_id,
                FactState.QUARANTINED if quarantined else FactState.QUEUED,
                at,
                reason=reason if quarantined else "",
                failed_attempts=attempts,
                tried_policy=policy,
            )
            kind = EventKind.QUARANTINED if quarantined else EventKind.RETRIED
            self.emit(kind, at, fact_id=fact_id, message=reason)
            return fact

    def release(self, fact_id: str, reason: str = "") -> Fact:
        """Gives a claim back: `learning` to `queued`, without counting an attempt.

        Args:
            fact_id: of the fact.
            reason: for an event; empty for none.

        Raises:
            FactNotFoundError: no fact has this id.
            WrongStateError: the fact is not being learned.
        """
        with self.transaction():
            at = self.now()
            fact = facts.change_state(self.connection, fact_id, FactState.QUEUED, at)
            if reason:
                self.emit(EventKind.RETRIED, at, fact_id=fact_id, message=reason)
            return fact

    def release_claims(self, max_attempts: int) -> int:
        """Ends the claims that a crash left; returns how many there were.

        The fact may have caused the crash, so each counts as a failed attempt: see
        `record_failure`.
        """
        with self.transaction():
            claimed = facts.in_state(self.connection, FactState.LEARNING)
            for fact_id in claimed:
                self.record_failure(fact_id, CRASHED, max_attempts)
            return len(claimed)

    # -- Probes and events -------------------------------------------------------------------

    def record_probes(
        self, probes_: Sequence[NewProbe], model_version: int, cause_fact_id: str = ""
    ) -> list[Probe]:
        """Stores probes of the weights at `model_version` that no update led to.

        Probes of facts that were forgotten meanwhile are dropped: they would bring the text back.

        Raises:
            FactNotFoundError: a probe is about a fact that is not stored.
        """
        with self.transaction():
            kept = [
                probe
                for probe in probes_
                if self.fact(probe.fact_id).state is not FactState.FORGOTTEN
            ]
            return probes.insert(self.connection, kept, model_version, cause_fact_id, self.now())

    def record_event(self, kind: EventKind, message: str, model_version: int) -> Event:
        """Stores an event that is about no fact, such as a learner that went down."""
        with self.transaction():
            return events.insert(
                self.connection, kind, self.now(), model_version=model_version, message=message
            )

    def emit(
        self,
        kind: EventKind,
        at: datetime,
        *,
        fact_id: str = "",
        message: str = "",
        learning: Learning | None = None,
    ) -> None:
        """Stores an event as part of the transaction that makes it happen."""
        events.insert(
            self.connection,
            kind,
            at,
            model_version=self.model_version(),
            fact_id=fact_id,
            message=message,
            learning=learning,
        )

    # -- Looking -----------------------------------------------------------------------------

    def fact(self, fact_id: str) -> Fact:
        """The fact with this id.

        Raises:
            FactNotFoundError: there is none.
        """
        return facts.get(self.connection, fact_id)

    def facts(
        self, *, after_position: int = 0, limit: int = 50, states: Sequence[FactState] = ()
    ) -> list[Fact]:
        """At most `limit` facts in the order of acceptance; in any of `states`, or all if empty."""
        return facts.listing(self.connection, after_position, limit, states)

    def update(self, model_version: int) -> Update:
        """The row of the ledger that led to this version.

        Raises:
            FactNotFoundError: there is none.
        """
        row = ledger.find(self.connection, model_version)
        if row is None:
            raise FactNotFoundError(
                f"The ledger has no version {model_version}; it has 1 to {self.model_version()}."
            )
        return row

    def events(
        self, *, after_sequence: int = 0, limit: int = 500, fact_ids: Sequence[str] = ()
    ) -> list[Event]:
        """At most `limit` events in order; of some facts, or all if `fact_ids` is empty."""
        return events.listing(self.connection, after_sequence, limit, fact_ids)

    def last_event_sequence(self) -> int:
        """Sequence number of the newest event; 0 if there is none."""
        return events.last_sequence(self.connection)
