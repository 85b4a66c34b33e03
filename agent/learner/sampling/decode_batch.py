"""The decode batch: texts that are sampled together, one token of each per step, on the device.

A step reads and writes tensors in place and never synchronizes, so on a GPU it is one CUDA graph.
The host asks only after several steps which texts need it. Until then such texts are paused: a step
computes them too, but changes nothing of them. So the next steps can start before the host has
handled those texts, and the device never waits for the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.learner.engine.cuda_graphs import Runner
from agent.learner.engine.kv_cache import KvCache, Prompts, no_place_twice
from agent.learner.sampling.answer_matcher import MAYBE
from agent.learner.sampling.look_ahead import NO_TOKEN, Floats, LookAhead, to_device
from agent.learner.sampling.truncation import NextTokens, Sampling, Truncation

# Steps between two looks on a GPU: the host needs some to handle the texts of the last look, and a
# text that has ended is idle until the next one.
STEPS = 4
# Integers of a row, after its W tokens. Then follow the first tokens of its S spellings, and the
# lengths of the spellings.
_LENGTH, _PROMPT, _LIMIT, _LIVE, _ENDED, _STATE, _TOP_K, _FIELDS = range(8)
# Value of _ENDED where the model predicts NaN; 1 at any other end.
_LOST = 2
# Floats of a row, after its W uniforms.
_TEMPERATURE, _TOP_P, _SETTINGS = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchShape:
    """Sizes of a batch.

    Attributes:
        rows: R, texts at once.
        width: W, tokens of the longest text.
        most: largest top_k, as in `Truncation`.
        states: rows of the table of states, see `answer_matcher.AnswerStates`.
        spellings: S, spellings of an answer to look ahead for.
        longest: M, tokens of the longest spelling.
        steps: tokens between two looks, at most.
    """

    rows: int
    width: int
    most: int
    states: int
    spellings: int
    longest: int
    steps: int

    def with_room_for(self, other: BatchShape) -> BatchShape:
        """The smallest shape with room for both, with `most` and `steps` of this one."""
        # These may be larger than needed without any effect on results.
        sizes = ("rows", "width", "states", "spellings", "longest")
        return replace(self, **{n: max(getattr(self, n), getattr(other, n)) for n in sizes})


@dataclass(frozen=True, kw_only=True, slots=True)
class TextStart:
    """Texts to start with the same prompt.

    Attributes:
        ids: tokens of the prompt.
        prompts: its keys and values,
        prompt: in this row.
        limit: most tokens, prompt included.
        sampling: settings.
        state: after the prompt, in the table of states.
        spellings: of the answer, to look ahead for.
        uniforms: for each text, [limit - prompt] random numbers in [0, 1), one for each token.
    """

    ids: Sequence[int]
    prompts: Prompts
    prompt: int
    limit: int
    sampling: Sampling
    state: int
    spellings: Sequence[Sequence[int]]
    uniforms: Sequence[Floats]


@dataclass(slots=True)
class PausedText:
    """A text that needs the host: it has ended, or its answer may have occurred.

    Attributes:
        row: of the batch; idle until `resume` or `start`.
        ids: tokens of the text, prompt included.
        ended: by the terminator or at its limit.
        suspected: the answer may have occurred with the last token.
        lost: the model predicted NaN for the last token.
        chance: sum of the probabilities that the next tokens spell the answer.
        extra_tokens: tokens that were read to compute `chance`.
    """

    row: int
    ids: list[int]
    ended: bool
    suspected: bool
    lost: bool
    chance: float = 0.0
    extra_tokens: int = 0


class DecodeBatch:
    """R rows, each with a text or free. A step computes free rows too, without any effect.

    Args:
        model: a causal LM with a key-value cache.
        eos: token that ends a text.
        vocabulary: V, tokens of the model's output.
        shape: sizes.
    """

    def __init__(self, model: Any, *, eos: int, vocabulary: int, shape: BatchShape) -> None:
        self.shape = shape
        self._model, self._eos, self._vocabulary = model, eos, vocabulary
        self._weights = _addresses(model)
        self._device: torch.device = model.get_input_embeddings().weight.device
        self._on_gpu = self._device.type == "cuda"
        self._runner = Runner(self._device)
        self._cache = KvCache(model, shape.rows, shape.width)
        width, rows = shape.width, shape.rows
        size = (rows, shape.spellings, shape.longest)
        self._look_ahead = LookAhead(self._cache, self._runner, size)
        empty = np.zeros((rows, width + _FIELDS + 2 * shape.spellings), dtype=np.int64)
        empty[:, :width] = eos
        empty[:, width + _LENGTH] = empty[:, width + _PROMPT] = empty[:, width + _TOP_K] = 1
        empty[:, width + _LIMIT] = width
        self._ints = self._sent(empty)
        self._floats = self._sent(np.ones((rows, width + _SETTINGS)))
        dtype = torch.int16 if shape.states < 1 << 15 else torch.int32
        self._table = torch.zeros((shape.states, vocabulary), dtype=dtype, device=self._device)
        self._places = torch.arange(width, device=self._device)
        self._ticks = torch.arange(shape.steps, device=self._device)[:, None, None]
        self._tick = torch.zeros((), dtype=torch.int64, device=self._device)
        self._states_source: Tensor | None = None
        self._chances = torch.zeros(
            (shape.steps, shape.spellings, rows), dtype=torch.float64, device=self._device
        )
        self._on = torch.ones((), dtype=torch.bool, device=self._device)
        self._views()
        # What the host knows without asking the device: of each row, before the current steps.
        self._steps = 0
        self._live = np.zeros(rows, dtype=np.bool_)
        self._begun = np.zeros(rows, dtype=np.bool_)  # since then
        self._paused: list[PausedText] = []
        self._lengths = np.ones(rows, dtype=np.int64)
        self._limits = np.full(rows, width)
        self._asked_each_token = np.zeros(rows, dtype=np.bool_)
        if self._on_gpu:
            self._host_ints, self._host_chances = (
                torch.empty(seen.shape, dtype=seen.dtype, pin_memory=True)
                for seen in (self._ints, self._chances)
            )
            self._done = torch.cuda.Event()

    def _views(self) -> None:
        width, spellings = self.shape.width, self.shape.spellings
        self._ids = self._ints[:, :width]  # [R, W]
        fields = self._ints[:, width : width + _FIELDS].unbind(1)  # [R] each
        self._length, self._prompt, self._limit = (fields[n] for n in (_LENGTH, _PROMPT, _LIMIT))
        self._is_live, self._has_ended = fields[_LIVE], fields[_ENDED]
        self._state, self._top_k = fields[_STATE], fields[_TOP_K]
        spelled = self._ints[:, width + _FIELDS :]
        self._firsts, self._sizes = spelled[:, :spellings], spelled[:, spellings:]  # [R, S] each
        self._uniforms = self._floats[:, :width]
        settings = self._floats[:, width:].unbind(1)
        self._temperature, self._top_p = settings[_TEMPERATURE], settings[_TOP_P]

    @property
    def worth_keeping(self) -> bool:
        """Whether a new batch would cost more than reusing one that is larger than needed."""
        return self._runner.has_graphs

    @property
    def runs_ahead(self) -> bool:
        """Whether to start the next steps before the host has handled the texts of a look.

        This costs idle steps of texts that ended, and hides the time that the host needs.
        """
        return self._runner.has_graphs

    @property
    def is_drawing(self) -> bool:
        """Whether steps are running whose results were not looked at yet."""
        return self._steps > 0

    @property
    def leaves_room(self) -> bool:
        """Whether all batches of this process leave half of the device's memory to others."""
        if not self._on_gpu:
            return True
        _, everything = torch.cuda.mem_get_info(self._device)
        return torch.cuda.memory_allocated(self._device) <= everything / 2

    def fits(self, model: Any, shape: BatchShape) -> bool:
        """Whether this batch can be reused: CUDA graphs hold the addresses of the weights."""
        return self._weights == _addresses(model) and shape.with_room_for(self.shape) == self.shape

    def use_states(self, table: Tensor) -> None:
        """Sets the table of states, [states, V], for texts that start from now on."""
        if table is not self._states_source:
            self._table[: len(table)] = table.to(self._device)
            self._states_source = table

    def prompts(self, prompts: Sequence[Sequence[int]]) -> Prompts:
        """Computes keys and values of prompts."""
        return Prompts(self._model, prompts, self._runner)

    def start(self, rows: Sequence[int], starts: Sequence[TextStart]) -> None:
        """Starts new texts in these rows; as many rows as texts."""
        width, spellings = self.shape.width, self.shape.spellings
        ints = np.zeros((len(rows), self._ints.shape[1]), dtype=np.int64)
        ints[:, :width] = self._eos
        ints[:, width + _FIELDS :] = NO_TOKEN
        floats = np.zeros((len(rows), self._floats.shape[1]))
        looked_for = np.full((len(rows), spellings, self.shape.longest), NO_TOKEN)
        begin = 0
        for start in starts:
            these = slice(begin, begin + len(start.uniforms))
            begin = these.stop
            length = len(start.ids)
            ints[these, :length] = start.ids
            fields = ints[these, width:]
            fields[:, [_LENGTH, _PROMPT]] = length
            fields[:, _LIMIT], fields[:, _LIVE] = start.limit, 1
            fields[:, _STATE] = start.state
            fields[:, _TOP_K] = start.sampling.most(self._vocabulary)
            for n, spelling in enumerate(start.spellings):
                fields[:, _FIELDS + n] = spelling[0]
                fields[:, _FIELDS + spellings + n] = len(spelling)
                looked_for[these, n, : len(spelling)] = spelling
            floats[these, : start.limit - length] = start.uniforms
            floats[these, width + _TEMPERATURE] = start.sampling.temperature
            floats[these, width + _TOP_P] = start.sampling.top_p
        place = self._sent(np.array(rows))
        with no_place_twice():
            self._ints[place] = self._sent(ints)
            self._floats[place] = self._sent(floats)
        self._fill(rows, starts)
        self._live[rows] = self._begun[rows] = True
        self._lengths[rows], self._limits[rows] = ints[:, width + _LENGTH], ints[:, width + _LIMIT]
        self._asked_each_token[rows] = ints[:, width + _STATE] == MAYBE
        self._look_ahead.start(rows, looked_for)

    def _fill(self, rows: Sequence[int], starts: Sequence[TextStart]) -> None:
        """Copies the prompts' keys and values; one copy for all that were computed together."""
        texts = [len(start.uniforms) for start in starts]
        which = np.repeat([start.prompt for start in starts], texts)
        owners = np.repeat([id(start.prompts) for start in starts], texts)
        for prompts in {id(start.prompts): start.prompts for start in starts}.values():
            own = owners == id(prompts)
            place = self._sent(np.array(rows)[own])
            self._cache.fill(place, prompts, self._sent(which[own]))

    def resume(self, rows: Sequence[int], states: Sequence[int]) -> None:
        """Continues paused texts that have not ended, in these states."""
        place = self._sent(np.array(rows, dtype=np.int64))
        with no_place_twice():
            self._state[place] = self._sent(np.array(states, dtype=np.int64))
            self._is_live[place] = 1
        self._live[rows] = self._begun[rows] = True

    def keep(self, rows: Sequence[int]) -> None:
        """Shrinks the batch to these rows, in this order. Not between `launch` and `look`."""
        place = self._sent(np.array(rows))
        self._ints, self._floats = self._ints[place], self._floats[place]
        self._chances = self._chances[:, :, place]
        self._cache.keep(place)
        self._views()
        self._live, self._lengths = self._live[rows], self._lengths[rows]
        self._begun = self._begun[rows]
        self._limits, self._asked_each_token = self._limits[rows], self._asked_each_token[rows]
        self._look_ahead.keep(rows)
        self.shape = replace(self.shape, rows=len(rows))

    def launch(self) -> None:
        """Starts to draw the next tokens of each text; on a GPU, does not wait for them.

        Texts that start or resume after this call get tokens from the next call on.
        """
        self._begun[:] = False
        if not self._live.any():
            return
        left = (self._limits - self._lengths)[self._live]
        # Texts that started together end together: no step beyond the limit of half of them.
        steps = int(np.clip(np.median(left), 1, self.shape.steps))
        if self._asked_each_token[self._live].any():
            steps = 1
        columns = self._cache.columns(int(self._lengths[self._live].max()) + steps - 1)
        self._tick.zero_()
        if self._runner.tries_out("step", (columns, self._on)):
            self._runner.run("step", self._step, (columns, ~self._on))  # off: no effect
        for _ in range(steps):
            self._runner.run("step", self._step, (columns, self._on))
        self._steps = steps
        if self._on_gpu:
            self._host_ints.copy_(self._ints, non_blocking=True)
            self._host_chances.copy_(self._chances, non_blocking=True)
            self._done.record()

    def look(self) -> None:
        """Waits for the tokens, and starts to look ahead from them."""
        if not self._steps:
            return
        if self._on_gpu:
            self._done.synchronize()
            ints, chances = self._host_ints.numpy(), self._host_chances.numpy()
        else:
            ints, chances = self._ints.cpu().numpy(), self._chances.cpu().numpy()
        if self.shape.spellings:
            self._look_ahead.begin(chances[: self._steps], self._lengths, self._truncation)
        fields = ints[:, self.shape.width :]
        self._steps = 0
        drawn = self._live & ~self._begun
        self._lengths[drawn] = fields[drawn, _LENGTH]
        [rows] = (drawn & (fields[:, _LIVE] == 0)).nonzero()
        self._live[rows] = False
        named = zip(
            rows.tolist(),
            ints[rows, : self.shape.width].tolist(),
            self._lengths[rows].tolist(),
            (fields[rows, _ENDED] != 0).tolist(),
            (fields[rows, _STATE] == MAYBE).tolist(),
            (fields[rows, _ENDED] == _LOST).tolist(),
            strict=True,
        )
        self._paused = [PausedText(row, ids[:length], *flags) for row, ids, length, *flags in named]

    def paused(self) -> list[PausedText]:
        """The texts of the last look that need the host; each is returned once."""
        self._look_ahead.finish()
        noticed, self._paused = self._paused, []
        for one in noticed:
            one.chance, one.extra_tokens = self._look_ahead.found(one.row)
        return noticed

    def _step(self, columns: Tensor, on: Tensor) -> tuple[Tensor, ...]:
        """Draws a token for each live row; changes nothing where `on` (a scalar) is False."""
        live = (self._is_live != 0) & on  # [R]
        length = self._length
        last = self._ids.gather(1, length[:, None] - 1)  # [R, 1]
        logits = self._cache.read(last, length - 1, columns)[:, -1]  # [R, V]
        nexts = NextTokens.of(logits, self._truncation())
        if self.shape.spellings:
            now = self._ticks == self._tick
            firsts = self._first_chances(nexts, live)
            self._chances.copy_(torch.where(now, firsts, self._chances))

        drawn = (length - self._prompt).clamp(min=0)
        tokens = nexts.draw(self._uniforms.gather(1, drawn[:, None])[:, 0])  # [R]
        only_nan = ~nexts.weights.any(-1)
        tokens = tokens.masked_fill(only_nan, self._eos)
        here = (
            self._places == length[:, None]
        )  # [R, W]: after each text, so idle rows may write too
        self._ids.copy_(torch.where(here, tokens[:, None], self._ids))
        length += live

        state = self._table[self._state, tokens].long()
        ended = ((tokens == self._eos) | (length >= self._limit)).long()
        ended = ended.masked_fill(only_nan, _LOST)
        self._state.copy_(torch.where(live, state, self._state))
        self._has_ended.copy_(torch.where(live, ended, self._has_ended))
        self._is_live *= ~(live & ((ended != 0) | (state == MAYBE)))
        self._tick += on
        return ()

    def _truncation(self) -> Truncation:
        return Truncation(self._temperature.float(), self._top_k, self._top_p, self.shape.most)

    def _first_chances(self, nexts: NextTokens, live: Tensor) -> Tensor:
        """[S, R]: probability that the next token begins a spelling that the text has room for."""
        return torch.stack(
            [
                nexts.probability(first[:, None])[:, 0]
                * (live & (self._length + size <= self._limit))
                for first, size in zip(self._firsts.unbind(1), self._sizes.unbind(1), strict=True)
            ]
        )

    def _sent(self, array: NDArray[Any]) -> Tensor:
        return to_device(array, self._device)


def _addresses(model: Any) -> tuple[int, ...]:
    return tuple(parameter.data_ptr() for parameter in model.parameters())
