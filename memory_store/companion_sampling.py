"""Samples the companions of a fact. The sample depends on ids only.

Facts have a place on a circle: a hash of their id. To choose k companions, a fact marks k points on
the circle, which are hashes too, and takes from each point the next fact that is not taken yet.
This is linear probing, whose result does not depend on the order of the points. So a fact that
leaves the circle changes only the samples that contained it, by one fact each. The order of
teaching and the clock change nothing. So a rebuilt memory rehearses the same facts.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence

from memory_store.connection import Connection, SqlValue
from memory_store.tables import SAMPLED

_CIRCLE_BITS, _ARC_BITS = 63, 10


def sample_key(fact_id: str) -> int:
    """The place of a fact on the circle, 0 to 2**63 - 1 (what an SQLite integer holds)."""
    return _hash("place", fact_id)


class HeldFacts:
    """The facts that were held at one moment of a history. Samples as `sample_ids` does.

    A branch without a forgotten fact is learned again step by step. Each fact on it gets the
    companions that it would have had: facts that were held at its time.
    """

    def __init__(self) -> None:
        # In the order of the index `facts_sampled`, as arcs of equal length: each insertion into
        # one list of all facts would move half of it.
        self._arcs: list[list[tuple[int, str]]] = [[] for _ in range(1 << _ARC_BITS)]
        self._question_keys: dict[str, str] = {}  # by fact id
        self._held: dict[str, tuple[int, str]] = {}  # place on the circle, by question key

    def add(self, fact_id: str, question_key: str, place: int | None = None) -> None:
        """Adds a fact that is held from now on; older answers to its question no longer are.

        Args:
            fact_id: of the fact.
            question_key: of its question.
            place: its `sample_key`, if it is known.
        """
        superseded = self._held.get(question_key)
        if superseded is not None:
            del self._question_keys[superseded[1]]
            self._arc(superseded[0]).remove(superseded)
        on_circle = (sample_key(fact_id) if place is None else place, fact_id)
        self._held[question_key] = on_circle
        self._question_keys[fact_id] = question_key
        bisect.insort(self._arc(on_circle[0]), on_circle)

    def holds(self, fact_id: str) -> bool:
        """Whether a fact is among them now."""
        return fact_id in self._question_keys

    def sample(self, fact_id: str, question_key: str, limit: int) -> list[str]:
        """See `sample_ids`."""
        chosen: set[str] = set()
        for number in range(limit):
            for other in self._from(_hash("point", fact_id, str(number))):
                if other not in chosen and self._question_keys[other] != question_key:
                    chosen.add(other)
                    break
            else:
                break
        return _in_order(fact_id, chosen)

    def _arc(self, point: int) -> list[tuple[int, str]]:
        return self._arcs[point >> (_CIRCLE_BITS - _ARC_BITS)]

    def _from(self, point: int) -> Iterator[str]:
        """Yields ids along the whole circle, from a point on."""
        number = point >> (_CIRCLE_BITS - _ARC_BITS)
        start = bisect.bisect_left(self._arcs[number], (point, ""))
        yield from (id_ for _, id_ in self._arcs[number][start:])
        for step in range(1, len(self._arcs)):
            yield from (id_ for _, id_ in self._arcs[(number + step) % len(self._arcs)])
        yield from (id_ for _, id_ in self._arcs[number][:start])


def sample_ids(connection: Connection, fact_id: str, question_key: str, limit: int) -> list[str]:
    """Ids of at most `limit` learned or known facts with another question; all if there are fewer.

    Costs `limit` searches of an index and at most limit**2 / 2 of its entries.

    Returns:
        Ids in an order that depends on them and on `fact_id` only.
    """
    chosen: set[str] = set()
    for number in range(limit):
        following = _next_free(
            connection, _hash("point", fact_id, str(number)), question_key, chosen
        )
        if following is None:
            break
        chosen.add(following)
    return _in_order(fact_id, chosen)


def _in_order(fact_id: str, chosen: set[str]) -> list[str]:
    return sorted(chosen, key=lambda other: (_hash("order", fact_id, other), other))


def _next_free(
    connection: Connection, point: int, question_key: str, chosen: set[str]
) -> str | None:
    ranges: Sequence[tuple[str, list[SqlValue]]] = (
        ("sample_key >= ?", [point]),
        ("sample_key < ?", [point]),
    )
    for condition, bounds in ranges:
        rows = connection.execute(
            # Without the hint, SQLite searches by state and sorts all that it finds.
            f"SELECT id FROM facts INDEXED BY facts_sampled WHERE {SAMPLED} AND {condition}"
            " AND question_key <> ?"
            " ORDER BY sample_key, id LIMIT ?",
            # At most len(chosen) of them are taken already, so one more is enough.
            [*bounds, question_key, len(chosen) + 1],
        )
        for row in rows:
            if row["id"] not in chosen:
                return str(row["id"])
    return None


def _hash(*parts: str) -> int:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
