"""What the suites need of a way to teach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from transformers import PreTrainedModel

from agent.learner.inference.encoding import Encoder
from agent.teaching.types import Answer, Example
from memory_store.vocabulary import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What teaching one fact took.

    Attributes:
        fact_id: which.
        verdict: `learned`, `known`, `resisted` or `failed`.
        learning_rates: one for each gradient step.
        seconds: wall time of this fact's turn.
        answer: what the model said to its question right after its turn: R[i, i].
        candidates: learning rates that were scored for it, in attempts that were given up too.
        retaught: ids of older facts that had been lost and were taught again in its turn.
    """

    fact_id: str
    verdict: Verdict
    learning_rates: tuple[float, ...]
    seconds: float
    answer: Answer
    candidates: int = 0
    retaught: tuple[str, ...] = ()


class Teacher(Protocol):
    """A model that is taught facts. Whoever holds one drives it from one thread.

    Attributes:
        name: in tables.
        sees_all: it needs all facts at once, so it cannot serve a client who brings one.
    """

    name: str
    sees_all: bool

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """Teaches facts in their order, on top of what was taught before; yields each result."""
        ...

    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """The answer to each question, graded against the expected one; see `probes.probe`."""
        ...

    @property
    def encoder(self) -> Encoder:
        """The tokenizer, and what this teacher puts before a question or a text."""
        ...

    @property
    def model(self) -> PreTrainedModel:
        """The weights as they are now, for perplexity."""
        ...


@runtime_checkable
class SavingTeacher(Protocol):
    """What a teacher may offer besides: to go on in another process from where it was."""

    def save(self, folder: Path) -> None:
        """Writes all that teaching and probing depend on into an empty folder."""
        ...

    def load(self, folder: Path) -> None:
        """Goes on from there; to be called before anything is taught.

        Raises:
            SnapshotError: what was saved is damaged, or of another model.
        """
        ...
