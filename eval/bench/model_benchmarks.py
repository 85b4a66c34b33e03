"""Benchmarks of a model, and of its device: each alternates with the baseline.

The figures are medians; their floors are what the device allows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import torch

from eval.bench.figure import Figure
from eval.bench.model_under_test import ModelUnderTest, model_under_test
from eval.bench.rates import measure_rates
from eval.bench.roofline import Roofline, measure_roofline
from eval.bench.rounds import as_the_learner
from eval.bench.sample import measure_sample
from eval.bench.teach import measure_teach
from eval.bench.update import measure_update

Measure = Callable[[ModelUnderTest, Roofline, float], list[Figure]]
MEASURES: dict[str, Measure] = {
    "update": measure_update,
    "rates": measure_rates,
    "sample": measure_sample,
    "teach": measure_teach,
}


def measure_model(
    say: Callable[[str], None],
    names: Sequence[str],
    model: str,
    shape: str | None,
    device: str,
    seconds: float,
) -> Iterator[Figure]:
    """Runs benchmarks; yields figures once they are known to be right, the device's last.

    Args:
        say: called with what is measured next.
        names: of `MEASURES`.
        model: a name that `agent serve` knows.
        shape: of random weights that are measured instead.
        device: as in `load`.
        seconds: of rounds, for each.

    Raises:
        AgentError: the model cannot be loaded, or a result is wrong.
    """
    with as_the_learner(), model_under_test(model, shape, device) as tested:
        say(tested.description)
        say("device")
        roofline = measure_roofline(tested.device, tested.description)
        for name in names:
            say(name)
            yield from MEASURES[name](tested, roofline, seconds)
            # Models and graphs refer to each other, and the next benchmark needs the memory.
            gc.collect()
            if tested.device.type == "cuda":
                torch.cuda.empty_cache()
        yield from roofline.figures
