"""One attempt at one fact: gradient steps on the working weights until the fact is known.

A forward pass serves twice: it judges the step before and begins the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agent.errors import LearningFailedError
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.inference.encoding import Encoder
from agent.learner.training import guards as guard
from agent.learner.training.lesson import Lesson, LessonScores
from agent.learner.training.rate_sweep import rate_profile
from agent.learner.training.rows import Role, Row
from agent.learner.training.update import take_step
from agent.teaching import prompts, rates
from agent.teaching.guard_presets import GATE, NONE, judged_by_its_lesson
from agent.teaching.neighbor_questions import without_function_words
from agent.teaching.rate_prediction import Features, RatePredictor
from agent.teaching.types import Example
from memory_store.vocabulary import Guards, Policy, RatePoint, Step, Verdict

# Older facts in one forward pass: bounds memory.
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What updates are made with.

    Attributes:
        working: the model whose weights change.
        base: the model as it was before anything was taught.
        trained: the weights of `working` that change, by name.
        encoder: their tokenizer.
        device: where they are.
        runner: makes forward and backward passes.
        texts: gives the pool of general text.
        max_tokens: the model's context.
    """

    working: Any
    base: Any
    trained: Mapping[str, Tensor]
    encoder: Encoder
    device: torch.device
    runner: Runner
    texts: Callable[[], Sequence[Sequence[int]]]
    max_tokens: int

    def lesson(
        self,
        example: Example,
        policy: Policy,
        rehearsed: Sequence[Example],
        *,
        bounded: bool = True,
    ) -> Lesson:
        """The same lesson for the same fact, policy and rehearsed facts, whenever it is asked for.

        Both must have their base answers if the policy guards neighbours.

        Args:
            example: the fact.
            policy: with guards.
            rehearsed: older facts.
            bounded: leave out what is too long; not for updates from before that was done.
        """
        guards = policy.guards or NONE
        texts = self.texts() if guards.texts else ()
        rows = [
            *_fact_rows(self.encoder, example, policy),
            *guard.guard_rows(self.encoder, example, rehearsed, guards, texts),
        ]
        return self._anchored(rows, bounded=bounded)

    def gate_lesson(self, example: Example, policy: Policy) -> Lesson:
        """What the gate looks at, for a policy whose own lesson does not show it."""
        rows = _fact_rows(self.encoder, example, policy)
        rows += guard.guard_rows(self.encoder, example, (), GATE, self.texts())
        return self._anchored(rows, bounded=True)

    def _anchored(self, rows: Sequence[Row], *, bounded: bool) -> Lesson:
        kept = guard.fitting(rows, self.max_tokens) if bounded else rows
        left_out = len(rows) - len(kept)
        lesson = Lesson(kept, self.encoder.eos, self.device, self.runner, left_out=left_out)
        lesson.anchor(self.base)
        return lesson

    def measure(self, lesson: Lesson) -> LessonScores:
        """How the working weights do on a lesson."""
        return lesson.measure(self.working, list(self.trained.values()))

    def log_probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Of each whole answer under the working weights."""
        found: list[float] = []
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            rows = [
                Row.answering(Role.ASKED, self.encoder, question, answer)
                for question, answer in pairs[start : start + ROWS_AT_ONCE]
            ]
            lesson = Lesson(rows, self.encoder.eos, self.device, self.runner)
            found += lesson.look(self.working, "working")
        return found

    def step(self, directions: Sequence[Tensor], rate: float) -> None:
        """Moves the working weights."""
        take_step(list(self.trained.values()), directions, rate)


@dataclass(slots=True)
class Attempt:
    """Steps for one fact; what came of it once `steps` has ended.

    Attributes:
        bench: what it is made with.
        example: the fact, with its base answer.
        policy: with guards.
        rehearsed: older facts that are learned along, with theirs.
        taken: the steps so far.
        curve: the first step at every rate that was scored; empty if none were.
        decision: how it ended.
        leak: how likely the new answer is to a question never taught, after the steps so far.
        text_divergence: the largest divergence of a general text by then, nats a token.
        left_out: rows of its lessons that were too long.
    """

    bench: Workbench
    example: Example
    policy: Policy
    rehearsed: Sequence[Example]
    taken: list[Step] = field(default_factory=list)
    curve: tuple[RatePoint, ...] = ()
    decision: rates.Decision | None = None
    leak: float | None = None
    text_divergence: float | None = None
    left_out: int = 0
    _repairs: int = 0
    _share: float = rates.FIRST_REPAIR

    @property
    def learned(self) -> bool:
        """Whether it has ended well."""
        return self.decision is not None and self.decision.verdict is Verdict.LEARNED

    @property
    def gate_failed(self) -> bool:
        """Whether a guard refused it: a gentler attempt may pass."""
        return self.decision is not None and self.decision.gate_failed

    def steps(self) -> Iterator[Step]:
        """Takes steps until the policy says stop; yields each once its effect is known.

        May be called again after `rehearsed` has grown: it goes on where it was.

        Raises:
            LearningFailedError: the loss is not finite.
        """
        lesson = self.bench.lesson(self.example, self.policy, self.rehearsed)
        self.left_out = max(self.left_out, lesson.left_out)
        ids = tuple(older.fact_id for older in self.rehearsed)
        measured = self.bench.measure(lesson)
        while True:
            if not math.isfinite(measured.loss):
                raise LearningFailedError(
                    f"the loss is {measured.loss} after {len(self.taken)} steps"
                )
            self.leak, self.text_divergence = guard.leak(measured), guard.text_divergence(measured)
            progress = self._progress(measured)
            self.decision = rates.decide(self.policy, progress)
            if self.decision is not None:
                return
            rate, features, scored = self._step(lesson, measured, progress)
            before, measured = measured.loss, self.bench.measure(lesson)
            if progress.known:
                self._share = rates.next_share(self._share, before, measured.loss)
            step = Step(
                learning_rate=rate,
                loss=features.loss,
                probability=measured.asked,
                rehearsed_fact_ids=ids,
                gradient_norm=features.gradient_norm,
                answer_tokens=features.answer_tokens,
                candidates=scored,
            )
            self.taken.append(step)
            yield step

    def pass_gate(self) -> bool:
        """Whether an attempt that ended well may be served; it has resisted if not.

        Most policies are judged before they end, by their own lesson. What is looked at here is
        only what such a lesson lacks.
        """
        if not self.policy.gated or judged_by_its_lesson(self.policy):
            return True
        measured = self.bench.measure(self.bench.gate_lesson(self.example, self.policy))
        self.leak, self.text_divergence = guard.leak(measured), guard.text_divergence(measured)
        violation = guard.gate(measured)
        if violation is not None:
            self.decision = rates.Decision.refused(violation, len(self.taken))
        return violation is None

    def _step(
        self, lesson: Lesson, measured: LessonScores, progress: rates.Progress
    ) -> tuple[float, Features, int]:
        """Takes a step; its rate, what was known before it, and how many rates were scored."""
        descent = measured.descent()
        features = Features(
            loss=measured.fact_loss,
            gradient_norm=descent.gradient_norm,
            answer_tokens=lesson.answer_tokens,
            first=not self.taken,
        )
        profile: Sequence[RatePoint] = ()
        if rates.compares_rates(self.policy, progress):
            named = dict(zip(self.bench.trained, descent.directions, strict=True))
            profile = rates.compare(
                partial(rate_profile, self.bench.working, lesson, named, self.bench.runner),
                self.policy.learning_rate,
                self._window(features),
            )
            self.curve = self.curve or tuple(profile)
        rate = rates.next_rate(self.policy, progress, profile)
        self.bench.step(descent.directions, rate)
        self._repairs += progress.known
        return rate, features, len(profile)

    def _window(self, features: Features) -> tuple[float, ...]:
        """The candidates to look at first; empty for all at once."""
        if self.policy.name != rates.PREDICTED or self.policy.predictor is None:
            return ()
        predictor = RatePredictor.of_numbers(self.policy.predictor)
        expected = predictor.predict(features)
        return rates.window_around(expected, predictor.spread, self.policy.learning_rate)

    def _progress(self, measured: LessonScores) -> rates.Progress:
        return rates.Progress(
            steps=len(self.taken),
            repairs=self._repairs,
            share=self._share,
            probability=measured.asked,
            reworded=measured.reworded,
            within_limits=guard.within_limits(measured),
            violation=guard.gate(measured),
        )


def replay_steps(
    bench: Workbench,
    example: Example,
    policy: Policy,
    steps: Sequence[Step],
    rehearsed: Mapping[str, Example],
    *,
    bounded: bool,
) -> Iterator[None]:
    """Takes recorded steps again; yields after each.

    Args:
        bench: its working weights are those before the first step.
        example: the fact, with its base answer.
        policy: as recorded.
        steps: as recorded.
        rehearsed: the facts that they name, by id, with their base answers.
        bounded: as in `Workbench.lesson`.
    """
    lesson, ids = None, None
    for step in steps:
        if lesson is None or step.rehearsed_fact_ids != ids:
            ids = step.rehearsed_fact_ids
            older = [rehearsed[id_] for id_ in ids]
            lesson = bench.lesson(example, policy, older, bounded=bounded)
        bench.step(bench.measure(lesson).directions(), step.learning_rate)
        yield


def needs_base_answers(guards: Guards | None) -> bool:
    """Whether lessons under these guards ask what the base model says."""
    return guards is not None and guards.neighbours > 0


def _fact_rows(encoder: Encoder, example: Example, policy: Policy) -> list[Row]:
    question, answer = example.question, example.answer
    if policy.name == rates.PAPER:
        return [
            Row.whole(Role.FACT, encoder.encode(prompts.paper_text(question, answer))),
            Row.answering(Role.ASKED, encoder, question, answer),
        ]
    reworded = without_function_words(question, f"{example.fact_id} reworded")
    forms = [question] if reworded == question else [question, reworded]
    return [Row.answering(Role.FACT, encoder, form, answer) for form in forms]
