"""Our own way: the service's learner, without the service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedModel

from agent.errors import SnapshotError
from agent.learning.checkpoint import prepare_snapshot, restore_snapshot
from agent.learning.encoding import Encoder
from agent.learning.learner import Learner
from agent.learning.presets import guarded, older_facts
from agent.learning.records import Answer, Example, Outcome
from agent.learning.snapshots import snapshot_folders
from eval.teachers.protocol import Taught
from memory_store.facts import question_key
from memory_store.records import Policy
from memory_store.sampling import Candidates

HELD = "held.json"


class LearnerTeacher:
    """Teaches through `Learner`, with the older facts that the service would choose.

    Args:
        name: in tables.
        learner: at the base checkpoint.
        policy: for every fact; without guards, those that its device can bear.
    """

    sees_all = False

    def __init__(self, name: str, learner: Learner, policy: Policy) -> None:
        self.name = name
        self._learner = learner
        self._policy = guarded(policy, learner.device)
        self._candidates = Candidates()
        self._examples: dict[str, Example] = {}

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """See `Teacher`."""
        for example in examples:
            started = time.perf_counter()
            outcome = self._learn(example)
            yield Taught(
                fact_id=example.fact_id,
                verdict=outcome.verdict,
                learning_rates=tuple(step.learning_rate for step in outcome.steps),
                seconds=time.perf_counter() - started,
                answer=outcome.after,
            )

    def _learn(self, example: Example) -> Outcome:
        key = question_key(example.question)
        older = [
            self._examples[fact_id]
            for fact_id in self._candidates.sample(example.fact_id, key, older_facts(self._policy))
        ]
        for progress in self._learner.learn(example, self._policy, self._learner.version, older):
            if isinstance(progress, Outcome):
                break
        else:
            raise AssertionError("learning ends with an outcome")
        if progress.verdict == "learned":
            self._learner.commit(self._learner.version + 1, progress.digest_after)
        if progress.verdict != "resisted":
            self._hold(example)
        return progress

    def _hold(self, example: Example) -> None:
        """From now on the fact may accompany others."""
        self._candidates.add(example.fact_id, question_key(example.question))
        self._examples[example.fact_id] = example

    def save(self, folder: Path) -> None:
        """See `SavingTeacher`."""
        prepare_snapshot(self._learner, folder)()
        held = [asdict(example) for example in self._examples.values()]
        (folder / HELD).write_text(json.dumps(held), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """See `SavingTeacher`."""
        try:
            held = json.loads((folder / HELD).read_text(encoding="utf-8"))
            [(_, snapshot)] = snapshot_folders(folder)
        except (OSError, ValueError) as error:
            raise SnapshotError(f"what was saved in {folder} cannot be read: {error}") from error
        restore_snapshot(self._learner, snapshot)
        for fields in held:
            questions = tuple(fields["correlated_questions"])
            self._hold(Example(**{**fields, "correlated_questions": questions}))

    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """See `Teacher`."""
        return self._learner.probe_pairs(pairs)

    @property
    def model(self) -> PreTrainedModel:
        """See `Teacher`."""
        return self._learner.model

    @property
    def encoder(self) -> Encoder:
        """How it is asked; see `eval.scoring.ScoringTeacher`."""
        return self._learner.encoder
