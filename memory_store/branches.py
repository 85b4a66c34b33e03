"""What a branch without a forgotten fact grows from, and what is to be repeated on it.

Everything is read in parts that take a few milliseconds, whatever the size of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memory_store import reviews
from memory_store.companion_sampling import HeldFacts
from memory_store.lines import Line, line_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import HELD, Fact, FactState, Operation, Review

ROWS_AT_ONCE = 1_000
CANDIDATES_AT_ONCE = 1_000
# States of facts that the learner was given, and that were not taken back.
REPEATED = (*HELD, FactState.SUPERSEDED, FactState.RESISTED, FactState.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a branch begins.

    Attributes:
        base: the version that it grows from.
        first_position: facts from this position on are repeated, but for the forgotten one.
        first_review: so are reviews from this id on, if one of them comes before that position;
            otherwise 0. Reviews after that position always are.
    """

    base: int
    first_position: int
    first_review: int = 0


@dataclass(slots=True)
class Search:
    """Looks for the beginning of a branch, along the served line, from its first version on.

    The base is the last version before the forgotten fact was processed: before whatever was taught
    from then on, facts from before that were taught again included. It can be asked to be earlier;
    what follows it is then repeated too.

    Args:
        position: of the forgotten fact.
        latest: the base is not later than this version; None: as late as possible.
    """

    position: int
    latest: int | None = None
    base: int = 0

    def look(self, store: MemoryStore, first: int, last: int) -> Beginning | None:
        """Looks at a part of the line; the beginning, once it is found."""
        rows = store.connection.execute(
            "SELECT row.model_version AS version, row.kind IN ('teach', 'relearn') AS taught,"
            " coalesce(first.id, again.id) AS review_id,"
            " coalesce(first.after_position, again.after_position, facts.position) AS place"
            " FROM updates AS row LEFT JOIN facts ON facts.id = row.fact_id"
            " LEFT JOIN reviews AS first ON first.retaught_version = row.model_version"
            "  AND first.outcome = 'retaught'"
            " LEFT JOIN reviewed_again ON reviewed_again.model_version = row.model_version"
            "  AND reviewed_again.outcome = 'retaught'"
            " LEFT JOIN reviews AS again ON again.id = reviewed_again.review_id"
            " WHERE row.model_version BETWEEN ? AND ? ORDER BY version",
            [first, last],
        )
        for row in rows:
            too_late = self.latest is not None and row["version"] > self.latest
            if row["taught"] and row["place"] >= self.position:
                return self.end()
            if row["taught"] and too_late:
                review = row["review_id"] or 0
                return Beginning(self.base, row["place"] + bool(review), review)
            if not too_late:
                self.base = row["version"]
        return None

    def end(self) -> Beginning:
        """Where it begins if nothing that was looked at is to be repeated."""
        return Beginning(self.base, self.position)


def find_beginning(
    store: MemoryStore, operation: Operation, latest: int | None = None
) -> Beginning:
    """Where the branch of an operation is to begin; see `Search`."""
    if not operation.fact_id:
        return Beginning(operation.to_version, 0)
    search = Search(operation.position, latest)
    for first, last in line_of(store.connection, store.model_version()).parts(ROWS_AT_ONCE):
        if (found := search.look(store, first, last)) is not None:
            return found
    return search.end()


def facts_to_repeat(store: MemoryStore, operation: Operation, limit: int) -> list[Fact]:
    """At most `limit` facts that are not on the branch yet, in order.

    Also what was not learned: without the forgotten fact it may be.
    """
    found: list[Fact] = []
    after = operation.position
    while len(found) < limit:
        page = store.facts(after_position=after, limit=limit + 1, states=REPEATED)
        # What was erased is taken out of the weights by an operation of its own.
        found += [fact for fact in page if fact.id != operation.fact_id and not fact.erased]
        if len(page) <= limit:
            break
        after = page[-1].position
    return found[:limit]


