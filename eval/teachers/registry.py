"""Every teacher, by its name on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from agent.learner.core import Learner
from agent.models.loading import LoadedModel
from agent.teaching.consolidation import ConsolidationSettings
from agent.teaching.rates import DEFAULT_POLICY
from eval.errors import RequestError
from eval.teachers.consolidated import Consolidated
from eval.teachers.locft import LocFt
from eval.teachers.lora import Lora
from eval.teachers.ours import LearnerTeacher
from eval.teachers.paper import Paper
from eval.teachers.protocol import Teacher
from eval.teachers.rehearsal import Rehearsal
from eval.teachers.retrieval import Retrieval
from eval.teachers.until_known import UntilKnown
from memory_store.vocabulary import Policy


def ours(loaded: LoadedModel, *, policy: Policy = DEFAULT_POLICY) -> LearnerTeacher:
    """Our own way, under the service's policy unless another is given."""
    return LearnerTeacher("ours", Learner(loaded), policy)


def ours_unreviewed(loaded: LoadedModel, *, policy: Policy = DEFAULT_POLICY) -> LearnerTeacher:
    """`ours` without reviews: what is lost stays lost, which shows what reviews are worth."""
    return LearnerTeacher("ours-unreviewed", Learner(loaded), policy, reviews=False)


def consolidated(
    loaded: LoadedModel, *, settings: ConsolidationSettings | None = None, seed: int = 0
) -> Consolidated:
    """All facts together, from the base weights."""
    return Consolidated(Learner(loaded), settings, seed=seed)


TEACHERS: dict[str, Callable[..., Teacher]] = {
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
# The others have a fixed way of choosing rates.
WITH_POLICY = ("ours", "ours-unreviewed")


def require_known(names: Iterable[str]) -> None:
    """Checks that there are such teachers.

    Raises:
        RequestError: one is unknown.
    """
    for name in names:
        if name not in TEACHERS:
            raise RequestError(
                "teachers", f"unknown teacher '{name}': use one of {', '.join(TEACHERS)}"
            )


def teacher_with_policy(name: str, loaded: LoadedModel, policy: Policy) -> Teacher:
    """`make_teacher` with a policy, for the teachers that follow one."""
    return make_teacher(name, loaded, **({"policy": policy} if name in WITH_POLICY else {}))


def make_teacher(name: str, loaded: LoadedModel, **settings: Any) -> Teacher:
    """A teacher that has taught nothing yet.

    Args:
        name: one of `TEACHERS`.
        loaded: a model of its own: it will be changed.
        settings: keyword arguments of that teacher.

    Raises:
        RequestError: the name is unknown.
        ConfigError: the teacher cannot work here or with this model.
    """
    require_known([name])
    return TEACHERS[name](loaded, **settings)
