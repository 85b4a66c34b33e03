"""Learning one fact on the working copy: attempts under a policy, and what they did.

An update that a guard refuses is undone and tried again more gently; one that loses older facts
takes more steps that rehearse them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from agent.errors import LearningFailedError
from agent.learner.digest import weights_digest
from agent.learner.inference.encoding import Encoder
from agent.learner.inference.generation import answer_alone, generate_answers
from agent.learner.inference.probes import probe, score_pairs
from agent.learner.training.attempt import Attempt, Workbench
from agent.learner.training.base_answers import BaseAnswers
from agent.learner.training.general_text import GeneralTextPool
from agent.learner.training.guards import rehearsed_of
from agent.learner.weight_copies import WeightCopies
from agent.teaching import rates
from agent.teaching.algorithm import ALGORITHM, BOUNDED
from agent.teaching.guard_presets import NONE, compared_facts
from agent.teaching.plan import LessonPlan
from agent.teaching.types import Answer, Example, Generated, Opening, Outcome
from memory_store.vocabulary import Refusal, Step, Verdict

logger = logging.getLogger(__name__)


class FactTraining:
    """Makes updates, one fact at a time.

    Args:
        weights: whose working copy is changed.
        bench: what updates are made with.
        base_answers: of the base model.
        general_text: that updates are held to.
    """

    def __init__(
        self,
        weights: WeightCopies,
        bench: Workbench,
        base_answers: BaseAnswers,
        general_text: GeneralTextPool,
    ) -> None:
        self._weights = weights
        self._bench = bench
        self._base_answers = base_answers
        self._general_text = general_text

    def run(self, lesson: LessonPlan, digest: str) -> Iterator[Opening | Step | Outcome]:
        """Learns a fact, which must fit the model.

        Args:
            lesson: the fact, its policy and older facts: guards look at the first ones, all are
                probed after.
            digest: of the served weights.

        Yields:
            As `Learner.learn`.

        Raises:
            LearningFailedError: the loss or the weights are not finite.
        """
        self._weights.put_back()
        policy, older = lesson.policy, lesson.older
        before = self._asked(lesson.example)
        [example] = self._base_answers.complete([lesson.example], policy)
        if math.exp(before.log_probability) >= rates.KNOWN_PROBABILITY:
            known = rates.Decision(Verdict.KNOWN)
            yield self._outcome(digest, known, None, example, before, before, ())
            return

        compared = older[: compared_facts(policy)]
        held = list(map(math.exp, self._bench.log_probabilities(_own_questions(compared))))
        rehearsed = rehearsed_of(compared, held, (policy.guards or NONE).rehearsed)
        rehearsed = self._base_answers.complete(rehearsed, policy)
        first, *gentler = [
            Attempt(self._bench, example, tried, rehearsed) for tried in rates.attempts(policy)
        ]
        attempt = first
        forgetting = yield from self._attempt(attempt, before, held, older)
        for again in gentler:
            if not attempt.gate_failed:
                break
            self._weights.put_back()
            attempt = again
            forgetting = yield from self._attempt(attempt, before, held, older)
        if not attempt.learned:
            self._weights.put_back()
            attempt = first  # what a fact that resisted reports is what was asked for
        after = self._asked(example)
        assert attempt.decision is not None
        yield self._outcome(digest, attempt.decision, attempt, example, before, after, forgetting)

    def _attempt(
        self, attempt: Attempt, before: Answer, held: Sequence[float], older: Sequence[Example]
    ) -> Generator[Opening | Step, None, list[Answer]]:
        """Takes an attempt's steps, and more of them while an older fact is lost by it.

        Args:
            attempt: not begun yet.
            before: what the model answered.
            held: probabilities of the first older facts before it: those must not be lost.
            older: all older facts.

        Returns:
            The older facts' answers after it, if it ended well.
        """
        self._weights.change()
        while True:
            for step in attempt.steps():
                if len(attempt.taken) == 1:
                    said = attempt.example.base_answer
                    yield Opening(before=before, curve=attempt.curve, base_answer=said)
                yield step
            # Nothing is forgotten by an update that is not made.
            if not attempt.learned or not attempt.pass_gate():
                return []
            forgetting = self._forgetting(older)
            lost = [
                other
                for other, then, now in zip(older, held, forgetting, strict=False)
                if then >= rates.HELD_PROBABILITY > math.exp(now.log_probability)
            ]
            mends = attempt.policy.name in rates.UNTIL_LEARNED
            if not lost or not (mends or attempt.policy.gated):
                return forgetting
            known = {other.fact_id for other in attempt.rehearsed}
            new = [other for other in lost if other.fact_id not in known]
            if not mends or not new or len(attempt.taken) >= attempt.policy.max_steps:
                ids = ", ".join(other.fact_id for other in lost[:3])
                attempt.decision = rates.Decision(
                    Verdict.RESISTED, f"{ids} would be lost for it", Refusal.FACT_LOST
                )
                return []
            more = self._base_answers.complete(new, attempt.policy)
            attempt.rehearsed = [*attempt.rehearsed, *more]

    def _outcome(
        self,
        digest: str,
        decision: rates.Decision,
        attempt: Attempt | None,
        example: Example,
        before: Answer,
        after: Answer,
        forgetting: Sequence[Answer],
    ) -> Outcome:
        steps = tuple(attempt.taken) if attempt else ()
        left_out = attempt.left_out if attempt else 0
        if left_out:
            logger.warning(
                "%d rows of the lesson of %s were too long and left out", left_out, example.fact_id
            )
        held_to_texts = attempt is not None and (attempt.policy.guards or NONE).texts > 0
        transfer = probe(
            self._bench.working,
            self._bench.encoder,
            all_questions(example)[1:],
            always_generate=True,
        )
        measured = [before, after, *transfer, *forgetting]
        if any(math.isnan(answer.log_probability) for answer in measured):
            raise LearningFailedError(f"an answer's probability is NaN after {len(steps)} steps")
        learned = decision.verdict is Verdict.LEARNED
        if learned:
            self._weights.learned_digest = weights_digest(self._weights.working)
        return Outcome(
            verdict=decision.verdict,
            reason=decision.reason,
            refusal=decision.refusal,
            steps=steps,
            before=before,
            after=after,
            transfer=tuple(transfer),
            forgetting=tuple(forgetting),
            digest_before=digest,
            digest_after=self._weights.learned_digest if learned else digest,
            algorithm=BOUNDED if left_out else ALGORITHM,
            curve=attempt.curve if attempt else (),
            base_answer=example.base_answer,
            leak=attempt.leak if attempt else None,
            drift=attempt.text_divergence if attempt else None,
            general_text=self._general_text.digest if held_to_texts else "",
        )

    def _forgetting(self, older: Sequence[Example]) -> list[Answer]:
        """What the working copy says to older facts; asked only where it is not certain."""
        pairs = _own_questions(older)
        found = self._bench.log_probabilities(pairs)
        # With more than half of the probability, greedy generation cannot but yield it.
        unsure = [n for n, log in enumerate(found) if not log > math.log(rates.HELD_PROBABILITY)]
        asked = probe(self._bench.working, self._bench.encoder, [pairs[n] for n in unsure])
        said = dict(zip(unsure, asked, strict=True))
        return [
            said.get(n) or Answer(text=answer.strip(), correct=True, log_probability=log)
            for n, ((_, answer), log) in enumerate(zip(pairs, found, strict=True))
        ]

    def _asked(self, example: Example) -> Answer:
        """What the working copy answers to a fact's own question; by graphs where there are any."""
        by_graphs = self._bench.runner.has_graphs
        [answer] = probe(
            self._bench.working,
            self._bench.encoder,
            _own_questions([example]),
            always_generate=True,
            generate=self._generate if by_graphs else generate_answers,
            score=self._score if by_graphs else score_pairs,
        )
        return answer

    def _score(
        self, model: Any, encoder: Encoder, pairs: Sequence[tuple[str, str]]
    ) -> tuple[list[float], list[bool]]:
        """As `score_pairs`, for the working copy; which answers are greedy it does not say."""
        return self._bench.log_probabilities(pairs), [False] * len(pairs)

    def _generate(
        self, model: Any, encoder: Encoder, questions: Sequence[str], limits: Sequence[int]
    ) -> list[Generated]:
        """As `generate_answers`, one after the other: each is a graph."""
        runner = self._bench.runner
        return [
            answer_alone(model, encoder, question, limit, runner, "working")
            for question, limit in zip(questions, limits, strict=True)
        ]


def all_questions(example: Example) -> list[tuple[str, str]]:
    """The fact's question and its correlated ones, each with the answer."""
    return [(q, example.answer) for q in (example.question, *example.correlated_questions)]


def _own_questions(examples: Sequence[Example]) -> list[tuple[str, str]]:
    """Each fact's own question with its answer."""
    return [(example.question, example.answer) for example in examples]
