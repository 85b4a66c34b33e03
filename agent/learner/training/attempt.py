"""One attempt at one fact: gradient steps on the working weights until the fact is known.

Each forward pass has two uses: it shows the effect of the last step, and begins the next one.
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

# Older facts in one forward pass, to bound memory.
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """The models and tools that updates use.

    Attributes:
        working: the model whose weights change.
        base: the base checkpoint.
        trained: the weights of `working` that change, by name.
        encoder: tokenizer of both models.
        device: of both models.
        runner: runs forward and backward passes.
        texts: returns the pool of general text.
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
        """Makes the lesson of an attempt; it depends only on the arguments.

        If the policy guards neighbors, the fact and the rehearsed facts need their base answers.

        Args:
            example: the fact.
            policy: with guards.
            rehearsed: the older facts to rehearse.
            bounded: leave out rows that are too long. False replays updates of older algorithms.
        """
        guards = policy.guards or NONE
        texts = self.texts() if guards.texts else ()
        rows = [
            *_fact_rows(self.encoder, example, policy),
            *guard.guard_rows(self.encoder, example, rehearsed, guards, texts),
        ]
        return self._anchored(rows, bounded=bounded)

    def gate_lesson(self, example: Example, policy: Policy) -> Lesson:
        """The rows that the gate judges, for a policy whose own lesson lacks them."""
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
        """How the working weights score on a lesson."""
        return lesson.measure(self.working, list(self.trained.values()))

    def log_probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-probability of each whole answer under the working weights."""
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
        """Takes a step with the working weights, in place."""
        take_step(list(self.trained.values()), directions, rate)


@dataclass(slots=True)
class Attempt:
    """An attempt at one fact, with its result once `steps` has ended.

    Attributes:
        bench: models and tools.
        example: the fact, with its base answer.
        policy: with guards.
        rehearsed: the older facts to rehearse, with their base answers.
        taken: the steps so far.
        curve: the first step's result at each rate that was scored; empty if none were.
        decision: how the attempt ended; None before its end.
        leak: the largest probability of the new answer at a control, after the steps so far.
        text_divergence: the largest divergence of a general text by then, nats a token.
        left_out: number of rows of its lessons that were too long.
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
        """Whether it has ended with the fact learned."""
        return self.decision is not None and self.decision.verdict is Verdict.LEARNED

    @property
    def gate_failed(self) -> bool:
        """Whether a guard was violated, so that a gentler attempt may pass."""
        return self.decision is not None and self.decision.gate_failed

    def steps(self) -> Iterator[Step]:
        """Takes steps until the policy ends the attempt; yields each once its effect is known.

        May be called again after `rehearsed` has grown: the attempt then continues.

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
        """Whether the update of a successful attempt may be served; if not, the fact has resisted.

        The lessons of most policies contain what the gate judges, so that it was judged before the
        end. For the other policies this measures the gate's own lesson.
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
        """Takes a step; returns its rate, its features, and the number of scored rates."""
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
        """The candidate rates to score first; empty to score all at once."""
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
    """Replays recorded steps; yields after each.

    Args:
        bench: with the working weights from before the first step.
        example: the fact, with its base answer.
        policy: as recorded.
        steps: as recorded.
        rehearsed: the facts that the steps rehearsed, by id, with their base answers.
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
    """Whether lessons with these guards need the base model's answers."""
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
