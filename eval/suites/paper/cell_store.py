"""The cells of a run in an SQLite file: each is stored when it is done, so nothing is done twice.

A cell corresponds to a probe of the service. Its columns have the names of the table `probes` in a
data folder, and a view `probes` has all columns of that table, so that the same query reads both.
Columns that a cell lacks are NULL: nothing is generated greedily, and instead of a version of the
ledger it has the training that came before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, DiskFullError
from eval.suites.paper.measurements import Measurement
from eval.suites.paper.trials import CellKey, Trial
from memory_store.connection import Connection, Row
from memory_store.errors import MemoryStoreError
from memory_store.vocabulary import ProbeKind

CELLS = "cells.sqlite"
LOG_PAGES = 1_000

_KEY = CellKey._fields
_TABLES = (
    """CREATE TABLE IF NOT EXISTS cells (
  id INTEGER PRIMARY KEY,
  experiment INTEGER NOT NULL,
  fact_set TEXT NOT NULL,
  trained TEXT NOT NULL,
  learning_rate REAL NOT NULL,
  step INTEGER NOT NULL,
  kind TEXT NOT NULL,
  fact_id TEXT NOT NULL,
  round INTEGER NOT NULL,
  question TEXT NOT NULL,
  expected_answer TEXT NOT NULL,
  samples INTEGER NOT NULL CHECK (samples > 0),
  correct_samples INTEGER NOT NULL CHECK (correct_samples BETWEEN 0 AND samples),
  log_probability REAL,
  estimate REAL,
  estimate_error REAL,
  temperature REAL NOT NULL,
  top_p REAL NOT NULL,
  top_k INTEGER NOT NULL,
  max_new_tokens INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  extra_tokens INTEGER NOT NULL,
  examples TEXT NOT NULL,
  UNIQUE (experiment, fact_set, trained, learning_rate, step, kind, fact_id, round)
) STRICT""",
    """CREATE VIEW IF NOT EXISTS probes AS SELECT
  id, kind, fact_id, question, expected_answer, NULL AS answer, NULL AS correct, log_probability,
  NULL AS model_version, trained AS cause_fact_id, NULL AS probed_at, samples, correct_samples
FROM cells""",
    """CREATE TABLE IF NOT EXISTS losses (
  experiment INTEGER NOT NULL,
  fact_set TEXT NOT NULL,
  trained TEXT NOT NULL,
  learning_rate REAL NOT NULL,
  step INTEGER NOT NULL,
  loss REAL,
  PRIMARY KEY (experiment, fact_set, trained, learning_rate, step)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS notes (
  note TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS times (
  started_at TEXT PRIMARY KEY,
  seconds REAL NOT NULL
) STRICT, WITHOUT ROWID""",
)
# Columns of a cell that are not in its key, by the names of the fields.
_RENAMED = {"answer": "expected_answer", "correct": "correct_samples"}
_COLUMNS = {
    field.name: _RENAMED.get(field.name, field.name)
    for field in fields(Measurement)
    if field.name != "key"
}


class CellStore:
    """The cells of one run. Use as a context manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        for statement in _TABLES:
            connection.execute(statement)

    def done(self) -> set[CellKey]:
        """Keys of all cells that are stored."""
        rows = self._connection.execute(f"SELECT {', '.join(_KEY)} FROM cells")
        return {_key(row) for row in rows}

    def cells(self, experiment: int, fact_set: str) -> list[Measurement]:
        """The cells of one experiment with one set of facts, in the order of their keys."""
        rows = self._connection.execute(
            f"SELECT * FROM cells WHERE experiment = ? AND fact_set = ? ORDER BY {', '.join(_KEY)}",
            [experiment, fact_set],
        )
        return [_cell(row) for row in rows]

    def add(self, cell: Measurement) -> None:
        """Stores a cell; it is on disk when this returns.

        Raises:
            DiskFullError: it cannot be written.
        """
        names = [*_KEY, *_COLUMNS.values()]
        values = [*cell.key, *(getattr(cell, name) for name in _COLUMNS)]
        values[names.index("kind")] = cell.key.kind.value
        values[names.index("examples")] = json.dumps(cell.examples, ensure_ascii=False)
        self._write(
            f"INSERT INTO cells ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", values
        )

    def add_loss(self, trial: Trial, step: int, loss: float | None) -> None:
        """Stores the loss before a step, counted from 1, in nats a token; None if not finite.

        A trial that is trained again stores the same loss again.
        """
        self._write(
            "INSERT OR REPLACE INTO losses VALUES (?, ?, ?, ?, ?, ?)",
            [
                *(trial.experiment, trial.fact_set, trial.trained, trial.learning_rate),
                *(step, loss),
            ],
        )

    def losses(self, experiment: int, fact_set: str) -> dict[tuple[str, float, int], float | None]:
        """Losses by what was trained, rate, and number of the following step."""
        rows = self._connection.execute(
            "SELECT * FROM losses WHERE experiment = ? AND fact_set = ?", [experiment, fact_set]
        )
        return {(row["trained"], row["learning_rate"], row["step"]): row["loss"] for row in rows}

    def note(self, note: str) -> None:
        """Stores a note for readers of the results, each text once."""
        self._write("INSERT OR IGNORE INTO notes VALUES (?)", [note])

    def notes(self) -> list[str]:
        """All notes."""
        return [row["note"] for row in self._connection.execute("SELECT note FROM notes")]

    def add_time(self, started_at: str, seconds: float) -> None:
        """Stores how long the run has taken since this start."""
        self._write("INSERT OR REPLACE INTO times VALUES (?, ?)", [started_at, seconds])

    def seconds(self) -> float:
        """Wall time of all starts of the run."""
        rows = self._connection.execute("SELECT total(seconds) AS seconds FROM times")
        return float(rows[0]["seconds"])

    def _write(self, sql: str, values: list[Any]) -> None:
        try:
            with self._connection.transaction():
                self._connection.execute(sql, values)
        except MemoryStoreError as error:
            raise DiskFullError(
                f"cannot write {self._connection.path} ({error}): when it can be written, run the"
                " same command again; it goes on from there"
            ) from error


@contextmanager
def open_store(folder: Path) -> Iterator[CellStore]:
    """The store in a folder, made if missing.

    Raises:
        ConfigError: the file there is damaged, or cannot be opened.
    """
    try:
        connection = Connection(folder / CELLS)
        # SQLite empties the write-ahead log, which would grow with every cell. (The service does
        # that itself.) If its sync fails, the cells can be measured again.
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    except MemoryStoreError as error:
        raise ConfigError(
            f"{folder / CELLS} cannot be used: move the folder away and run again, or give another"
            f" one ({error})"
        ) from error
    try:
        yield CellStore(connection)
    finally:
        connection.close()


def _key(row: Row) -> CellKey:
    named: dict[str, Any] = {name: row[name] for name in _KEY}
    return CellKey(**{**named, "kind": ProbeKind(named["kind"])})


def _cell(row: Mapping[str, Any]) -> Measurement:
    values = {name: row[column] for name, column in _COLUMNS.items()}
    values["examples"] = tuple(json.loads(values["examples"]))
    return Measurement(key=_key(row), **values)
