"""Lives a recorded history, and reads, writes and compares its file."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.learner.environment import make_deterministic
from tests.golden.histories import History
from tests.golden.recorder import Recorder, Steps

FOLDER = Path(__file__).parent
# A property of a test whose bits no file knows for this machine.
ONLY_RELATIONS = "golden: only relations compared"


@dataclass(frozen=True)
class Golden:
    """What the file of a history says.

    Attributes:
        outline: for each step what must be the same everywhere.
        bits: by fingerprint of the machine, for each step what is the same there.
    """

    outline: Steps
    bits: dict[str, Steps]

    @classmethod
    def read(cls, name: str) -> Golden:
        """The file of a history."""
        content = json.loads(file_of(name).read_text(encoding="utf-8"))
        return cls(outline=content["outline"], bits=content["bits"])

    def write(self, name: str) -> None:
        """Writes the file of a history: a line for each field of a step, so that diffs are read."""
        text = json.dumps({"outline": self.outline, "bits": self.bits}, indent=1)
        file_of(name).write_text(f"{text}\n", encoding="utf-8")


def file_of(name: str) -> Path:
    """Where a history is recorded."""
    return FOLDER / f"{name}.json"


def live(history: History) -> Recorder:
    """Lives a history in a new folder, on one thread."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.server.loop.backoff.FIRST_RESTART_SECONDS", 0.0)
        patch.setattr("agent.server.loop.backoff.FIRST_REST_SECONDS", 0.0)
        patch.setattr("tests.undo.memory.SETTLE_SECONDS", 600.0)
        # The base model writes its general text anew: what is kept may be from other libraries.
        patch.setattr(
            "agent.learner.training.general_text._cached",
            lambda _: Path(folder, "general-text.json"),
        )
        make_deterministic(1)
        asyncio.run(_lived(history, recorder, Path(folder, "memory")))
    return recorder


async def _lived(history: History, recorder: Recorder, folder: Path) -> None:
    await history(recorder, folder)


def first_difference(recorded: Steps, lived: Steps) -> str:
    """The first step and field that differ, in words; empty if nothing does."""
    if [step["step"] for step in recorded] != [step["step"] for step in lived]:
        return "the steps of the history are others: record it again"
    for before, now in zip(recorded, _as_read(lived), strict=True):
        for field in sorted(before.keys() | now.keys()):
            if before.get(field) != now.get(field):
                return (
                    f"after '{now['step']}', {field} differs:\n"
                    f"  recorded {before.get(field)!r}\n"
                    f"  now      {now.get(field)!r}"
                )
    return ""


def _as_read(steps: Steps) -> Any:
    """Steps as a file gives them back; numbers stay exactly the same."""
    return json.loads(json.dumps(steps))
