"""Key-value caches of many texts side by side, each as long as it is.

A slot is a row of the cache with a length of its own. So a text that is finished makes place for
another in the middle of a batch, and a prompt is computed once and copied to all that begin with
it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from agent.errors import ModelError

TOO_LITTLE_MEMORY = (
    "too little free memory to sample even one text: free some, choose a smaller model, or"
    " --device cpu"
)
# Columns are read in multiples of this: few shapes, and sums that are cut into the same pieces.
WIDTH = 16


class _SlotLayer(DynamicLayer):
    """Keys and values of one layer: [R, heads, W, d] each."""

    keys: Any
    values: Any

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self.is_initialized = True
        self.place: Tensor = torch.empty(0)  # [R, q]: columns of the tokens that are read now
        self.width = 0  # columns that are looked at

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(self.place), device=self.place.device)[:, None]  # [R, 1]
        self.keys[rows, :, self.place] = key_states.transpose(1, 2)
        self.values[rows, :, self.place] = value_states.transpose(1, 2)
        return self.keys[:, :, : self.width], self.values[:, :, : self.width]


class Prompt:
    """A prompt's keys and values, all but those of its last token.

    Args:
        model: a causal LM with a key-value cache.
        ids: at least one token.
    """

    def __init__(self, model: Any, ids: list[int]) -> None:
        self.ids = ids
        self.layers: list[tuple[Tensor, Tensor]] = []
        if len(ids) > 1:
            device = model.get_input_embeddings().weight.device
            cache: Any = DynamicCache()
            model(
                input_ids=torch.tensor([ids[:-1]], device=device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            self.layers = [(layer.keys, layer.values) for layer in cache.layers]


class Slots:
    """R texts of up to W tokens.

    Args:
        model: a causal LM with a key-value cache.
        rows: R.
        width: W.
    """

    def __init__(self, model: Any, rows: int, width: int) -> None:
        self._model = model
        self._width = -(-width // WIDTH) * WIDTH
        self._layers = [
            _SlotLayer(*(self._room(state, rows) for state in states))
            for states in Prompt(model, [0, 0]).layers
        ]

    def _room(self, state: Tensor, rows: int) -> Tensor:
        """Zeros for the keys or values of a layer, of which `state` is an example, [1, h, 1, d]."""
        # Not left as it was: what is masked out has weight 0, but 0 times NaN would be NaN.
        return state.new_zeros((rows, state.shape[1], self._width, state.shape[3]))

    def fill(self, rows: Tensor, prompt: Prompt) -> None:
        """Begins new texts in some slots, [N], with one prompt."""
        length = len(prompt.ids) - 1
        for layer, (keys, values) in zip(self._layers, prompt.layers, strict=False):
            layer.keys[rows, :, :length] = keys
            layer.values[rows, :, :length] = values

    def keep(self, rows: Tensor) -> None:
        """Keeps the texts of some slots only, [N], in this order."""
        for layer in self._layers:
            layer.batch_select_indices(rows)

    def read(self, tokens: Tensor, lengths: Tensor, longest: int) -> Tensor:
        """Reads the next tokens of every text.

        Args:
            tokens: [R, q].
            lengths: [R] tokens read before.
            longest: at least the largest length after it.

        Returns:
            [R, q, V] logits.
        """
        return self._read(self._layers, tokens, lengths, longest)

    def look(self, rows: Tensor, tokens: Tensor, lengths: Tensor, longest: int) -> Tensor:
        """What `read` would give in some slots, [N], and leaves no trace.

        Args:
            rows: [N] slots, each as often as it is named.
            tokens: [N, q].
            lengths: [N] tokens read before.
            longest: at least the largest length after it.
        """
        copies = [_SlotLayer(layer.keys[rows], layer.values[rows]) for layer in self._layers]
        return self._read(copies, tokens, lengths, longest)

    def _read(
        self, layers: list[_SlotLayer], tokens: Tensor, lengths: Tensor, longest: int
    ) -> Tensor:
        place = lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)  # [R, q]
        width = min(-(-longest // WIDTH) * WIDTH, self._width)
        for layer in layers:
            layer.place, layer.width = place, width
        columns = torch.arange(width, device=tokens.device)
        dtype = self._model.dtype
        mask = torch.zeros((*place.shape, width), dtype=dtype, device=tokens.device)
        mask.masked_fill_(columns > place[:, :, None], torch.finfo(dtype).min)
        logits: Tensor = self._model(
            input_ids=tokens,
            attention_mask=mask[:, None],  # [R, 1, q, W]
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
        slots.fill(torch.tensor([1], device=device), Prompt(model, [3, 1, 0]))
        lengths = torch.tensor([0, 2], device=device)
        shared = slots.read(ids[:, 2:].expand(2, 2), lengths, 4)[1]
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: on a CPU, torch has no error of its own for that."""
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )
