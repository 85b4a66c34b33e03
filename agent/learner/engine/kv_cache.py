"""The key-value cache of many texts, each with its own length.

A slot is one row of the cache. A text that has ended can be replaced in the middle of a batch, and
a prompt is computed once and copied to all texts that begin with it. Nothing here synchronizes with
the device, and the cache keeps its addresses, so that reading can be a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from agent.errors import ModelError
from agent.learner.engine.cuda_graphs import ROWS, WIDTH, Runner
from agent.learner.inference.logits import causal_mask

TOO_LITTLE_MEMORY = (
    "too little free memory to sample even one text: free some, choose a smaller model, or"
    " --device cpu"
)
# The number of columns is a multiple of this. Reads take a multiple of `WIDTH` columns: few shapes,
# and sums that are split in the same way.
ROOM = 8


@contextmanager
def no_place_twice() -> Iterator[None]:
    """For indexed writes in which no index occurs twice: their order has no effect.

    PyTorch's deterministic algorithm would sort the indices first: ten kernels instead of one.
    """
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if strict:
        torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        if strict:
            torch.use_deterministic_algorithms(True, warn_only=warn_only)


class _Reading:
    """Where the tokens of the current read belong.

    Attributes:
        rows: [R, 1] row of the cache.
        place: [R, q] column of each token.
        width: number of columns that attention sees.
    """

    rows: Tensor
    place: Tensor
    width: int


class KvLayer(DynamicLayer):
    """Keys and values of one layer: [R, heads, W, d] each.

    Attributes:
        looked_at: [N] rows that a look reads, without storing anything; None in a read of all
            rows, which stores its tokens.
    """

    keys: Any
    values: Any
    looked_at: Tensor | None = None

    def __init__(self, reading: _Reading, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self.is_initialized = True
        self._reading = reading

    @property
    def place(self) -> Tensor:
        """[R], or [N] in a look: column of the first token of the current read."""
        return self._reading.place[:, 0]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores the tokens of the current read; returns all keys and values that it sees."""
        now = self._reading
        with no_place_twice():
            self.keys[now.rows, :, now.place] = key_states.transpose(1, 2)
            self.values[now.rows, :, now.place] = value_states.transpose(1, 2)
        return self.keys[:, :, : now.width], self.values[:, :, : now.width]


class _LookLayer(KvLayer):
    """Some rows of a layer, for a look.

    Attention that is not fused gets copies. They are made when the layer is read, so that only one
    layer's copies take memory at a time.
    """

    def __init__(self, reading: _Reading, layer: KvLayer, slots: Tensor) -> None:
        super().__init__(reading, layer.keys, layer.values)
        self.looked_at = slots

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        now = self._reading
        copies = []
        for states, new in ((self.keys, key_states), (self.values, value_states)):
            copy = states[:, :, : now.width][self.looked_at]
            copy[now.rows, :, now.place] = new.transpose(1, 2)
            copies.append(copy)
        return copies[0], copies[1]


def kv_layer_of(cache: Any, number: int) -> KvLayer | None:
    """A layer of a cache, or None if the cache is of another kind."""
    layer = cache.layers[number] if number < len(cache.layers) else None
    return layer if isinstance(layer, KvLayer) else None


