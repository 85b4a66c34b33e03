"""The folder of a run: its results so far, so that an interrupted run can continue.

It holds `settings.json`, which a later run must share, a lock, and a file of JSON lines for each
teacher. A line is flushed to the disk; one that a crash cut off is dropped at the next start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from agent.errors import ConfigError, DiskFullError
from eval.errors import RequestError

SETTINGS = "settings.json"


class Journal:
    """Records in the order in which they were appended.

    Args:
        path: of the file, read now and appended to later; None keeps the records in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self._path = path
        if path is not None and path.exists():
            self._read(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Stores a record; it is on the disk when this returns.

        Raises:
            DiskFullError: it cannot be written.
        """
        self.records.append(dict(record))
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskFullError(
                f"cannot write {self._path} ({error.strerror}): make room and run the same command"
                " again; it goes on from there"
            ) from error

    def _read(self, path: Path) -> None:
        """Reads the complete lines, and removes a part that a crash left."""
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            self.records = [json.loads(line) for line in whole.split(b"\n") if line]
        except ValueError as error:
            raise ConfigError(
                f"{path} is damaged ({error}): move the folder away and run again"
            ) from error
        if len(whole) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(whole))


@contextmanager
def claimed(folder: Path | None, settings: Mapping[str, Any]) -> Iterator[None]:
    """Makes the folder one of these settings, and keeps other runs out of it.

    Args:
        folder: made if missing; None claims nothing.
        settings: see `require_same_settings`.

    Raises:
        RequestError: see `require_same_settings`.
        ConfigError: another run is using the folder.
    """
    if folder is None:
        yield
        return
    require_same_settings(folder, settings)
    try:
        lock = FileLock(folder / "lock", timeout=0).acquire()
    except Timeout as error:
        raise ConfigError(
            f"another run is using {folder}: wait for it, or give another folder"
        ) from error
    with lock:
        yield


@contextmanager
def interruptible(folder: Path | None) -> Iterator[None]:
    """Makes Ctrl-C say what happens to the results so far.

    Args:
        folder: of the run; None if nothing is kept.

    Raises:
        KeyboardInterrupt: with that as its message.
    """
    try:
        yield
    except KeyboardInterrupt:
        kept = f"the same command goes on from {folder}" if folder else "nothing is kept"
        raise KeyboardInterrupt(f"interrupted: {kept}") from None


@contextmanager
def report_files(folder: Path) -> Iterator[None]:
    """Makes a failure to write the report a `DiskFullError`.

    Raises:
        DiskFullError: one cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DiskFullError(
            f"cannot write the report to {folder} ({error.strerror}): make room and run the same"
            " command again; nothing is measured twice"
        ) from error


def require_same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder one of these settings, or checks that it is.

    Args:
        folder: made if missing.
        settings: all that results depend on, as JSON values.

    Raises:
        RequestError: it holds results of a run with other settings, cannot be written, or is
            another kind of folder.
    """
    path = folder / SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _compare(path, json.loads(path.read_text(encoding="utf-8")), settings)
            return
        if any(folder.iterdir()):
            raise _refused(f"{folder} holds something else: give an empty or a new folder")
        # Replaced in one step: a torn file would lock its owner out.
        draft = folder / f"{SETTINGS}.new"
        draft.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise _refused(f"cannot use the folder {folder}: {error.strerror}") from error
    except ValueError as error:
        raise _refused(f"{path} is not of this program: give another folder") from error


def _refused(why: str) -> RequestError:
    return RequestError("out", why)


def _compare(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    before, now = _flat(stored), _flat(wanted)
    differing = [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise _refused(
            f"{path.parent} holds a run with other settings ({'; '.join(differing)}):"
            " give another folder, or the same settings to go on"
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their path, so that only what differs is shown."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
