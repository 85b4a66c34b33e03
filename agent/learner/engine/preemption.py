"""Preemption: more urgent work in the middle of a step.

On a CPU a step takes seconds, longer than most answers. So before each layer of a forward and a
backward pass, a callback may do something else. It must not change the model; then the step has the
same result, bit by bit.

On a GPU a step takes milliseconds, and a CUDA graph cannot be interrupted: there are no pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Pause = Callable[[], None]


def no_pause() -> None:
    """Does nothing."""


def pause_between_layers(model: nn.Module, pause: Pause) -> None:
    """Has `pause` called before each layer of the model, in forward and backward passes."""
    for layer in layers_of(model):
        layer.register_forward_pre_hook(lambda *_: pause())
        layer.register_forward_hook(lambda _, __, output: _pause_backwards(output, pause))


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The model's layers in order: the longest list among its modules."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _pause_backwards(output: Any, pause: Pause) -> None:
    hidden = output[0] if isinstance(output, tuple) else output
    if isinstance(hidden, Tensor) and hidden.requires_grad:
        hidden.register_hook(lambda _: pause())
