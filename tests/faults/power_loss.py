"""Power loss: what a disk may hold when the power goes, rebuilt from a trace.

At the cut, what was synced is there. Of what was written since, each write may be there, be gone,
or be torn: any of its sectors old, the others new. A file whose folder was not synced since it was
made may be gone. Then the database is opened, and all that was acknowledged before the cut must be
there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memory_store.errors import StoreUnusableError
from memory_store.store import MemoryStore
from tests.faults.findings import Findings, check_memory
from tests.faults.tracing import Call, Traced, trace_child
from tests.store.builders import ledger_rows

SECTOR = 512
SURVIVING = ("memory.db", "memory.db-wal")  # the shared memory is made anew


@dataclass(slots=True)
class DiskFile:
    """A file as the disk has it, and what the disk was told since the last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)
    named: bool = True  # its folder was synced since it was made

    def sync(self) -> None:
        for call in self.pending:
            apply(self.durable, call)
        self.pending.clear()

    def after_power_loss(self, chance: random.Random) -> bytes | None:
        """One of the contents that it may have; None if it is gone."""
        if not self.named and chance.random() < 0.5:
            return None
        content = bytearray(self.durable)
        fate = chance.choice(("all", "none", "mixed", "mixed"))
        for call in self.pending:
            kept = fate if fate != "mixed" else chance.choice(("all", "none", "torn"))
            if kept == "all":
                apply(content, call)
            elif kept == "torn" and call.name != "ftruncate":
                for piece in _sectors(call):
                    if chance.random() < 0.5:
                        apply(content, piece)
        return bytes(content)


def apply(content: bytearray, call: Call) -> None:
    """Writes, or cuts."""
    if call.name == "ftruncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    content.extend(bytes(max(0, call.offset - len(content))))
    content[call.offset : call.offset + len(call.content)] = call.content


def _sectors(call: Call) -> Iterator[Call]:
    start, end = call.offset, call.offset + len(call.content)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        piece = call.content[start - call.offset : stop - call.offset]
        yield Call(call.name, call.path, piece, start)
        start = stop


class Disk:
    """The data folder on a disk that has a cache."""

    def __init__(self, folder: Path, before: dict[str, bytes]) -> None:
        self._folder = str(folder)
        self.files = {name: DiskFile(bytearray(content)) for name, content in before.items()}
        self.acknowledged: list[str] = []

    def take(self, call: Call) -> None:
        """What a call does."""
        if call.path == self._folder and call.name == "sync":
            for file in self.files.values():
                file.named = True
        folder, _, name = call.path.rpartition("/")
        if folder == self._folder and name in SURVIVING:
            if call.name == "create":
                self.files.setdefault(name, DiskFile(named=False))
            elif call.name == "sync" and not call.failed:
                self.files[name].sync()
            elif call.name in ("pwrite64", "ftruncate") and not call.failed:
                self.files[name].pending.append(call)
        elif call.name == "write" and call.content.startswith((b"accepted ", b"learned ")):
            self.acknowledged.append(call.content.decode().strip())


def run(
    folder: Path, cases: int, seed: int, *, synchronous: str = "FULL", slow: bool = False
) -> Findings:
    """Rebuilds so many images of one trace, each from a cut of its own."""
    findings = Findings(kind=f"power loss, synchronous={synchronous}", seed=seed)
    inject = []
    if slow:
        findings.kind = "power loss, each sync 4 ms late"
        inject = ["fsync,fdatasync:delay_exit=4000"]
    before, traced = _trace(folder, synchronous, inject)
    chance = random.Random(seed)
    first = next(i for i, call in enumerate(traced.calls) if call.content.startswith(b"ready"))
    cuts = sorted(chance.randrange(first, len(traced.calls)) for _ in range(cases))
    disk, done = Disk(folder / "traced", before), 0
    for number, cut in enumerate(cuts):
        for call in traced.calls[done:cut]:
            disk.take(call)
        done = cut
        image = folder / f"image-{number}"
        image.mkdir()
        for name, file in disk.files.items():
            content = file.after_power_loss(chance)
            if content is not None:
                (image / name).write_bytes(content)
        _check(image, disk.acknowledged, findings)
    findings.remarks.append(f"{len(traced.calls)} calls, {len(traced.acknowledged)} answers")
    return findings


def _trace(folder: Path, synchronous: str, inject: list[str]) -> tuple[dict[str, bytes], Traced]:
    data = folder / "traced"
    data.mkdir(parents=True)
    with MemoryStore.open(data / "memory.db"):
        pass
    before = {"memory.db": (data / "memory.db").read_bytes()}
    traced = trace_child(data, synchronous=synchronous, inject=inject)
    assert traced.acknowledged, "the child did nothing"
    return before, traced


def _check(image: Path, acknowledged: list[str], findings: Findings) -> None:
    findings.cases += 1
    facts = {line.split()[1] for line in acknowledged if line.startswith("accepted")}
    versions = {int(line.split()[1]) for line in acknowledged if line.startswith("learned")}
    try:
        with MemoryStore.open(image / "memory.db") as store:
            check_memory(store, facts, findings, image.name)
            present = {row.model_version for row in ledger_rows(store.connection)}
            findings.lose(versions - present, image.name)
    except StoreUnusableError as error:
        findings.diverge(f"{image.name}: {error}")
