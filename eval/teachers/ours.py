"""Our own way: the service's learner, without the service."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel

from agent.learning.encoding import Encoder
from agent.learning.learner import Learner
from agent.learning.presets import guarded, older_facts
from agent.learning.records import Answer, Example, Outcome
from eval.teachers.protocol import Taught
from memory_store.facts import question_key
from memory_store.records import Policy
from memory_store.sampling import Candidates


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
            self._candidates.add(example.fact_id, key)
            self._examples[example.fact_id] = example
        return progress

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
