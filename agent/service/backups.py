"""A list of backups beside the database, for the day on which the database cannot be read."""

from __future__ import annotations

from pathlib import Path

LIST = "backups.txt"


def remember_backup(data: Path, backup: Path) -> None:
    """Adds a backup to the list of a data folder, a path a line, newest last."""
    with (data / LIST).open("a", encoding="utf-8") as file:
        file.write(f"{backup}\n")


def newest_backup(data: Path) -> Path | None:
    """The newest backup that is still where it was written."""
    try:
        lines = (data / LIST).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((Path(line) for line in reversed(lines) if Path(line).is_dir()), None)
