"""How values are stored in columns: times as ISO 8601 in UTC, records as compact JSON."""

from __future__ import annotations

import base64
import functools
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from memory_store.connection import Row
from memory_store.vocabulary import Guards, Learning, Policy, RatePoint, Refusal, Step

Record = TypeVar("Record")


def read_record(record: type[Record], row: Row, /, **read: Any) -> Record:
    """A record of a row whose columns have the names of its fields.

    Args:
        record: a dataclass.
        row: has a column for each field that is not in `read`.
        **read: the values of fields that are written in another form, or under another name.
    """
    return record(
        **{name: row[name] for name in _names(cast(Any, record)) if name not in read}, **read
    )


@functools.cache
def _names(record: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(record))


def write_time(time: datetime) -> str:
    """An aware time as text in UTC, always with microseconds, so that texts sort by time."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def read_time(text: str) -> datetime:
    """The inverse of `write_time`."""
    return datetime.fromisoformat(text)


# Made once: `json.dumps` with options makes one for each call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def write_json(value: object) -> str:
    """Compact JSON; equal values give equal texts. Floats keep every bit, including NaN."""
    return _ENCODER.encode(value)


def write_policy(policy: Policy | None) -> str | None:
    """A policy as JSON, or NULL."""
    return None if policy is None else write_json(asdict(policy))


def read_policy(text: str | None) -> Policy | None:
    """The inverse of `write_policy`."""
    if text is None:
        return None
    columns: dict[str, Any] = json.loads(text)
    guards, predictor = columns.get("guards"), columns.get("predictor")
    return Policy(
        **columns
        | {
            "guards": None if guards is None else Guards(**guards),
            "predictor": None if predictor is None else tuple(predictor),
        }
    )


def write_learning(learning: Learning | None) -> str | None:
    """The findings of an attempt as JSON, or NULL."""
    if learning is None:
        return None
    # Not with `asdict`, which copies every value: each attempt writes several records.
    columns = {name: getattr(learning, name) for name in _FOUND}
    columns = {name: value for name, value in columns.items() if value is not None}
    if learning.curve:
        columns["curve"] = _write_curve(learning.curve)
    return write_json(columns)


def read_learning(text: str | None) -> Learning | None:
    """The inverse of `write_learning`."""
    columns: dict[str, Any] | None = None if text is None else json.loads(text)
    if columns is None:  # or the JSON value null, which refers to another row
        return None
    rates = tuple(columns["learning_rates"])
    refusal = columns.get("refusal")
    return Learning(
        **columns
        | {
            "learning_rates": rates,
            "curve": _read_curve(columns.get("curve", "")),
            "refusal": None if refusal is None else Refusal(refusal),
        }
    )


def _write_curve(curve: tuple[RatePoint, ...]) -> str:
    """Rate, probability, rate, ... as doubles in base64: a third of their decimal text."""
    numbers = [number for point in curve for number in (point.learning_rate, point.probability)]
    return base64.b64encode(struct.pack(f"<{len(numbers)}d", *numbers)).decode("ascii")


def _read_curve(written: str) -> tuple[RatePoint, ...]:
    packed = base64.b64decode(written)
    return tuple(RatePoint(*pair) for pair in struct.iter_unpack("<2d", packed))


def write_steps(steps: tuple[Step, ...]) -> str:
    """The steps of an update as JSON: for each, the values of its fields in order.

    Rehearsed facts that are those of the step before are written as null.
    """
    written = []
    rehearsed: tuple[str, ...] | None = None
    for step in steps:
        values = [getattr(step, name) for name in _STEP]
        if step.rehearsed_fact_ids == rehearsed:
            values[_STEP.index("rehearsed_fact_ids")] = None
        rehearsed = step.rehearsed_fact_ids
        written.append(values)
    return write_json(written)


def read_steps(text: str) -> tuple[Step, ...]:
    """The inverse of `write_steps`."""
    steps: list[Step] = []
    for written in json.loads(text):
        # A row from before a field was added is shorter: the field has its default.
        values = dict(zip(_STEP, written, strict=False))
        ids = values["rehearsed_fact_ids"]
        rehearsed = steps[-1].rehearsed_fact_ids if ids is None else tuple(ids)
        steps.append(Step(**values | {"rehearsed_fact_ids": rehearsed}))
    return tuple(steps)


_STEP = _names(Step)
_FOUND = tuple(name for name in _names(Learning) if name != "curve")


def write_strings(strings: tuple[str, ...]) -> str:
    """Several texts as a JSON list."""
    return write_json(list(strings)) if strings else "[]"


def read_strings(text: str) -> tuple[str, ...]:
    """The inverse of `write_strings`."""
    return tuple(json.loads(text))


def read_environment(text: str) -> Mapping[str, str]:
    """The environment of an update, from JSON."""
    environment: dict[str, str] = json.loads(text)
    return environment
