"""Texts that are sampled side by side, a token of each at a time: what runs on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.learning.drawing import Candidates, Sampling, Truncation
from agent.learning.slots import Prompt, Slots

NO_TOKEN = -1


@dataclass(frozen=True, slots=True)
class Answers:
    """What rows look out for, by the number of their answer.

    Attributes:
        may_end: [A, V] bool: tokens after which an answer may have occurred.
        spellings: token sequences that spell each answer.
    """

    may_end: Tensor
    spellings: Sequence[Sequence[Sequence[int]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A text that begins.

    Attributes:
        prompt: what it begins with.
        limit: most tokens, prompt included.
        sampling: settings.
        answer: number of its answer.
        uniforms: [limit - prompt] numbers of 0 up to 1; each stands for a token.
        estimated: look ahead for spellings of its answer.
    """

    prompt: Prompt
    limit: int
    sampling: Sampling
    answer: int
    uniforms: NDArray[np.float64]
    estimated: bool


@dataclass(frozen=True, slots=True)
class Noticed:
    """A text that is to be looked at: it has ended, or its answer may have occurred.

    Attributes:
        row: where it is.
        ids: the text, prompt included.
        ended: by the terminator or at its limit.
        chance: sum of the probabilities that its next tokens spell the answer.
        extra_tokens: read to compute it.
    """

    row: int
    ids: list[int]
    ended: bool
    chance: float
    extra_tokens: int


