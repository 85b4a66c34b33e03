"""The comparison of two finished runs: each common count, and whether the change is significant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from eval.metrics import Count, difference_interval

RESULTS = "results.json"


class Change(StrEnum):
    """How the second count compares with the first, at 95%."""

    UNCLEAR = "no clear difference"
    MORE = "more"
    LESS = "less"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A count of both runs.

    Attributes:
        name: in both runs.
        first: of the first run.
        second: of the second.
    """

    name: str
    first: Count
    second: Count

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the second share minus the first."""
        return difference_interval(self.first, self.second)

    @property
    def change(self) -> Change:
        """Whether the difference is beyond chance."""
        low, high = self.interval
        return Change.MORE if low > 0 else Change.LESS if high < 0 else Change.UNCLEAR

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "name": self.name,
            "first": self.first.as_json(),
            "second": self.second.as_json(),
            "difference_interval_95": list(self.interval),
            "second_is": self.change.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs.

    Attributes:
        suite: of both.
        settings: those that differ, by name: of the first and of the second run.
        counts: those of both, in the order of the first run.
        missing: names of counts that only one of them has.
    """

    suite: str
    settings: dict[str, tuple[Any, Any]]
    counts: tuple[Compared, ...]
    missing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Stable fields for programs."""
        return {
            "suite": self.suite,
            "settings": {name: list(values) for name, values in self.settings.items()},
            "counts": [count.as_json() for count in self.counts],
            "missing": list(self.missing),
        }


def compare_runs(first: Path, second: Path) -> Comparison:
    """Reads the results in two folders.

    Raises:
        ConfigError: a folder has no results, or they are of different suites.
    """
    one, other = _read(first), _read(second)
    if one["suite"] != other["suite"]:
        raise ConfigError(
            f"{first} is a run of the suite {one['suite']}, {second} one of {other['suite']}: only"
            " runs of one suite can be compared"
        )
    counts, others = dict(_counts(one)), dict(_counts(other))
    shared = [name for name in counts if name in others]
    if not shared:
        raise ConfigError(f"{first} and {second} have no count in common: nothing to compare")
    settings, other_settings = _settings(one), _settings(other)
    return Comparison(
        suite=str(one["suite"]),
        settings={
            name: (settings.get(name), other_settings.get(name))
            for name in {**settings, **other_settings}
            if settings.get(name) != other_settings.get(name)
        },
        counts=tuple(Compared(name=n, first=counts[n], second=others[n]) for n in shared),
        missing=tuple(sorted(set(counts) ^ set(others))),
    )


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder} has no {RESULTS}: it is no results folder, or its run is not finished"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(results, dict) or results.get("suite") not in ("paper", "continual"):
        raise ConfigError(f"{path} is of no suite that can be compared: use 'paper' or 'continual'")
    return results


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    provenance = {n: v for n, v in results["provenance"].items() if n not in _NOT_A_SETTING}
    return {**provenance, **results["settings"]}


_NOT_A_SETTING = ("date", "wall_seconds", "tokens_per_second")


def _counts(results: Mapping[str, Any]) -> Iterator[tuple[str, Count]]:
    if results["suite"] == "paper":
        for name, count in results["counts"].items():
            yield name, _count(count)
        return
    for teacher, found in results["teachers"].items():
        for name, count in found["counts"].items():
            yield f"{teacher}: {name}", _count(count)


def _count(fields: Mapping[str, Any]) -> Count:
    return Count(fields["count"], fields["total"])
