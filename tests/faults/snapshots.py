"""Damaged snapshots: recovery goes back to a good one, or to the base; the weights are the same.

With the real learner on the tiny model.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.faults.findings import Findings
from tests.undo.memory import running_memory


async def run(folder: Path, cases: int, seed: int) -> Findings:
    """Damages one or more of three snapshots, so many times."""
    findings = Findings(kind="damaged snapshots (tiny model)", seed=seed)
    chance = random.Random(seed)
    data = folder / "data"
    async with running_memory(data) as memory:
        for fact_id in ("fact-a", "fact-b", "fact-c"):
            await memory.teach(fact_id)
            await memory.keeper.create()
        await memory.teach("fact-d")
        digest = memory.learner.digest
    kept = data.with_name("kept")
    shutil.copytree(data / "snapshots", kept)
    for _ in range(cases):
        shutil.rmtree(data / "snapshots")
        shutil.copytree(kept, data / "snapshots")
        folders = sorted((data / "snapshots").iterdir())
        how = [
            damage(snapshot, chance)
            for snapshot in chance.sample(folders, chance.randrange(1, len(folders) + 1))
        ]
        findings.cases += 1
        async with running_memory(data) as memory:
            await memory.settle()
            if memory.learner.digest != digest:
                findings.diverge(f"{how}: other weights")
    return findings


def damage(snapshot: Path, chance: random.Random) -> str:
    """Alters one snapshot; says how."""
    weights, manifest = snapshot / "weights.safetensors", snapshot / "manifest.json"
    how = chance.choice(("flip", "flip", "cut", "no weights", "no manifest", "torn manifest"))
    if how == "flip":
        file = chance.choice((weights, weights, manifest))
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        how += f" in {file.name}"
    elif how == "cut":
        content = bytearray(weights.read_bytes())
        weights.write_bytes(content[: chance.randrange(len(content))])
    elif how == "no weights":
        weights.unlink()
    elif how == "no manifest":
        manifest.unlink()
    else:
        text = manifest.read_text()
        manifest.write_text(text[: chance.randrange(len(text))])
    return f"{snapshot.name} {how}"
