"""What a suite needs from a teacher."""

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
    """The result of teaching one fact. The fields are keys of journals on disk.

    Attributes:
        fact_id: which.
        verdict: `learned`, `known`, `resisted` or `failed`.
        learning_rates: one for each gradient step.
        seconds: wall time of this fact's turn.
        answer: the model's answer to its question right after its turn: R[i, i].
        candidates: learning rates that were scored for it, in abandoned attempts too.
        retaught: ids of older facts that a review found lost and taught again in its turn.
    """

    fact_id: str
    verdict: Verdict
    learning_rates: tuple[float, ...]
    seconds: float
    answer: Answer
    candidates: int = 0
    retaught: tuple[str, ...] = ()


class Teacher(Protocol):
    """A model that is taught facts; to be used from one thread.

    Attributes:
        name: in tables.
        sees_all: it needs all facts at once, so it could not serve clients who teach one by one.
    """

    name: str
    sees_all: bool

    def teach(self, examples: Sequence[Example]) -> Iterator[Taught]:
        """Teaches facts in their order, on top of what was taught before; yields each result."""
        ...

    def probe(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """Answers each question, graded against the expected answer; see `inference/probes.py`."""
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
    """A teacher that can also be saved, and loaded by another process."""

    def save(self, folder: Path) -> None:
        """Writes all that teaching and probing depend on into an empty folder."""
        ...

    def load(self, folder: Path) -> None:
        """Restores what was saved; to be called before anything is taught.

        Raises:
            SnapshotError: what was saved is damaged, or of another model.
        """
        ...
