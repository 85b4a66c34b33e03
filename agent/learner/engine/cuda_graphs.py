"""CUDA graphs: the kernels of a computation recorded once and launched all together.

For one example, launching thousands of small kernels takes longer than running them: a step of a
model with 30 layers spends three quarters of its time in launches. A graph runs on the same
addresses each time, so inputs are copied into place, and outputs are good until the next run of
the same function.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Function = Callable[..., tuple[Tensor, ...]]
# Graphs that are kept; those of one function share the memory of the largest.
KEPT = 48
# Sizes are rounded up to these on a GPU, so that few shapes occur; smaller ones to a power of 2.
ROWS, WIDTH, PLACES, TOKENS = 8, 16, 128, 256
# The least of such powers.
FEWEST = {ROWS: 1, WIDTH: 16, PLACES: 16, TOKENS: 32}


@dataclass(frozen=True, slots=True)
class _Graph:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graph: torch.cuda.CUDAGraph


class Runner:
    """Runs functions of tensors: by graphs on a GPU, plainly on a CPU.

    Not thread-safe: one thread drives the device.

    Args:
        device: where.
        packs: whether the models that functions use take texts end to end, see `packs_texts`.
        graphs: not if False, wherever it is: for what runs once.
    """

    def __init__(self, device: torch.device, *, packs: bool = False, graphs: bool = True) -> None:
        self.packs = packs
        self._graphs: OrderedDict[tuple[object, ...], _Graph] = OrderedDict()
        self._captures = graphs and device.type == "cuda"
        self._pools: dict[str, Any] = {}
        self._buffers: dict[tuple[object, ...], Tensor] = {}

    @property
    def has_graphs(self) -> bool:
        """Whether a run is cheap whatever it does, and outputs are short-lived."""
        return self._captures

    def rounded(self, size: int, unit: int) -> int:
        """`size` as it is on a CPU, where padding would be computed in vain."""
        if not self._captures:
            return size
        if 0 < size < unit:
            return int(max(FEWEST[unit], 1 << (size - 1).bit_length()))
        return -(-size // unit) * unit

    def tries_out(self, name: str, inputs: Sequence[Tensor]) -> bool:
        """Whether a run with inputs of these shapes would call the function more than once."""
        return self._captures and _key(name, inputs) not in self._graphs

    def run(self, name: str, function: Function, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`function(*inputs)`.

        Args:
            name: of the function and of all that it uses beside its inputs, whose addresses must
                not change (weights that are updated in place do not).
            function: without data-dependent control flow or synchronisation. The first time it is
                called more than once, see `tries_out`.
            inputs: on the device.

        Returns:
            Its outputs; on a GPU they are overwritten by the next run of that name.
        """
        if not self._captures:
            return function(*inputs)
        key = _key(name, inputs)
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._captured(name, function, inputs)
            if len(self._graphs) > KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        _copy_all(inputs, graph.inputs)
        graph.graph.replay()
        return graph.outputs

    def clear(self) -> None:
        """Gives up all graphs and their memory; they are made anew when they are wanted."""
        self._graphs.clear()
        self._pools.clear()
        self._buffers.clear()

    def _buffer(self, name: str, place: int, like: Tensor) -> Tensor:
        """Where graphs of a function find an input: those of one shape share it."""
        key = (name, place, tuple(like.shape), like.dtype)
        if key not in self._buffers:
            # Not an inference tensor, whoever comes first: others may write to it later.
            with torch.inference_mode(False):
                self._buffers[key] = torch.empty_like(like)
        return self._buffers[key].copy_(like)

    def _captured(self, name: str, function: Function, inputs: Sequence[Tensor]) -> _Graph:
        first = name not in self._pools
        if first:
            self._pools[name] = torch.cuda.graph_pool_handle()
        static = tuple(self._buffer(name, place, like) for place, like in enumerate(inputs))
        # Outside of the capture first, on a stream of its own: libraries set themselves up, and
        # kernels are compiled for these shapes. Twice for the first graph, as PyTorch asks.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2 if first else 1):
                function(*static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pools[name]):
            outputs = function(*static)
        return _Graph(static, outputs, graph)


def _copy_all(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    """Those of one type at once: many a copy takes less than its launch."""
    for dtype in {tensor.dtype for tensor in source}:
        pairs = [pair for pair in zip(target, source, strict=True) if pair[1].dtype == dtype]
        to, from_ = zip(*pairs, strict=True)
        torch._foreach_copy_(list(to), list(from_))


def _key(name: str, inputs: Sequence[Tensor]) -> tuple[object, ...]:
    return (name, *((tuple(tensor.shape), tensor.dtype) for tensor in inputs))
