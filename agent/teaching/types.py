"""Inputs and outputs of the learner, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from memory_store.vocabulary import (
    Fact,
    NewProbe,
    ProbeKind,
    RatePoint,
    Refusal,
    Step,
    Update,
    Verdict,
)

# The folder of a memory's general text in the data folder, and the key of the text's digest in the
# environment of a ledger row.
GENERAL_TEXT = "general-text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A fact as the learner needs it."""

    fact_id: str
    question: str
    answer: str
    correlated_questions: tuple[str, ...] = ()
    base_answer: str | None = None  # the base model's answer; None: ask the base model

    @classmethod
    def of(cls, fact: Fact) -> Self:
        """What the learner needs of a stored fact."""
        return cls(
            fact_id=fact.id,
            question=fact.question,
            answer=fact.answer,
            correlated_questions=fact.correlated_questions,
            base_answer=fact.learning.base_answer if fact.learning else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One generated answer.

    Attributes:
        text: up to the terminator or the end of the line, trimmed.
        finished: whether it ended before the limit of tokens.
    """

    text: str
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The model's answer to a question, and its probability of the expected answer.

    Attributes:
        text: of free greedy generation, trimmed.
        correct: whether the generation is finished and equals the expected answer.
        log_probability: natural logarithm, of exactly the expected answer and the terminator.
        samples: number of texts that were also sampled; 0 if none were.
        correct_samples: number of sampled texts that contain the expected answer.
    """

    text: str
    correct: bool
    log_probability: float
    samples: int = 0
    correct_samples: int = 0

    def as_probe(self, kind: ProbeKind, about: Example, question: str) -> NewProbe:
        """The row to be stored for this answer to a question about a fact."""
        return NewProbe(
            kind=kind,
            fact_id=about.fact_id,
            question=question,
            expected_answer=about.answer,
            answer=self.text,
            correct=self.correct,
            log_probability=self.log_probability,
            samples=self.samples,
            correct_samples=self.correct_samples,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is known of an attempt after its first step, for live display.

    Attributes:
        before: as in `Outcome`.
        curve: as in `Outcome`.
        base_answer: as in `Outcome`.
    """

    before: Answer
    curve: tuple[RatePoint, ...] = ()
    base_answer: str | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A guard that an update violates; the message says by how much."""

    refusal: Refusal
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of learning one fact.

    Attributes:
        verdict: how it ended; never `failed`.
        reason: why the fact resisted, for people; otherwise empty.
        refusal: why the fact resisted, for programs; otherwise None.
        steps: gradient steps in order.
        before: answer to the fact's question before the first step.
        after: answer to it after the last step.
        transfer: one answer for each correlated question, after the last step.
        forgetting: one answer for each companion, after the last step.
        digest_before: digest of the weights before.
        digest_after: digest of the weights after.
        algorithm: name and version of the procedure that made the steps.
        curve: the first step's result at each rate that was scored; empty if none were.
        base_answer: the base model's answer to the question; None if it was not needed.
        leak: after the last step, the largest probability of the answer to a control question.
        drift: after the last step, the largest divergence of a general text, nats a token (not a
            difference in a replay: the field keeps its released name). `leak` and `drift` are None
            if the update has no such rows.
        general_text: digest of the general text that guarded the update; empty without one.
    """

    verdict: Verdict
    reason: str = ""
    refusal: Refusal | None = None
    steps: tuple[Step, ...]
    before: Answer
    after: Answer
    transfer: tuple[Answer, ...]
    forgetting: tuple[Answer, ...]
    digest_before: str
    digest_after: str
    algorithm: str
    curve: tuple[RatePoint, ...] = ()
    base_answer: str | None = None
    leak: float | None = None
    drift: float | None = None
    general_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerDescription:
    """The model that a learner has loaded.

    Attributes:
        device: `cpu`, or the name of the GPU.
        parameters: number of weights.
        model_version: ledger position of the served weights.
        base_digest: digest of the base checkpoint's weights.
        tokenizer: the tokenizer as the text of a `tokenizer.json`.
        max_tokens: longest prompt and answer together.
        environment: software and hardware on which floating-point results depend.
        algorithm: name and version of the procedure that makes updates. Ledger rows of another
            algorithm cannot be replayed.
    """

    device: str
    parameters: int
    model_version: int
    base_digest: str
    tokenizer: str
    max_tokens: int
    environment: dict[str, str]
    algorithm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedUpdate:
    """A ledger row with the texts that its steps need."""

    update: Update
    example: Example
    rehearsed: tuple[Example, ...]
