"""Every way of teaching, by the name that the command line knows it by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.errors import ConfigError
from agent.learner.core import Learner
from agent.learner.training.consolidation import ConsolidationSettings
from agent.models.loading import LoadedModel
from agent.teaching.rates import DEFAULT_POLICY
from eval.suites.editing.scoring import ScoringTeacher
from eval.teachers.consolidated import Consolidated
from eval.teachers.locft import LocFt
from eval.teachers.lora import Lora
from eval.teachers.ours import LearnerTeacher
from eval.teachers.paper import Paper
from eval.teachers.rehearsal import Rehearsal
from eval.teachers.retrieval import Retrieval
from eval.teachers.until_known import UntilKnown
from memory_store.vocabulary import Policy


def ours(loaded: LoadedModel, *, policy: Policy = DEFAULT_POLICY) -> LearnerTeacher:
    """Our own way, under the service's policy unless another is given."""
    return LearnerTeacher("ours", Learner(loaded), policy)


def ours_unreviewed(loaded: LoadedModel, *, policy: Policy = DEFAULT_POLICY) -> LearnerTeacher:
    """The same, but what is lost stays lost: shows what reviews are worth."""
    return LearnerTeacher("ours-unreviewed", Learner(loaded), policy, reviews=False)


def consolidated(
    loaded: LoadedModel, *, settings: ConsolidationSettings | None = None, seed: int = 0
) -> Consolidated:
    """All facts together, from the base weights."""
    return Consolidated(Learner(loaded), settings, seed=seed)


TEACHERS: dict[str, Callable[..., ScoringTeacher]] = {
    "ours": ours,
    "ours-unreviewed": ours_unreviewed,
    "consolidated": consolidated,
    "paper": Paper,
    "until-known": UntilKnown,
    "rehearsal": Rehearsal,
    "lora": Lora,
    "locft": LocFt,
    "retrieval": Retrieval,
}


def make_teacher(name: str, loaded: LoadedModel, **settings: Any) -> ScoringTeacher:
    """A teacher that has taught nothing yet.

    Args:
        name: one of `TEACHERS`.
        loaded: a model of its own: it will be changed.
        settings: keyword arguments of that teacher.

    Raises:
        ConfigError: the name is unknown, or the teacher cannot work here or with this model.
    """
    if name not in TEACHERS:
        raise ConfigError(f"unknown teacher '{name}': use one of {', '.join(TEACHERS)}")
    return TEACHERS[name](loaded, **settings)
