"""Our own way: the service's learner and its reviews, without the service.

Between two facts there is one review at most, as in the service while its queue is full.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from agent.errors import SnapshotError
from agent.learner.checkpoint import prepare_snapshot, restore_snapshot
from agent.learner.core import Learner
from agent.learner.inference.encoding import Encoder
from agent.snapshots import snapshot_folders
from agent.teaching.plan import Defaults, LessonPlan
from agent.teaching.procedure import drain_now
from agent.teaching.rate_prediction import RECENT_STEPS, predictor_of
from agent.teaching.rates import HELD_PROBABILITY
from agent.teaching.types import Answer, Example, Outcome
from eval.teachers.protocol import Taught
from eval.teachers.review_schedule import ReviewSchedule
from memory_store.companion_sampling import HeldFacts
from memory_store.encoding import read_steps, write_steps
from memory_store.facts import question_key
from memory_store.vocabulary import Policy, Step, Verdict

HELD = "held.json"
EXPERIENCE = "experience.json"
REVIEWS = "reviews.json"
# The predictor of rates is fitted again after this many facts; the service does so by the clock.
REFIT_FACTS = 25


@dataclass(slots=True)
class Experience:
    """What the policy `predicted` knows of earlier facts.

    Attributes:
        taught: how many there were.
        updates: the steps of those that were learned, the last ones.
        predictor: as in `Policy`.
    """

    taught: int = 0
    updates: list[tuple[Step, ...]] = field(default_factory=list)
    predictor: tuple[float, ...] | None = None

    def add(self, outcome: Outcome) -> None:
        """Counts one more fact; every `REFIT_FACTS` of them, fits the predictor again."""
        self.taught += 1
        if outcome.verdict is Verdict.LEARNED:  # as in the service, whose ledger has no others
            self.updates = [*self.updates, outcome.steps][-RECENT_STEPS:]
        if self.taught % REFIT_FACTS == 0:
            predictor = predictor_of(self.updates)
            self.predictor = predictor.as_numbers() if predictor else None

    def save(self, path: Path) -> None:
        """Writes all of it."""
        content = {
            "taught": self.taught,
            "updates": [write_steps(steps) for steps in self.updates],
            "predictor": self.predictor,
        }
        path.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Experience:
        """The inverse of `save`.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not what `save` writes.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            taught=content["taught"],
            updates=[read_steps(steps) for steps in content["updates"]],
            predictor=None if content["predictor"] is None else tuple(content["predictor"]),
        )


class LearnerTeacher:
    """Teaches through `Learner`, with the older facts that the service would choose.

    Args:
        name: in tables.
        learner: at the base checkpoint.
        policy: for every fact; if it names no guards, they depend on the device.
        reviews: whether facts are asked again, and taught again where they were lost.
    """

    sees_all = False

    def __init__(
        self, name: str, learner: Learner, policy: Policy, *, reviews: bool = True
    ) -> None:
        self.name = name
        self._learner = learner
        self._schedule = ReviewSchedule() if reviews else None
        self._policy = policy
        self._held_facts = HeldFacts()
        self._examples: dict[str, Example] = {}
        self._experience = Experience()

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """See `Teacher`."""
        for example in examples:
            started = time.perf_counter()
            outcome, candidates = self._learn(example)
            if outcome.verdict is not Verdict.RESISTED:
                self._hold(example)
                if self._schedule is not None:
                    self._schedule.begin(example.fact_id, self._learner.version)
            reviewed = self._review()
            yield Taught(
                fact_id=example.fact_id,
                verdict=outcome.verdict,
                learning_rates=tuple(step.learning_rate for step in outcome.steps),
                seconds=time.perf_counter() - started,
                answer=outcome.after,
                candidates=candidates,
                retaught=reviewed,
            )

    def _review(self) -> tuple[str, ...]:
        """Asks the fact that has been due longest; returns its id if it was taught again."""
        due = self._schedule.take(self._learner.version) if self._schedule else None
        if self._schedule is None or due is None:
            return ()
        fact_id, times_held = due
        if not self._held_facts.holds(fact_id):  # another answer has taken its place
            return ()
        example = self._examples[fact_id]
        log_probability, _ = self._learner.score(example.question, example.answer)
        if log_probability >= math.log(HELD_PROBABILITY):
            self._schedule.held(fact_id, self._learner.version, times_held)
            return ()
        outcome, _ = self._learn(example)
        self._schedule.begin(fact_id, self._learner.version)
        return (fact_id,) if outcome.verdict is Verdict.LEARNED else ()

    def _learn(self, example: Example) -> tuple[Outcome, int]:
        """The outcome, and how many rates were scored for it."""
        defaults = Defaults(
            policy=self._policy,
            gated=self._policy.gated,
            predictor=self._experience.predictor,
            device=self._learner.device,
        )
        lesson = LessonPlan(
            example=example, policy=defaults.policy_for(), base_version=self._learner.version
        )
        older_ids = self._held_facts.sample(
            example.fact_id, question_key(example.question), lesson.companions
        )
        lesson = lesson.accompanied_by(self._examples[fact_id] for fact_id in older_ids)
        compared: list[int] = []
        outcome = drain_now(
            self._learner.learn(lesson),
            lambda step, opening: compared.append(step.candidates),
        )
        if outcome.verdict is Verdict.LEARNED:
            self._learner.commit(self._learner.version + 1, outcome.digest_after)
        self._experience.add(outcome)
        return outcome, sum(compared)

    def _hold(self, example: Example) -> None:
        """Makes the fact a candidate companion of later ones."""
        self._held_facts.add(example.fact_id, question_key(example.question))
        self._examples[example.fact_id] = example

    def save(self, folder: Path) -> None:
        """See `SavingTeacher`."""
        prepare_snapshot(self._learner, folder)()
        held = [asdict(example) for example in self._examples.values()]
        (folder / HELD).write_text(json.dumps(held), encoding="utf-8")
        self._experience.save(folder / EXPERIENCE)
        due = self._schedule.as_json() if self._schedule is not None else []
        (folder / REVIEWS).write_text(json.dumps(due), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """See `SavingTeacher`."""
        try:
            held = json.loads((folder / HELD).read_text(encoding="utf-8"))
            experience = Experience.load(folder / EXPERIENCE)
            schedule = ReviewSchedule(json.loads((folder / REVIEWS).read_text(encoding="utf-8")))
            [(_, snapshot)] = snapshot_folders(folder)
        except (OSError, ValueError) as error:
            raise SnapshotError(f"what was saved in {folder} cannot be read: {error}") from error
        restore_snapshot(self._learner, snapshot)
        self._experience = experience
        if self._schedule is not None:
            self._schedule = schedule
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
        """See `Teacher`."""
        return self._learner.encoder