class Prompts:
    """Keys and values of P prompts, without those of each prompt's last token.

    Args:
        model: a causal LM with a key-value cache.
        prompts: P rows of at least one token each.
        runner: of this model; None computes without CUDA graphs.

    Attributes:
        kinds: for keys and values of each layer in turn, the number of their stack. In most models
            all have one shape, and so are in one stack.
        stacks: [n, P, heads, L, d] each, for L tokens of the longest prompt; columns beyond the end
            of a shorter prompt are undefined. Empty if all prompts have one token.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], runner: Runner | None = None
    ) -> None:
        self.kinds: list[int] = []
        self.stacks: list[Tensor] = []
        longest = max(map(len, prompts)) - 1
        if not longest:
            return
        device = model.get_input_embeddings().weight.device
        runner = runner or Runner(device, graphs=False)
        length, rows = runner.rounded(longest, WIDTH), runner.rounded(len(prompts), ROWS)
        padded = [[*ids[:-1], *[ids[-1]] * (length + 1 - len(ids))] for ids in prompts]
        padded += padded[:1] * (rows - len(prompts))
        states = runner.run(
            "prompts",
            partial(_states, model, runner.has_graphs),
            [torch.tensor(padded, device=device)],
        )
        alike: dict[object, list[Tensor]] = {}
        for state in states:
            alike.setdefault((state.shape, state.dtype), []).append(state)
        kinds = {kind: number for number, kind in enumerate(alike)}
        self.kinds = [kinds[state.shape, state.dtype] for state in states]
        # Copies, since the next run of the graph overwrites its outputs.
        self.stacks = [torch.stack(some)[:, : len(prompts), :, :longest] for some in alike.values()]


def _states(model: Any, in_graph: bool, input_ids: Tensor) -> tuple[Tensor, ...]:
    """Keys and values of each layer in turn, of texts that are padded on the right."""
    cache: Any = DynamicCache()
    model(
        input_ids=input_ids,
        attention_mask=causal_mask(input_ids, model.dtype) if in_graph else None,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return tuple(state for layer in cache.layers for state in (layer.keys, layer.values))


class KvCache:
    """Keys and values of R texts of up to W tokens.

    Args:
        model: a causal LM with a key-value cache.
        rows: R.
        width: W.
    """

    def __init__(self, model: Any, rows: int, width: int) -> None:
        self._model = model
        self._most = width
        self._width = -(-width // ROOM) * ROOM
        self._reading = _Reading()
        example = Prompts(model, [[0, 0]])
        self._kinds = example.kinds
        # Zeros, not uninitialized: masked places have weight 0, but 0 times NaN is NaN.
        self._stacks = [
            stack.new_zeros((len(stack), rows, stack.shape[2], self._width, stack.shape[4]))
            for stack in example.stacks
        ]
        self._layers = self._views()

    def _views(self) -> list[KvLayer]:
        stacks = [iter(stack) for stack in self._stacks]
        states = [next(stacks[kind]) for kind in self._kinds]
        pairs = zip(states[::2], states[1::2], strict=True)
        return [KvLayer(self._reading, keys, values) for keys, values in pairs]

    @property
    def device(self) -> torch.device:
        """Where the cache is."""
        device: torch.device = self._layers[0].keys.device
        return device

    def columns(self, longest: int) -> Tensor:
        """[w] numbers of the columns to read, so that texts of this length are seen whole."""
        width = min(-(-longest // WIDTH) * WIDTH, self._width)
        return torch.arange(width, device=self.device)

    def fill(self, rows: Tensor, prompts: Prompts, which: Tensor) -> None:
        """Starts new texts in slots, [N]; `which`, [N], gives the number of each one's prompt."""
        with no_place_twice():
            for stack, states in zip(self._stacks, prompts.stacks, strict=False):
                stack[:, rows, :, : states.shape[3]] = states[:, which]

    def keep(self, rows: Tensor) -> None:
        """Keeps only the texts of these slots, [N], in this order."""
        for stack in self._stacks:
            for states in stack:  # one at a time, to save memory
                states[: len(rows)] = states[rows]
        self._stacks = [stack[:, : len(rows)] for stack in self._stacks]
        self._layers = self._views()

    def read(self, tokens: Tensor, lengths: Tensor, columns: Tensor) -> Tensor:
        """Reads the next tokens of all texts, and stores their keys and values.

        Args:
            tokens: [R, q].
            lengths: [R] number of tokens read before.
            columns: `columns` of the largest length after this read, or more.

        Returns:
            [R, q, V] logits.
        """
        return self._read(self._layers, self._reading, tokens, lengths, columns)

    def look(self, rows: Tensor, tokens: Tensor, lengths: Tensor, columns: Tensor) -> Tensor:
        """As `read`, for some slots, and without storing anything.

        Args:
            rows: [N] slots; a slot may occur several times.
            tokens: [N, q]; tokens beyond column W are read at the last column.
            lengths: [N] number of tokens before these; the slot's text may have grown since.
            columns: as for `read`.
        """
        reading = _Reading()
        copies = [_LookLayer(reading, layer, rows) for layer in self._layers]
        return self._read(copies, reading, tokens, lengths, columns)

    def _read(
        self,
        layers: Sequence[KvLayer],
        reading: _Reading,
        tokens: Tensor,
        lengths: Tensor,
        columns: Tensor,
    ) -> Tensor:
        place = lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)  # [R, q]
        place = place.clamp(max=self._most - 1)
        reading.rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        reading.place, reading.width = place, len(columns)
        dtype = self._model.dtype
        mask = torch.zeros((*place.shape, len(columns)), dtype=dtype, device=tokens.device)
        mask.masked_fill_(columns > place[:, :, None], torch.finfo(dtype).min)
        logits: Tensor = self._model(
            input_ids=tokens,
            attention_mask=mask[:, None],  # [R, 1, q, w]
            position_ids=place,
            past_key_values=Cache(layers=list(layers)),
            use_cache=True,
        ).logits
        return logits


@torch.inference_mode()
def require_kv_cache(model: Any, device: torch.device) -> None:
    """Checks that texts can share this model's cache: not all models cache keys and values.

    Raises:
        ModelError: they cannot, or there is too little memory.
    """
    ids = torch.tensor([[3, 1, 4, 1]], device=device)
    try:
        plain = model(input_ids=ids, use_cache=False).logits[0, -2:]
        slots = KvCache(model, rows=2, width=4)
        second = torch.tensor([1], device=device)
        slots.fill(second, Prompts(model, [[3, 1, 0]]), second - 1)
        lengths = torch.tensor([0, 2], device=device)
        shared = slots.read(ids[:, 2:].expand(2, 2), lengths, slots.columns(4))[1]
        same = (plain - shared).abs().max() <= 0.01 * plain.abs().max()
    except Exception as error:  # a model of another kind may raise anything
        if is_out_of_memory(error):
            raise ModelError(TOO_LITTLE_MEMORY) from error
        raise ModelError(_not_shared(model)) from error
    if not same:
        raise ModelError(_not_shared(model))


def _not_shared(model: Any) -> str:
    return (
        f"{type(model).__name__} cannot be sampled from here: texts cannot share its cache. Choose"
        " a decoder whose layers keep keys and values, such as GPT-NeoX or Llama."
    )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: on a CPU, torch has no error type for that.

    While a CUDA graph is captured, the original error may be the context of another one.
    """
    return error is not None and (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
        or is_out_of_memory(error.__context__)
    )
