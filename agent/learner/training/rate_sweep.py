"""The rate sweep: scores one step at many learning rates by a single forward pass.

The direction of a first AdamW step does not depend on the rate, so all candidates share one
backward pass. And since x(W - lr D) = xW - lr (xD), one forward pass scores all candidates without
changing the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.learner.engine.cuda_graphs import ROWS, Runner
from agent.learner.inference.logits import logits_at
from agent.learner.training.lesson import Lesson
from agent.teaching.rates import GRID
from memory_store.vocabulary import RatePoint

# Cached by model: the check takes a fifth of the time of a sweep.
_LINEAR: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def rate_profile(
    model: Any,
    lesson: Lesson,
    directions: Mapping[str, Tensor],
    runner: Runner,
    grid: Sequence[float] = GRID,
) -> list[RatePoint]:
    """The probability of the fact's answer after a step at each rate; the weights do not change.

    Args:
        model: a causal LM.
        lesson: of the fact.
        directions: of the step, by name of the trained weight.
        runner: runs the forward pass.
        grid: rates, ascending.
    """
    if _all_linear(model, directions):
        found = _at_once(model, lesson, directions, runner, grid)
    else:
        found = _one_by_one(model, lesson, directions, grid)
    return [RatePoint(rate, probability) for rate, probability in zip(grid, found, strict=True)]


@contextmanager
def stepped(model: Any, directions: Mapping[str, Tensor], rates: Tensor) -> Iterator[None]:
    """Applies the step at rate n to part n of each batch, for `len(rates)` equal parts."""
    with ExitStack() as undone:
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in directions):
            module = model.get_submodule(owner)
            # An attribute of the instance hides the class's method until it is deleted.
            module.forward = _forward(
                module,
                directions.get(f"{owner}.weight"),
                directions.get(f"{owner}.bias"),
                rates,
            )
            undone.callback(delattr, module, "forward")
        yield


def _at_once(
    model: Any,
    lesson: Lesson,
    directions: Mapping[str, Tensor],
    runner: Runner,
    grid: Sequence[float],
) -> list[float]:
    # Few sizes, since each has a graph. The results of padding are dropped.
    size = runner.rounded(len(grid), ROWS)
    filled = [*grid, *[grid[-1]] * (size - len(grid))]
    rates = torch.tensor(filled, device=next(iter(directions.values())).device)
    asked = lesson.own_question(size)

    def probabilities(rates: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        with stepped(model, dict(zip(directions, tensors[4:], strict=True)), rates):
            return (_probabilities(model, *tensors[:4]),)

    inputs = (rates, *asked, *directions.values())
    found: list[float] = runner.run("rate profile", probabilities, inputs)[0].tolist()
    return found[: len(grid)]


@torch.no_grad()
def _one_by_one(
    model: Any, lesson: Lesson, directions: Mapping[str, Tensor], grid: Sequence[float]
) -> list[float]:
    """For models with other kinds of matrices, such as GPT-2: one forward pass for each rate."""
    parameters = {name: model.get_parameter(name) for name in directions}
    before = {name: parameter.clone() for name, parameter in parameters.items()}
    found: list[float] = []
    for rate in grid:
        for name, parameter in parameters.items():
            torch.add(before[name], directions[name], alpha=-rate, out=parameter)
        found += _probabilities(model, *lesson.own_question(1)).tolist()
    for name, parameter in parameters.items():
        parameter.copy_(before[name])
    return found


@torch.no_grad()
def _probabilities(
    model: Any, ids: Tensor, rows: Tensor, columns: Tensor, counted: Tensor
) -> Tensor:
    """[copies] probability of the whole answer; arguments are those of `Lesson.own_question`."""
    logits = logits_at(model, ids, rows, columns)  # [copies * P, V]
    nats = F.cross_entropy(logits, ids[rows, columns + 1], reduction="none")
    return (-(nats.view(ids.shape[0], -1) * counted).sum(1)).exp()


def _all_linear(model: Any, names: Iterable[str]) -> bool:
    """Whether all trained weights of the model belong to `nn.Linear`."""
    if model not in _LINEAR:
        modules = dict(model.named_modules())
        owners = (modules[name.rpartition(".")[0]] for name in names)
        _LINEAR[model] = all(isinstance(owner, nn.Linear) for owner in owners)
    return _LINEAR[model]


def _forward(
    module: nn.Linear, weight: Tensor | None, bias: Tensor | None, rates: Tensor
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        step = 0 if weight is None else F.linear(x, weight)
        step = step if bias is None else step + bias
        of_rows = rates.repeat_interleave(x.shape[0] // len(rates))  # [B]: rate of each row
        of_rows = of_rows.view(-1, *[1] * (x.dim() - 1))  # [B, 1, 1]
        return F.linear(x, module.weight, module.bias) - of_rows * step

    return forward
