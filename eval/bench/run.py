"""Benchmarks of a model, and of the device that it is on: each beside the plain way.

Ours and the plain way take turns; medians are told, and the floor of each figure, in its unit.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import torch

from eval.bench.figure import Figure
from eval.bench.model_under_test import Subject, subject
from eval.bench.rates import profiling
from eval.bench.roofline import Ceilings, measured_ceilings
from eval.bench.rounds import as_the_learner
from eval.bench.sample import sampling
from eval.bench.teach import teaching
from eval.bench.update import updating

Measure = Callable[[Subject, Ceilings, float], list[Figure]]
MEASURES: dict[str, Measure] = {
    "update": updating,
    "rates": profiling,
    "sample": sampling,
    "teach": teaching,
}


def measuring(
    say: Callable[[str], None],
    names: Sequence[str],
    model: str,
    shape: str | None,
    device: str,
    seconds: float,
) -> Iterator[Figure]:
    """Measures what is named; yields figures once they are known to be right, the device's last.

    Args:
        say: told what is being done.
        names: of `MEASURES`.
        model: a name that `agent serve` knows.
        shape: of random weights to be measured instead.
        device: as in `load`.
        seconds: of rounds, for each.

    Raises:
        AgentError: the model cannot be had, or a result is wrong.
    """
    with as_the_learner(), subject(model, shape, device) as measured:
        say(measured.told)
        say("device")
        ceilings = measured_ceilings(measured.device, measured.told)
        for name in names:
            say(name)
            yield from MEASURES[name](measured, ceilings, seconds)
            # Models and graphs refer to each other, and the next one needs the memory.
            gc.collect()
            if measured.device.type == "cuda":
                torch.cuda.empty_cache()
        yield from ceilings.figures
