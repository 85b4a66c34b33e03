"""Admits questions to the learner: limits their number, and isolates those that may kill it.

Questions share a lock (`LearnerView.questions`). A question that may have killed a learner is asked
alone, so that another death shows whether it was the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from agent.errors import LearnerDiedError, LearnerUnavailableError, TooManyQuestionsError
from agent.server.api.suspects import Suspects
from agent.server.shared_lock import SharedLock
from agent.teaching.types import Answer, Example, Generated


class AskableLearner(Protocol):
    """A learner that answers questions; see `LearnerClient`."""

    def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Pieces of the answer and last the whole."""
        ...

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        """Log-probability, tokens, model version."""
        ...

    async def probe(self, example: Example, *, held: bool = True) -> tuple[list[Answer], int]:
        """Answers to the fact's questions, and the version. `held`: whether it should know them."""
        ...


class CurrentLearner(Protocol):
    """The learner that is asked, and the lock that questions share."""

    async def current(self) -> AskableLearner:
        """The one to be asked, once it serves all that is in the ledger now."""
        ...

    @property
    def learner(self) -> AskableLearner | None:
        """The one that can be asked now, if there is one."""
        ...

    @property
    def questions(self) -> SharedLock:
        """The lock that all questions share; see `LearningLoop`."""
        ...


class QuestionGate:
    """Admits questions to the learner.

    Args:
        view: the current learner.
        max_questions: the most questions that wait or are being answered at the same time.
    """

    def __init__(self, view: CurrentLearner, max_questions: int) -> None:
        self._view = view
        self._max_questions = max_questions
        self._suspects = Suspects()
        self._questions = 0

    async def ask(
        self, question: str, max_new_tokens: int
    ) -> AsyncGenerator[tuple[str | Generated, int]]:
        """Yields pieces of the answer and then the whole, each with the model version.

        Pieces are buffered, so that the learner never waits for a slow reader.

        Raises:
            TooManyQuestionsError: too many questions wait.
            DeadlyQuestionError: the question seems to kill learners.
            LearnerDiedError: the learner died while it was answering.
            LearnerUnavailableError: there is no learner now.
        """
        pieces: asyncio.Queue[tuple[str | Generated, int] | None] = asyncio.Queue()

        async def answer() -> None:
            try:
                async with self._admitted("ask", question) as learner:
                    async for piece in learner.ask(question, max_new_tokens):
                        pieces.put_nowait(piece)
            finally:
                pieces.put_nowait(None)

        answering = asyncio.create_task(answer())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await answering
        finally:
            # The learner stops when the client is gone.
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def score(self, question: str, answer: str) -> tuple[float, int, int]:
        """Returns log-probability, tokens and model version; raises the errors of `ask`."""
        async with self._admitted("score", question, answer) as learner:
            return await learner.score(question, answer)

    async def probe(self, example: Example, *, held: bool) -> tuple[list[Answer], int]:
        """Returns answers to a fact's questions, and the version; raises the errors of `ask`."""
        async with self._admitted("probe", example.fact_id) as learner:
            return await learner.probe(example, held=held)

    @asynccontextmanager
    async def _admitted(self, *texts: str) -> AsyncIterator[AskableLearner]:
        """Yields the learner, once it may be asked this."""
        if self._questions >= self._max_questions:
            raise TooManyQuestionsError(
                f"{self._questions} questions wait for an answer, which is the limit: try again"
                " in a moment"
            )
        alone = self._suspects.must_be_alone(*texts)
        self._questions += 1
        try:
            lock = self._view.questions
            async with lock.exclusive() if alone else lock.shared():
                learner = await self._view.current()
                try:
                    yield learner
                except LearnerUnavailableError as error:
                    if self._view.learner not in (None, learner):
                        raise  # another learner has replaced it; it did not die
                    self._suspects.learner_died(*texts)
                    raise LearnerDiedError(
                        f"the learner died while it was answering: {error}. Ask again if need be:"
                        " this question is answered alone then"
                    ) from error
            if alone:
                self._suspects.answered(*texts)
        finally:
            self._questions -= 1
