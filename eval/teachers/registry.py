"""Every way of teaching, by the name that the command line knows it by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.errors import ConfigError
from agent.learning.learner import Learner
from agent.learning.model import LoadedModel
from agent.learning.rates import DEFAULT_POLICY
from eval.teachers.ours import LearnerTeacher
from eval.teachers.protocol import Teacher
from memory_store.records import Policy


def ours(loaded: LoadedModel, *, policy: Policy = DEFAULT_POLICY) -> LearnerTeacher:
    """Our own way, under the service's policy unless another is given."""
    return LearnerTeacher("ours", Learner(loaded), policy)


TEACHERS: dict[str, Callable[..., Teacher]] = {"ours": ours}


def make_teacher(name: str, loaded: LoadedModel, **settings: Any) -> Teacher:
    """A teacher that has taught nothing yet.

    Args:
        name: one of `TEACHERS`.
        loaded: a model of its own: it will be changed.
        settings: keyword arguments of that teacher.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in TEACHERS:
        raise ConfigError(f"unknown teacher '{name}': use one of {', '.join(TEACHERS)}")
    return TEACHERS[name](loaded, **settings)
