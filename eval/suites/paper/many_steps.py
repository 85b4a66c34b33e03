"""Experiment 4, figure 3: fifty steps on the batch of ten.

The scripts train another set of facts here, of which only the names are known. So these are the ten
facts of the other experiments.
"""

from __future__ import annotations

from collections.abc import Iterator

from eval.suites.paper.courses import plan_courses
from eval.suites.paper.protocol import Protocol
from eval.suites.paper.trials import Subject, Trial

NUMBER = 4
TITLE = "a batch of ten, fifty steps"


def plan(subject: Subject, protocol: Protocol) -> Iterator[Trial]:
    """The base model, then a training at each rate."""
    numbers = protocol.many_steps
    return plan_courses(
        subject, numbers.learning_rates, numbers.asked_after, numbers.samples, numbers.sampling
    )
