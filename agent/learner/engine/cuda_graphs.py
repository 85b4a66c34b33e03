"""CUDA graphs: the kernels of a computation are recorded once and then launched together.

For a single example, launching thousands of small kernels takes longer than running them: a step of
a model with 30 layers spends three quarters of its time on launches. A graph always uses the same
addresses. So inputs are copied into place, and outputs are valid until the next run of the same
function.
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
# Number of graphs to keep; all graphs of one function share the memory of the largest.
KEPT = 48
# On a GPU, sizes are rounded up to multiples of these, so that few shapes occur. Sizes below are
# rounded up to a power of 2.
ROWS, WIDTH, PLACES, TOKENS = 8, 16, 128, 256
# The smallest such power.
FEWEST = {ROWS: 1, WIDTH: 16, PLACES: 16, TOKENS: 32}


@dataclass(frozen=True, slots=True)
class _Graph:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graph: torch.cuda.CUDAGraph


class Runner:
    """Runs functions of tensors: as CUDA graphs on a GPU, by plain calls on a CPU.

    Not thread-safe: one thread drives the device.

    Args:
        device: of the tensors.
        packs: whether the model takes texts laid end to end, see `packs_texts`.
        graphs: False for plain calls on a GPU too, for functions that run once.
    """

    def __init__(self, device: torch.device, *, packs: bool = False, graphs: bool = True) -> None:
        self.packs = packs
        self._graphs: OrderedDict[tuple[object, ...], _Graph] = OrderedDict()
        self._captures = graphs and device.type == "cuda"
        self._pools: dict[str, Any] = {}
        self._buffers: dict[tuple[object, ...], Tensor] = {}

    @property
    def has_graphs(self) -> bool:
        """Whether runs are graphs: cheap to launch, and outputs are overwritten by the next run."""
        return self._captures

    def rounded(self, size: int, unit: int) -> int:
        """The size to pad to. On a CPU it is `size` itself: padding would only cost time."""
        if not self._captures:
            return size
        if 0 < size < unit:
            return int(max(FEWEST[unit], 1 << (size - 1).bit_length()))
        return -(-size // unit) * unit

    def tries_out(self, name: str, inputs: Sequence[Tensor]) -> bool:
        """Whether a run with inputs of these shapes would call the function more than once."""
        return self._captures and _key(name, inputs) not in self._graphs

    def run(self, name: str, function: Function, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Computes `function(*inputs)`.

        Args:
            name: identifies the function and everything it uses besides its inputs. The addresses
                of the latter must not change (weights that are updated in place keep theirs).
            function: without data-dependent control flow or synchronization. The first run calls it
                more than once, see `tries_out`.
            inputs: on the device.

        Returns:
            The outputs; on a GPU, the next run of the same name overwrites them.
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
        """Frees all graphs and their memory; they are captured again when needed."""
        self._graphs.clear()
        self._pools.clear()
        self._buffers.clear()

    def _buffer(self, name: str, place: int, like: Tensor) -> Tensor:
        """The static input of a function's graphs; graphs share it if its shape is the same."""
        key = (name, place, tuple(like.shape), like.dtype)
        if key not in self._buffers:
            # Never an inference tensor: code outside inference mode may write to it later.
            with torch.inference_mode(False):
                self._buffers[key] = torch.empty_like(like)
        return self._buffers[key].copy_(like)

    def _captured(self, name: str, function: Function, inputs: Sequence[Tensor]) -> _Graph:
        first = name not in self._pools
        if first:
            self._pools[name] = torch.cuda.graph_pool_handle()
        static = tuple(self._buffer(name, place, like) for place, like in enumerate(inputs))
        # Warm up before the capture, on another stream: libraries initialize, and kernels are
        # compiled for these shapes. Twice for the first graph, as PyTorch recommends.
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
    """Copies all tensors of one dtype in one launch: most copies take less time than a launch."""
    for dtype in {tensor.dtype for tensor in source}:
        pairs = [pair for pair in zip(target, source, strict=True) if pair[1].dtype == dtype]
        to, from_ = zip(*pairs, strict=True)
        torch._foreach_copy_(list(to), list(from_))


def _key(name: str, inputs: Sequence[Tensor]) -> tuple[object, ...]:
    return (name, *((tuple(tensor.shape), tensor.dtype) for tensor in inputs))
