"""The rate profile: what one step would lead to at each of many rates, in one forward pass.

A first AdamW step goes in a direction that does not depend on the rate, so all candidates share
one backward pass; and since x(W - lr D) = xW - lr (xD), one forward pass scores them all, without
the weights being touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.learning.lesson import Lesson
from agent.learning.rates import GRID
from memory_store.records import RatePoint


def rate_profile(
    model: Any, lesson: Lesson, directions: Mapping[str, Tensor], grid: Sequence[float] = GRID
) -> list[RatePoint]:
    """The probability of the fact's answer after a step at each rate; the weights stay as they are.

    Args:
        model: a causal LM.
        lesson: the fact is in it.
        directions: of the step, by the names of the trained weights.
        grid: rates, ascending.
    """
    if _all_linear(model, directions):
        with stepped(model, directions, grid):
            found = lesson.asked(model, len(grid))
    else:
        found = _one_by_one(model, lesson, directions, grid)
    return [RatePoint(rate, probability) for rate, probability in zip(grid, found, strict=True)]


@contextmanager
def stepped(model: Any, directions: Mapping[str, Tensor], grid: Sequence[float]) -> Iterator[None]:
    """Makes a batch of `len(grid)` equal parts see the weights after a step at each rate."""
    with ExitStack() as undone:
        rates = torch.tensor(grid, device=next(iter(directions.values())).device)
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in directions):
            module = model.get_submodule(owner)
            # An attribute of the object hides the method of its class; deleting it undoes that.
            module.forward = _forward(
                module,
                directions.get(f"{owner}.weight"),
                directions.get(f"{owner}.bias"),
                rates,
            )
            undone.callback(delattr, module, "forward")
        yield


def _all_linear(model: Any, names: Iterable[str]) -> bool:
    return all(isinstance(model.get_submodule(n.rpartition(".")[0]), nn.Linear) for n in names)


@torch.no_grad()
def _one_by_one(
    model: Any, lesson: Lesson, directions: Mapping[str, Tensor], grid: Sequence[float]
) -> list[float]:
    """For models with matrices of another kind, such as GPT-2: a copy and a pass for each rate."""
    parameters = {name: model.get_parameter(name) for name in directions}
    before = {name: parameter.clone() for name, parameter in parameters.items()}
    found = []
    for rate in grid:
        for name, parameter in parameters.items():
            torch.add(before[name], directions[name], alpha=-rate, out=parameter)
        found += lesson.asked(model, 1)
    for name, parameter in parameters.items():
        parameter.copy_(before[name])
    return found


def _forward(
    module: nn.Linear, weight: Tensor | None, bias: Tensor | None, rates: Tensor
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        step = 0 if weight is None else F.linear(x, weight)
        step = step if bias is None else step + bias
        # [B, 1, 1]: the rate of each row of the batch.
        of_rows = rates.repeat_interleave(x.shape[0] // len(rates))
        of_rows = of_rows.view(-1, *[1] * (x.dim() - 1))
        return F.linear(x, module.weight, module.bias) - of_rows * step

    return forward