class Rows:
    """R rows; a free one is computed along, and goes nowhere.

    Args:
        model: a causal LM with a key-value cache.
        answers: what is looked out for.
        eos: ends a text.
        size: R.
        width: longest text.
        most: largest top_k, as in `Truncation`.
    """

    def __init__(
        self, model: Any, answers: Answers, *, eos: int, size: int, width: int, most: int
    ) -> None:
        self._answers = answers
        self._eos = eos
        self._vocabulary = answers.may_end.shape[1]
        self._device = answers.may_end.device
        self._spellings = [
            _Spelling(number, torch.tensor(ids, device=self._device))
            for number, of_answer in enumerate(answers.spellings)
            for ids in of_answer
        ]
        self._slots = Slots(model, size, width)
        self._most = most
        self._state: dict[str, Tensor] = {
            "ids": torch.full((size, width), eos),
            "uniforms": torch.zeros((size, width), dtype=torch.float64),
            "length": torch.ones(size, dtype=torch.int64),
            "prompt": torch.ones(size, dtype=torch.int64),
            "limit": torch.full((size,), width),
            "answer": torch.zeros(size, dtype=torch.int64),
            "live": torch.zeros(size, dtype=torch.bool),
            "estimated": torch.zeros(size, dtype=torch.bool),
            "temperature": torch.ones(size),
            "top_k": torch.ones(size, dtype=torch.int64),
            "top_p": torch.ones(size, dtype=torch.float64),
            "chance": torch.zeros(size, dtype=torch.float64),
            "extra": torch.zeros(size, dtype=torch.int64),
        }
        self._state = {name: state.to(self._device) for name, state in self._state.items()}
        # Known without asking the device.
        self._lengths = np.ones(size, dtype=np.int64)
        self._live = np.zeros(size, dtype=np.bool_)

    def start(self, rows: Sequence[int], texts: Sequence[Start]) -> None:
        """Begins new texts in some rows."""
        width = self._state["ids"].shape[1]
        ids = torch.full((len(rows), width), self._eos)
        uniforms = torch.zeros((len(rows), width), dtype=torch.float64)
        for n, text in enumerate(texts):
            ids[n, : len(text.prompt.ids)] = torch.tensor(text.prompt.ids)
            uniforms[n, : len(text.uniforms)] = torch.from_numpy(text.uniforms)
        lengths = torch.tensor([len(text.prompt.ids) for text in texts])
        settings = Truncation.of([text.sampling for text in texts], self._vocabulary, self._device)
        new = {
            "ids": ids,
            "uniforms": uniforms,
            "length": lengths,
            "prompt": lengths,
            "limit": torch.tensor([text.limit for text in texts]),
            "answer": torch.tensor([text.answer for text in texts]),
            "live": torch.ones(len(rows), dtype=torch.bool),
            "estimated": torch.tensor([text.estimated for text in texts]),
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "chance": torch.zeros(len(rows), dtype=torch.float64),
            "extra": torch.zeros(len(rows), dtype=torch.int64),
        }
        place = torch.tensor(rows, dtype=torch.int64, device=self._device)
        for name, state in self._state.items():
            state[place] = new[name].to(self._device)
        by_prompt: dict[int, list[int]] = {}
        prompts = {id(text.prompt): text.prompt for text in texts}
        for row, text in zip(rows, texts, strict=True):
            by_prompt.setdefault(id(text.prompt), []).append(row)
        for key, its_rows in by_prompt.items():
            self._slots.fill(torch.tensor(its_rows, device=self._device), prompts[key])
        self._lengths[rows] = lengths.numpy()
        self._live[rows] = True

    def free(self, rows: Sequence[int]) -> None:
        """Ends the texts in some rows."""
        place = torch.tensor(rows, dtype=torch.int64, device=self._device)
        self._state["live"][place] = False
        self._state["length"][place] = 1
        self._live[rows], self._lengths[rows] = False, 1

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps some rows only, in this order: a smaller R."""
        place = torch.tensor(rows, dtype=torch.int64, device=self._device)
        self._state = {name: state[place] for name, state in self._state.items()}
        self._slots.keep(place)
        self._live, self._lengths = self._live[rows], self._lengths[rows]

    def step(self) -> list[Noticed]:
        """Draws the next token of every text; returns those that are to be looked at."""
        state = self._state
        longest = int(self._lengths.max())
        last = state["ids"].gather(1, state["length"][:, None] - 1)  # [R, 1]
        logits = self._slots.read(last, state["length"] - 1, longest)[:, -1]  # [R, V]
        candidates = Candidates.of(logits, self._truncation())
        self._look_ahead(candidates, longest)

        drawn = (state["length"] - state["prompt"]).clamp(min=0)
        tokens = candidates.draw(state["uniforms"].gather(1, drawn[:, None])[:, 0])  # [R]
        tokens = tokens.where(candidates.weights.any(-1), self._eos)  # where there are only NaN
        place = state["length"].clamp(max=state["ids"].shape[1] - 1)
        state["ids"].scatter_(1, place[:, None], tokens[:, None])
        state["length"] += state["live"]
        self._lengths += self._live

        ended = (tokens == self._eos) | (state["length"] >= state["limit"])
        noticed = state["live"] & (ended | self._answers.may_end[state["answer"], tokens])
        rows = noticed.nonzero()[:, 0]
        named = zip(
            rows.tolist(),
            state["ids"][rows].tolist(),
            ended[rows].tolist(),
            state["chance"][rows].tolist(),
            state["extra"][rows].tolist(),
            strict=True,
        )
        return [
            Noticed(row, ids[: self._lengths[row]], end, chance, extra)
            for row, ids, end, chance, extra in named
        ]

    def _truncation(self) -> Truncation:
        state = self._state
        return Truncation(state["temperature"], state["top_k"], state["top_p"], self._most)

    def _look_ahead(self, candidates: Candidates, longest: int) -> None:
        """Adds the probability that the next tokens spell the answer, for rows that want it."""
        state = self._state
        wanted = state["live"] & state["estimated"]
        if not self._spellings or not wanted.any():
            return
        for spelling in self._spellings:
            fits = state["length"] + len(spelling.ids) <= state["limit"]
            asked = wanted & fits & (state["answer"] == spelling.answer)
            first = candidates.probability(spelling.ids[:1].expand(len(asked), 1))[:, 0]  # [R]
            rows = (asked & (first > 0)).nonzero()[:, 0]
            for some in rows.split(len(asked)):
                chance = first[some] * self._chance_of_rest(some, spelling.ids, longest)
                state["chance"][some] += chance
                state["extra"][some] += len(spelling.ids) - 1

    def _chance_of_rest(self, rows: Tensor, spelling: Tensor, longest: int) -> Tensor:
        """Of all tokens of a spelling but the first, after the first: [N]."""
        chance = torch.ones(len(rows), dtype=torch.float64, device=self._device)
        if len(spelling) == 1 or not len(rows):
            return chance
        tokens = spelling[:-1].expand(len(rows), -1)  # [N, m-1]
        lengths = self._state["length"][rows]
        logits = self._slots.look(rows, tokens, lengths, longest + len(spelling) - 1)
        truncation = self._truncation().take(rows)
        for place, token in enumerate(spelling[1:]):
            after = Candidates.of(logits[:, place], truncation)
            chance *= after.probability(token.expand(len(rows), 1))[:, 0]
        return chance


@dataclass(frozen=True, slots=True)
class _Spelling:
    answer: int
    ids: Tensor  # [m]
