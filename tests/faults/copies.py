"""Copies of data folders in every combination with erase and backup.

Folders are served, backed up, copied, moved, replaced and nested at random, with real files. After
each erase all folders are compared with before: gone may be only the backups of the memory that
erased, where they were written, and nothing else; and none of those may be left.
"""

from __future__ import annotations

import random
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import InvalidFactError
from tests.faults.findings import Findings
from tests.served_folder import ServedFolder, served

STEPS = 16


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder is, as far as the test knows: never read from its files.

    Attributes:
        memory: whose it is, or who wrote it.
        is_memory: it is served from where it is; else a backup or a copy.
        written_at: of a backup that nobody has touched: where it was written.
    """

    memory: int
    is_memory: bool = False
    written_at: Path | None = None


class Scene:
    """All folders of a case."""

    def __init__(self, root: Path, chance: random.Random, findings: Findings) -> None:
        self.root, self.chance, self.findings = root, chance, findings
        self.folders: dict[Path, Folder] = {}
        self.names = self.memories = 0
        self.told: list[str] = []

    def new_path(self) -> Path:
        """A path that is free: beside the other folders, or inside one of them."""
        self.names += 1
        inside = self.chance.random() < 0.3 and self.folders
        parent = self.chance.choice(sorted(self.folders)) if inside else self.root
        return parent / f"folder-{self.names}"

    def any_folder(self) -> Path | None:
        return self.chance.choice(sorted(self.folders)) if self.folders else None

    def any_memory(self) -> Path | None:
        memories = sorted(path for path, folder in self.folders.items() if folder.is_memory)
        return self.chance.choice(memories) if memories else None

    def any_backup(self) -> Path | None:
        backups = sorted(path for path, folder in self.folders.items() if folder.written_at)
        return self.chance.choice(backups) if backups else None

    def below(self, path: Path) -> list[Path]:
        return [each for each in self.folders if each.is_relative_to(path)]

    def serving(self, path: Path) -> Folder:
        """What a folder is from the moment it is served."""
        found = self.folders.get(path)
        if found is None or not found.is_memory:
            self.memories += 1
            found = self.folders[path] = Folder(self.memories, is_memory=True)
        return found

    def tree(self) -> dict[Path, bytes]:
        """Every file; locks aside, which looking makes."""
        return {
            file: file.read_bytes()
            for file in self.root.rglob("*")
            if file.is_file() and file.name != "lock"
        }

    def owner(self, file: Path) -> Path | None:
        """The innermost folder that a file belongs to."""
        return next((each for each in file.parents if each in self.folders), None)

    async def step(self) -> None:
        """Does one thing that operators do."""
        steps = [self.begin, self.copy, self.move, self.serve, self.replace]
        steps += [self.overwrite_database, *[self.back_up] * 4, *[self.erase] * 2]
        await self.chance.choice(steps)()

    async def begin(self) -> None:
        path = self.new_path()
        async with served(path) as memory:
            await memory.teach(f"Of {path}?")
        self.serving(path)
        self.told.append(f"new {path}")

    async def serve(self) -> None:
        if (path := self.any_folder()) is not None:
            async with served(path) as memory:
                await memory.teach(f"Again, of {path}?")
            self.serving(path)
            self.told.append(f"serve {path}")

    async def back_up(self) -> None:
        if (path := self.any_memory()) is None:
            return
        target = self.new_path()
        async with served(path) as memory:
            try:
                await memory.back_up(target)
            except InvalidFactError:
                assert target.is_relative_to(path)
                return
        self.folders[target] = Folder(self.folders[path].memory, written_at=target)
        self.told.append(f"back up {path} to {target}")

    async def copy(self) -> None:
        path, target = self.any_folder(), self.new_path()
        if path is None or target.is_relative_to(path):
            return
        self._copy(path, target)
        self.told.append(f"copy {path} to {target}")

    def _copy(self, path: Path, target: Path) -> None:
        inside = self.below(path)
        shutil.copytree(path, target)
        for each in inside:
            copied = replace(self.folders[each], is_memory=False)
            self.folders[target / each.relative_to(path)] = copied

    async def move(self) -> None:
        path, target = self.any_folder(), self.new_path()
        if path is None or target.is_relative_to(path):
            return
        inside = self.below(path)
        path.rename(target)
        for each in inside:
            self.folders[target / each.relative_to(path)] = self.folders.pop(each)
        self.told.append(f"move {path} to {target}")

    async def replace(self) -> None:
        """Another folder's content takes a folder's place."""
        path, other = self.any_backup(), self.any_folder()
        if path is None or other is None or path.is_relative_to(other) or other in self.below(path):
            return
        for each in self.below(path):
            del self.folders[each]
        shutil.rmtree(path)
        self._copy(other, path)
        self.told.append(f"replace {path} by {other}")

    async def overwrite_database(self) -> None:
        """The database of a folder is overwritten with that of another memory."""
        path, other = self.any_backup(), self.any_memory()
        if path is None or other is None:
            return
        if self.folders[path].memory == self.folders[other].memory:
            return
        shutil.copy(other / "memory.db", path / "memory.db")
        self.folders[path] = replace(self.folders[path], written_at=None)
        self.told.append(f"overwrite the database of {path} with that of {other}")

    async def erase(self) -> None:
        if (path := self.any_memory()) is None:
            return
        async with AsyncExitStack() as running:
            memory = await running.enter_async_context(served(path))
            other = self.any_folder()
            if other is not None and other != path and self.chance.random() < 0.5:
                await running.enter_async_context(served(other))
                self.serving(other)
            self.told.append(f"erase in {path}, while {other} may be served")
            await self._erase_in(memory, path)

    async def _erase_in(self, memory: ServedFolder, path: Path) -> None:
        known = {Path(each) for each in await memory.known_backups()}
        fact_id = await memory.teach("What was erased?")
        removable = {
            each
            for each, folder in self.folders.items()
            if each in known
            and not folder.is_memory
            and folder.written_at is not None
            and folder.memory == self.folders[path].memory
            and not path.is_relative_to(each)
            and not each.is_relative_to(path)
        }
        before = self.tree()
        await memory.erase(fact_id)
        after = self.tree()
        changing = ("memory.db", "memory.db-wal", "memory.db-shm", "backups.txt")
        missing = [
            file
            for file, content in before.items()
            if self.owner(file) not in removable
            and after.get(file) != content
            and not (self.owner(file) == path and file in after and file.name in changing)
        ]
        self.findings.lose(missing, f"{self.told}")
        left = [each for each in removable if (each / "memory.db").exists()]
        if left:
            self.findings.diverge(f"{self.told}: {left} left")
        for each in removable:
            del self.folders[each]


async def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many scenes, of some steps each."""
    findings = Findings(kind="copies of data folders", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        root = folder / f"case-{number}"
        root.mkdir(parents=True)
        scene = Scene(root, chance, findings)
        await scene.begin()
        for _ in range(STEPS):
            await scene.step()
        findings.cases += 1
        findings.points.update(told.split()[0] for told in scene.told)
        shutil.rmtree(root)
    return findings
