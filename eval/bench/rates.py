"""A fact's update at the best of sixteen rates, beside trying each rate out."""

from __future__ import annotations

from collections.abc import Sequence

from agent.learner.core import Learner
from agent.learner.training.attempt import Workbench
from agent.learner.training.rate_sweep import rate_profile
from agent.teaching.rates import GRID, KNOWN_PROBABILITY, smallest_reaching
from eval.bench.baseline import CLIP, Plain
from eval.bench.figure import Figure, WrongResultError, beside_plain
from eval.bench.model_under_test import Subject
from eval.bench.roofline import Ceilings, Sizes
from eval.bench.rounds import Way, alternate
from eval.bench.update import Restored, Single, single
from memory_store.vocabulary import RatePoint

# Between probabilities, as a part of the largest of them; TF32 turns some directions round.
LARGEST_ERROR = {"cpu": 0.05, "cuda": 0.2}


def profiling(subject: Subject, ceilings: Ceilings, seconds: float) -> list[Figure]:
    """Measures rate profiles, update included.

    Args:
        subject: what is taught.
        ceilings: of its device.
        seconds: to take, about.

    Raises:
        WrongResultError: the probabilities are not those of the weights after each step.
    """
    loaded = subject.load()
    plain = Plain(loaded)
    bench = Learner(loaded).workbench
    example = single(bench)
    restored = Restored(bench)
    found: dict[str, list[float]] = {}

    def ours() -> None:
        found["ours"] = update_at_best_rate(bench, example)

    def plainly() -> None:
        found["plain"] = try_each_rate(plain, example)

    plain.only(plain.trained)
    ways = {"ours": Way(ours, restored.again), "plain": Way(plainly, plain.restore)}
    rounds = alternate(ways, bench.device, seconds)
    error = require_same_profile(found["ours"], found["plain"], subject.device.type)
    sizes = Sizes.of(plain.model)
    work = sizes.update(*example.size) + sizes.profile(len(GRID), *example.size)
    told = f"{subject.told}, {rounds.number} rounds"
    return [
        beside_plain(
            f"rates, {len(GRID)} compared and the update, beside a step and a pass for each",
            rounds.milliseconds("ours"),
            rounds.milliseconds("plain"),
            "ms",
            1000 * ceilings.seconds(work),
            told,
        ),
        beside_plain(
            "rates, largest difference of a probability beside the largest allowed",
            error,
            LARGEST_ERROR[subject.device.type],
            "of the largest probability",
            None,
            told,
        ),
    ]


def update_at_best_rate(bench: Workbench, example: Single) -> list[float]:
    """One step as the learner takes it; the probabilities that it was chosen by."""
    directions = bench.measure(example.lesson).directions()
    named = dict(zip(bench.trained, directions, strict=True))
    profile = rate_profile(bench.working, example.lesson, named, bench.runner)
    rate = smallest_reaching(profile, KNOWN_PROBABILITY, GRID[-1])
    bench.step(directions, rate)
    return [point.probability for point in profile]


def try_each_rate(plain: Plain, example: Single) -> list[float]:
    """The same: from the old weights at each rate, and a look at the answer."""
    plain.descend(example.batch, plain.trained, CLIP)
    profile = []
    for rate in GRID:
        plain.restore()
        plain.step(plain.trained, rate)
        profile.append(RatePoint(rate, plain.probability(example.batch)))
    plain.restore()
    plain.step(plain.trained, smallest_reaching(profile, KNOWN_PROBABILITY, GRID[-1]))
    return [point.probability for point in profile]


def require_same_profile(ours: Sequence[float], plain: Sequence[float], device: str) -> float:
    """The largest difference of two curves, as a part of their largest value.

    Raises:
        WrongResultError: it is too large.
    """
    peak = max(*ours, *plain)
    error = max(abs(one - other) for one, other in zip(ours, plain, strict=True)) / peak
    largest = LARGEST_ERROR[device]
    if not error <= largest:  # NaN fails too
        raise WrongResultError(
            f"a rate profile is wrong: a probability is {error:.3g} of the largest away from that"
            f" after such a step (at most {largest:g})"
        )
    return error
