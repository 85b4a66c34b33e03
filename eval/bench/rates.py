"""Benchmark `rates`: an update at the best of sixteen rates, compared with trying each rate."""

from __future__ import annotations

from collections.abc import Sequence

from agent.learner.core import Learner
from agent.learner.training.attempt import Workbench
from agent.learner.training.rate_sweep import rate_profile
from agent.teaching.rates import GRID, KNOWN_PROBABILITY, smallest_reaching
from eval.bench.baseline import CLIP, Baseline, Weights
from eval.bench.figure import Figure, WrongResultError, compare
from eval.bench.model_under_test import ModelUnderTest
from eval.bench.roofline import Roofline, Sizes
from eval.bench.rounds import Way, alternate
from eval.bench.update import Single, single
from memory_store.vocabulary import RatePoint

# Between probabilities, relative to the largest; TF32 reverses some directions.
LARGEST_ERROR = {"cpu": 0.05, "cuda": 0.2}


def measure_rates(tested: ModelUnderTest, roofline: Roofline, seconds: float) -> list[Figure]:
    """Measures rate profiles, including the update.

    Args:
        tested: the model that is taught.
        roofline: of its device.
        seconds: how long to measure, roughly.

    Raises:
        WrongResultError: the probabilities are not those of the weights after each step.
    """
    loaded = tested.load()
    baseline = Baseline(loaded)
    bench = Learner(loaded).workbench
    example = single(bench)
    saved = Weights(bench.trained.values())
    found: dict[str, list[float]] = {}

    def ours() -> None:
        found["ours"] = update_at_best_rate(bench, example)

    def theirs() -> None:
        found["baseline"] = try_each_rate(baseline, example)

    baseline.only(baseline.trained)
    ways = {"ours": Way(ours, saved.restore), "baseline": Way(theirs, baseline.saved.restore)}
    rounds = alternate(ways, bench.device, seconds)
    error = require_same_profile(found["ours"], found["baseline"], tested.device.type)
    sizes = Sizes.of(baseline.model)
    work = sizes.update(*example.size) + sizes.profile(len(GRID), *example.size)
    device = f"{tested.description}, {rounds.number} rounds"
    return [
        compare(
            f"rates, {len(GRID)} compared and the update, beside a step and a pass for each",
            rounds.milliseconds("ours"),
            rounds.milliseconds("baseline"),
            "ms",
            1000 * roofline.seconds(work),
            device,
            device_limit=True,
        ),
        compare(
            "rates, largest difference of a probability beside the largest allowed",
            error,
            LARGEST_ERROR[tested.device.type],
            "of the largest probability",
            device=device,
        ),
    ]


def update_at_best_rate(bench: Workbench, example: Single) -> list[float]:
    """Takes one step as the learner does; returns the probabilities that the rate was chosen by."""
    directions = bench.measure(example.lesson).directions()
    named = dict(zip(bench.trained, directions, strict=True))
    profile = rate_profile(bench.working, example.lesson, named, bench.runner)
    rate = smallest_reaching(profile, KNOWN_PROBABILITY, GRID[-1])
    bench.step(directions, rate)
    return [point.probability for point in profile]


def try_each_rate(baseline: Baseline, example: Single) -> list[float]:
    """The same by brute force: at each rate a step from the old weights, then the probability."""
    baseline.descend(example.batch, baseline.trained, CLIP)
    profile = []
    for rate in GRID:
        baseline.saved.restore()
        baseline.step(baseline.trained, rate)
        profile.append(RatePoint(rate, baseline.probability(example.batch)))
    baseline.saved.restore()
    baseline.step(baseline.trained, smallest_reaching(profile, KNOWN_PROBABILITY, GRID[-1]))
    return [point.probability for point in profile]


def require_same_profile(ours: Sequence[float], theirs: Sequence[float], device: str) -> float:
    """The largest difference of two curves, relative to their largest value.

    Raises:
        WrongResultError: it is too large.
    """
    peak = max(*ours, *theirs)
    error = max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) / peak
    largest = LARGEST_ERROR[device]
    if not error <= largest:  # NaN fails too
        raise WrongResultError(
            f"a rate profile is wrong: a probability is {error:.3g} of the largest away from that"
            f" after such a step (at most {largest:g})"
        )
    return error
