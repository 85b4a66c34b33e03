"""The state of a teacher, kept in a folder, so that an interrupted run can continue."""

from __future__ import annotations

import shutil
from pathlib import Path

from eval.teachers.protocol import SavingTeacher, Teacher

_UNFINISHED = "unfinished"


class SavedTeacher:
    """Keeps the latest state of a teacher, as `<folder>/<facts taught>`.

    Does nothing for a teacher that cannot save itself.

    Args:
        teacher: at the base checkpoint.
        folder: made if missing, used for nothing else; None keeps nothing.
    """

    def __init__(self, teacher: Teacher, folder: Path | None) -> None:
        self._teacher = teacher if isinstance(teacher, SavingTeacher) else None
        self._folder = folder

    def restore(self) -> int:
        """Loads the latest state; returns how many facts the teacher was taught by then.

        Raises:
            SnapshotError: the state is damaged.
        """
        if self._teacher is None or self._folder is None or not self._folder.is_dir():
            return 0
        taught = max((int(f.name) for f in self._folder.iterdir() if f.name.isdigit()), default=0)
        if taught:
            self._teacher.load(self._folder / str(taught))
        return taught

    def keep(self, taught: int) -> None:
        """Saves the state after `taught` facts; the earlier one is deleted."""
        if self._teacher is None or self._folder is None or not taught:
            return
        unfinished = self._folder / _UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self._teacher.save(unfinished)
        unfinished.replace(self._folder / str(taught))
        for older in self._folder.iterdir():
            if older.name != str(taught):
                shutil.rmtree(older)

    def remove(self) -> None:
        """Deletes the state, which a finished run does not need."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
