"""Places in the middle of a step where something more urgent may be done.

On a CPU a step of an update takes seconds, longer than most answers. So before each layer of a pass
over the model, forwards and backwards, whoever drives the learner is asked whether there is
something else to do. What is done there must leave the model alone; then the step comes out the
same, bit by bit.

On a GPU a step takes milliseconds, and a CUDA graph cannot be interrupted: there are no pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Pause = Callable[[], None]


def no_pause() -> None:
    """Nothing else is to be done."""


def pause_between_layers(model: nn.Module, pause: Pause) -> None:
    """From now on `pause` is called before each layer of the model, in both directions."""
    for layer in layers_of(model):
        layer.register_forward_pre_hook(lambda *_: pause())
        layer.register_forward_hook(lambda _, __, output: _pause_backwards(output, pause))


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers that hidden states go through one after the other: the longest list of modules."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _pause_backwards(output: Any, pause: Pause) -> None:
    hidden = output[0] if isinstance(output, tuple) else output
    if isinstance(hidden, Tensor) and hidden.requires_grad:
        hidden.register_hook(lambda _: pause())
