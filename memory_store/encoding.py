"""How values are written in columns: times as ISO 8601 in UTC, records as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from memory_store.records import Guards, Learning, Policy, RatePoint, Step


def write_time(time: datetime) -> str:
    """An aware time as text in UTC, microseconds always written, so that text order is time's."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def read_time(text: str) -> datetime:
    """The inverse of `write_time`."""
    return datetime.fromisoformat(text)


# Made once: `json.dumps` with options makes one for each value.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def write_json(value: object) -> str:
    """Compact JSON; equal values give equal text. Floats keep every bit, NaN included."""
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
    """What an attempt found as JSON, or NULL."""
    return None if learning is None else write_json(asdict(learning))


def read_learning(text: str | None) -> Learning | None:
    """The inverse of `write_learning`."""
    if text is None:
        return None
    columns: dict[str, Any] = json.loads(text)
    curve = tuple(RatePoint(**point) for point in columns.get("curve", ()))
    rates = tuple(columns["learning_rates"])
    return Learning(**columns | {"learning_rates": rates, "curve": curve})


def write_steps(steps: tuple[Step, ...]) -> str:
    """The steps of an update as JSON."""
    return write_json([asdict(step) for step in steps])


def read_steps(text: str) -> tuple[Step, ...]:
    """The inverse of `write_steps`."""
    return tuple(
        Step(**step | {"rehearsed_fact_ids": tuple(step["rehearsed_fact_ids"])})
        for step in json.loads(text)
    )


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
