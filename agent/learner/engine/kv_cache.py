"""Key-value caches of many texts side by side, each as long as it is.

A slot is a row of the cache with a length of its own. So a text that is finished makes place for
another in the middle of a batch, and a prompt is computed once and copied to all that begin with
it. Nothing here waits for the device, and the cache stays where it is, so that reading can be a
CUDA graph.
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
# There are as many columns as a multiple of this; `WIDTH` at a time are read: few shapes, and sums
# that are cut into the same pieces.
ROOM = 8


@contextmanager
def no_place_twice() -> Iterator[None]:
    """For writes at indices none of which occurs twice: they come out the same in any order.

    Deterministic algorithms would sort the indices first, with ten kernels instead of one.
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
    """Where the tokens that are read now belong.

    Attributes:
        rows: [R, 1] each row of the cache.
        place: [R, q] columns of the tokens.
        width: columns that are looked at.
    """

    rows: Tensor
    place: Tensor
    width: int


class SlotLayer(DynamicLayer):
    """Keys and values of one layer: [R, heads, W, d] each.

    Attributes:
        looked_at: [N], the rows whose texts are gone on with for a look; None where all are read,
            to stay.
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
        """[R], or [N] in a look: column of the first token that is read now."""
        return self._reading.place[:, 0]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds what is read now; all keys and values that are looked at."""
        now = self._reading
        with no_place_twice():
            self.keys[now.rows, :, now.place] = key_states.transpose(1, 2)
            self.values[now.rows, :, now.place] = value_states.transpose(1, 2)
        return self.keys[:, :, : now.width], self.values[:, :, : now.width]


class _LookLayer(SlotLayer):
    """Some rows of a layer, as a look sees them.

    Attention that is not fused takes copies, made when the layer is read: one layer's at a time.
    """

    def __init__(self, reading: _Reading, layer: SlotLayer, slots: Tensor) -> None:
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


def slots_of(cache: Any, number: int) -> SlotLayer | None:
    """A layer of a cache, if its tokens are read into slots."""
    layer = cache.layers[number] if number < len(cache.layers) else None
    return layer if isinstance(layer, SlotLayer) else None


class Prompts:
    """Keys and values of some prompts, all but those of their last tokens.

    Args:
        model: a causal LM with a key-value cache.
        prompts: P rows of at least one token each.
        runner: for this model; None computes plainly.

    Attributes:
        kinds: of the keys and the values of each layer by turns, which stack they are in. Mostly
            all are in one.
        stacks: [n, P, heads, L, d] each, L that of the longest; what stands to the right of a
            shorter one has no meaning. None if there is nothing to be read.
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
        # Copies: what a graph gives is overwritten by its next run.
        self.stacks = [torch.stack(some)[:, : len(prompts), :, :longest] for some in alike.values()]


def _states(model: Any, in_graph: bool, input_ids: Tensor) -> tuple[Tensor, ...]:
    """Keys and values of each layer by turns, of texts that are padded on the right."""
    cache: Any = DynamicCache()
    model(
        input_ids=input_ids,
        attention_mask=causal_mask(input_ids, model.dtype) if in_graph else None,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return tuple(state for layer in cache.layers for state in (layer.keys, layer.values))


class Slots:
    """R texts of up to W tokens.

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
        # Not left as it was: what is masked out has weight 0, but 0 times NaN would be NaN.
        self._stacks = [
            stack.new_zeros((len(stack), rows, stack.shape[2], self._width, stack.shape[4]))
            for stack in example.stacks
        ]
        self._layers = self._views()

    def _views(self) -> list[SlotLayer]:
        stacks = [iter(stack) for stack in self._stacks]
        states = [next(stacks[kind]) for kind in self._kinds]
        pairs = zip(states[::2], states[1::2], strict=True)
        return [SlotLayer(self._reading, keys, values) for keys, values in pairs]

    @property
    def device(self) -> torch.device:
        """Where the cache is."""
        device: torch.device = self._layers[0].keys.device
        return device

    def columns(self, longest: int) -> Tensor:
        """Numbers of the columns to be read, [w], so that texts of this length are seen whole."""
        width = min(-(-longest // WIDTH) * WIDTH, self._width)
        return torch.arange(width, device=self.device)

    def fill(self, rows: Tensor, prompts: Prompts, which: Tensor) -> None:
        """Begins new texts in some slots, [N], each with one of the prompts, [N] numbers."""
        with no_place_twice():
            for stack, states in zip(self._stacks, prompts.stacks, strict=False):
                stack[:, rows, :, : states.shape[3]] = states[:, which]

    def keep(self, rows: Tensor) -> None:
        """Keeps the texts of some slots only, [N], in this order."""
        for stack in self._stacks:
            for states in stack:  # one after the other: the copy of all would take memory
                states[: len(rows)] = states[rows]
        self._stacks = [stack[:, : len(rows)] for stack in self._stacks]
        self._layers = self._views()

    def read(self, tokens: Tensor, lengths: Tensor, columns: Tensor) -> Tensor:
        """Reads the next tokens of every text.

        Args:
            tokens: [R, q].
            lengths: [R] tokens read before.
            columns: of at least the largest length after it.

        Returns:
            [R, q, V] logits.
        """
        return self._read(self._layers, self._reading, tokens, lengths, columns)

    def look(self, rows: Tensor, tokens: Tensor, lengths: Tensor, columns: Tensor) -> Tensor:
        """What `read` would give in some slots, [N], and leaves no trace.

        Args:
            rows: [N] slots, each as often as it is named.
            tokens: [N, q]; what lies beyond the longest text is read at its last place.
            lengths: [N] tokens read before; a slot may have gone on since.
            columns: as for `read`.
        """
        reading = _Reading()
        copies = [_LookLayer(reading, layer, rows) for layer in self._layers]
        return self._read(copies, reading, tokens, lengths, columns)

    def _read(
        self,
        layers: Sequence[SlotLayer],
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
def require_slots(model: Any, device: torch.device) -> None:
    """Makes sure that texts can share a cache: not all models have one of keys and values.

    Raises:
        ModelError: it cannot be; or memory does not suffice.
    """
    ids = torch.tensor([[3, 1, 4, 1]], device=device)
    try:
        plain = model(input_ids=ids, use_cache=False).logits[0, -2:]
        slots = Slots(model, rows=2, width=4)
        second = torch.tensor([1], device=device)
        slots.fill(second, Prompts(model, [[3, 1, 0]]), second - 1)
        lengths = torch.tensor([0, 2], device=device)
        shared = slots.read(ids[:, 2:].expand(2, 2), lengths, slots.columns(4))[1]
        same = (plain - shared).abs().max() <= 0.01 * plain.abs().max()
    except Exception as error:  # there is no end to what a model of another kind may raise
        if is_out_of_memory(error):
            raise ModelError(TOO_LITTLE_MEMORY) from error
        raise ModelError(_no_slots(model)) from error
    if not same:
        raise ModelError(_no_slots(model))


def _no_slots(model: Any) -> str:
    return (
        f"{type(model).__name__} cannot be sampled from here: texts cannot share its cache. Choose"
        " a decoder whose layers keep keys and values, such as GPT-NeoX or Llama."
    )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory did not suffice: on a CPU, torch has no error of its own for that.

    Where a CUDA graph is captured, another error may come of the first.
    """
    return error is not None and (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
        or is_out_of_memory(error.__context__)
    )
