"""What the base model answers: neighbors and ordinary questions are held to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agent.learner.engine.cuda_graphs import Runner
from agent.learner.engine.preemption import Pause
from agent.learner.inference.encoding import Encoder
from agent.learner.inference.generation import answer_alone, generate_answers
from agent.learner.training.attempt import needs_base_answers
from agent.teaching.guard_presets import NONE
from agent.teaching.types import Example
from memory_store.vocabulary import Policy

# Tokens of an answer that are looked at; neighbors are held to fewer.
ANSWER_TOKENS = 16
# Questions that are answered in one batch.
QUESTIONS_AT_ONCE = 128


class BaseAnswers:
    """Asks the base model, and keeps the answers for the next update that needs them.

    Args:
        model: the base checkpoint.
        encoder: its tokenizer.
        runner: of its forward passes.
        room: how many tokens the answer to a question can have.
        pause: called in the middle of long work.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        runner: Runner,
        room: Callable[[str], int],
        pause: Pause,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._runner = runner
        self._room = room
        self._pause = pause
        self._kept: dict[str, str] = {}  # by question

    def forget_texts(self) -> None:
        """Drops the answers; they are the same when asked for again."""
        self._kept.clear()

    def complete(self, examples: Iterable[Example], policy: Policy) -> list[Example]:
        """The examples as lessons under a policy need them, each with its base answer.

        Raises:
            InvalidFactError: a question leaves no room for an answer in the model's context.
        """
        if not needs_base_answers(policy.guards or NONE):
            return list(examples)
        return [self._complete(example) for example in examples]

    def _complete(self, example: Example) -> Example:
        if example.base_answer is not None:
            return example
        answer = self._kept.get(example.question)
        if answer is None:
            # Alone, not in a batch: padding could tip a close choice, and the lesson with it.
            limit = min(ANSWER_TOKENS, self._room(example.question))
            answer = self._kept[example.question] = self._alone(example.question, limit)
        return dataclasses.replace(example, base_answer=answer)

    def _alone(self, question: str, limit: int) -> str:
        if self._runner.has_graphs:
            said = answer_alone(self._model, self._encoder, question, limit, self._runner, "base")
            return said.text
        return generate_answers(self._model, self._encoder, [question], [limit])[0].text

    def of_many(self, questions: Sequence[str]) -> list[str]:
        """The answer to each question, generated in batches, for a consolidation."""
        found = []
        for start in range(0, len(questions), QUESTIONS_AT_ONCE):
            batch = questions[start : start + QUESTIONS_AT_ONCE]
            limits = [ANSWER_TOKENS] * len(batch)
            found += generate_answers(self._model, self._encoder, batch, limits, pause=self._pause)
        return [answer.text for answer in found]