def count_to_repeat(store: MemoryStore, operation: Operation) -> int:
    """How many facts are not on the branch yet."""
    marks = ", ".join("?" * len(REPEATED))
    count = store.connection.number(
        f"SELECT count(*) FROM facts WHERE state IN ({marks}) AND position > ? AND question <> ''",
        [*REPEATED, operation.position],
    )
    forgotten = store.fact(operation.fact_id)
    itself = (
        forgotten.position > operation.position
        and forgotten.state in REPEATED
        and not forgotten.erased
    )
    return count - itself


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is to be repeated next on a branch.

    Attributes:
        next: facts and reviews, in their order in the history.
        last_review: id of the last review that was looked at.
        complete: there is nothing else now.
    """

    next: list[Fact | Review]
    last_review: int
    complete: bool


def next_inputs(
    store: MemoryStore, operation: Operation, line: Line, after_review: int, limit: int
) -> Inputs:
    """What is not on the branch yet. Reviews of facts that were forgotten before are left out.

    Args:
        store: the memory.
        operation: that has begun.
        line: that is served. Reviews that were made on other lines are no part of the history.
        after_review: id of the last review that was looked at; 0 for the first time.
        limit: how many facts, and how many reviews, are looked at at most.
    """
    found = facts_to_repeat(store, operation, limit)
    after = max(after_review, reviews.last_done_again(store, operation.id))
    looked_at = _reviews_after(store, operation, after, limit)
    # Where a list ends with its limit, what follows of the other one is not in order yet.
    ends = [(found[-1].position, 0)] if len(found) == limit else []
    ends += [looked_at[-1]] if len(looked_at) == limit else []
    if ends:
        found = [fact for fact in found if (fact.position, 0) <= min(ends)]
        looked_at = [place for place in looked_at if place <= min(ends)]
    repeated = [
        review
        for review in reviews.of_line(store, [id_ for _, id_ in looked_at], line)
        if review.fact_id != operation.fact_id
        and (fact := store.fact(review.fact_id)).state is not FactState.FORGOTTEN
        and not fact.erased
    ]
    return Inputs(
        next=sorted([*found, *repeated], key=_place),
        last_review=looked_at[-1][1] if looked_at else after,
        complete=not ends,
    )


def _place(repeated: Fact | Review) -> tuple[int, int]:
    """Its order in the history: a review comes after the fact at its place."""
    if isinstance(repeated, Fact):
        return repeated.position, 0
    return repeated.after_position, repeated.id


def _reviews_after(
    store: MemoryStore, operation: Operation, after: int, limit: int
) -> list[tuple[int, int]]:
    """Place and id of the reviews that may have to be repeated, in order."""
    first = operation.first_review
    rows = store.connection.execute(
        "SELECT after_position, id FROM reviews WHERE id > ?"
        " AND (after_position >= ? OR ? > 0 AND id >= ?) ORDER BY id LIMIT ?",
        [after, operation.first_position, first, first, limit],
    )
    return [(row["after_position"], row["id"]) for row in rows]


def held_part(store: MemoryStore, after: int, before: int) -> list[tuple[int, str, str, int]]:
    """Facts that were held when everything before a position had been processed, in order.

    Returns:
        Position, id, question key and sample key of the first of them after a position.
    """
    states = (*HELD, FactState.SUPERSEDED)
    rows = store.connection.execute(
        # In the order of the table: searched by state, all of them would be sorted for each part.
        "SELECT position, id, question_key, sample_key FROM facts NOT INDEXED"
        f" WHERE position > ? AND position < ? AND state IN ({', '.join('?' * len(states))})"
        " AND question <> ''"
        " ORDER BY position LIMIT ?",
        [after, before, *states, CANDIDATES_AT_ONCE],
    )
    return [(row["position"], row["id"], row["question_key"], row["sample_key"]) for row in rows]


def relearned_part(
    store: MemoryStore, operation_id: int, after: int
) -> list[tuple[int, str, str, int]]:
    """As `held_part`, of the facts that the branch of an operation holds already."""
    rows = store.connection.execute(
        "SELECT position, id, question_key, sample_key FROM relearned JOIN facts USING (position)"
        " WHERE operation_id = ? AND position > ? AND verdict IN ('learned', 'known')"
        " ORDER BY position LIMIT ?",
        [operation_id, after, CANDIDATES_AT_ONCE],
    )
    return [(row["position"], row["id"], row["question_key"], row["sample_key"]) for row in rows]


def add_held(held_facts: HeldFacts, part: Sequence[tuple[int, str, str, int]]) -> None:
    """Adds them in their order."""
    for _, fact_id, question_key, sample_key in part:
        held_facts.add(fact_id, question_key, sample_key)


def nothing_is_missing(store: MemoryStore, operation: Operation, last_review: int) -> bool:
    """Whether everything that the head has processed is on the branch.

    Args:
        store: the memory.
        operation: as it is now.
        last_review: id of the last review that was looked at.
    """
    return not (
        store.facts(limit=1, states=[FactState.LEARNING])
        or facts_to_repeat(store, operation, 1)
        or _reviews_after(store, operation, last_review, 1)
    )
