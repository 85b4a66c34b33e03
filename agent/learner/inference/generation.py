"""Free greedy generation for a batch of questions, one token at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from agent.learner.engine.cuda_graphs import WIDTH, Runner
from agent.learner.engine.preemption import Pause, no_pause
from agent.learner.inference.encoding import Encoder
from agent.learner.inference.logits import logits_at
from agent.teaching import prompts
from agent.teaching.types import Generated


class GreedyBatch:
    """B texts that are continued together by greedy generation, one token of each per step.

    Args:
        model: a causal LM with a key-value cache.
        prompt_ids: B rows of token ids, of any lengths.
        eos: token for padding on the left, which is masked out.
    """

    def __init__(self, model: Any, prompt_ids: Sequence[Sequence[int]], eos: int) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        width = max(map(len, prompt_ids))
        padding = [width - len(row) for row in prompt_ids]
        # Without padding no mask is passed, so that a row is computed as in scoring.
        self._padded = any(padding)
        self._ids = torch.tensor(
            [[eos] * n + list(row) for n, row in zip(padding, prompt_ids, strict=True)],
            device=self._device,
        )  # [B, T], then [B, 1]
        self._mask = torch.tensor(
            [[0] * n + [1] * (width - n) for n in padding], device=self._device
        )  # [B, T]
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)  # [B, T], then [B, 1]
        self._cache: Any = None

    @torch.inference_mode()
    def next_tokens(self) -> list[int]:
        """[B] token ids. Rows continue after their terminator; the caller drops those tokens."""
        out = self._model(
            input_ids=self._ids,
            attention_mask=self._mask if self._padded else None,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        self._ids = out.logits[:, -1:].argmax(-1)
        self._mask = torch.cat([self._mask, torch.ones_like(self._ids)], dim=1)
        self._positions = self._positions[:, -1:] + 1
        tokens: list[int] = self._ids[:, 0].tolist()
        return tokens

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Continues only these rows, in this order."""
        kept = torch.tensor(rows, device=self._device)
        self._ids, self._mask = self._ids[kept], self._mask[kept]
        self._positions = self._positions[kept]
        if self._cache is not None:
            self._cache.batch_select_indices(kept)


def greedy_tokens(
    model: Any, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int, eos: int
) -> Iterator[list[int]]:
    """Yields the next token of every row, until the caller stops or the limit is reached.

    Args:
        model: as for `GreedyBatch`.
        prompt_ids: B rows of token ids.
        max_new_tokens: limit.
        eos: the terminator.

    Yields:
        [B] token ids.
    """
    batch = GreedyBatch(model, prompt_ids, eos)
    for _ in range(max_new_tokens):
        yield batch.next_tokens()


@dataclass(kw_only=True, slots=True)
class PendingQuestion:
    """A question whose answer a client waits for.

    Attributes:
        question: to answer.
        max_new_tokens: limit.
        gone: set by any thread when the client no longer waits.
    """

    question: str
    max_new_tokens: int
    gone: threading.Event = field(default_factory=threading.Event)


class _Text:
    """The text of one answer while it is generated."""

    def __init__(self, encoder: Encoder, limit: int) -> None:
        self._encoder = encoder
        self._limit = limit
        self._tokens: list[int] = []
        self._sent = 0
        self._finished = False

    def add(self, token: int) -> tuple[str, bool]:
        """Returns the next piece to send, which may be empty, and whether the answer has ended.

        An incomplete character at the end is held back, and so is whitespace that may be the last.
        """
        if token == self._encoder.eos:
            self._finished = True
            return self._rest(), True
        self._tokens.append(token)
        text = self._encoder.decode(self._tokens).lstrip()
        if prompts.STOP_TEXT in text:
            self._finished = True
        if self._finished or len(self._tokens) == self._limit:
            # The answer ends here, by itself or at the limit: send the rest.
            return self._rest(), True
        if text.endswith("\ufffd"):
            return "", False
        return self._send(text.rstrip()), False

    def whole(self) -> Generated:
        return _generated(self._encoder, self._tokens, self._finished)

    def _rest(self) -> str:
        return self._send(self.whole().text)

    def _send(self, text: str) -> str:
        piece = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return piece


def stream_answers(
    model: Any, encoder: Encoder, asked: Sequence[PendingQuestion]
) -> Iterator[list[tuple[int, str | Generated]]]:
    """Answers several questions in one batch, token by token.

    A row leaves the batch when its answer has ended, or when nobody waits for it any more.

    Yields:
        After each token, pairs of a question's index and a piece of its answer, or the index and
        the whole answer, which its pieces join to.
    """
    live = [index for index, question in enumerate(asked) if not question.gone.is_set()]
    if not live:
        return
    batch = GreedyBatch(model, [encoder.prompt(asked[n].question) for n in live], encoder.eos)
    texts = {n: _Text(encoder, asked[n].max_new_tokens) for n in live}
    while live:
        new: list[tuple[int, str | Generated]] = []
        going_on = []
        for row, (index, token) in enumerate(zip(live, batch.next_tokens(), strict=True)):
            if asked[index].gone.is_set():
                continue
            piece, ended = texts[index].add(token)
            if piece:
                new.append((index, piece))
            if ended:
                new.append((index, texts[index].whole()))
            else:
                going_on.append(row)
        yield new
        if going_on and len(going_on) < len(live):
            batch.keep(going_on)
        live = [live[row] for row in going_on]


def stream_answer(
    model: Any, encoder: Encoder, question: str, max_new_tokens: int
) -> Iterator[str | Generated]:
    """Generates one answer; yields pieces of its text, and then the whole answer."""
    asked = PendingQuestion(question=question, max_new_tokens=max_new_tokens)
    for new in stream_answers(model, encoder, [asked]):
        for _, piece in new:
            yield piece


@torch.inference_mode()
def answer_alone(
    model: Any, encoder: Encoder, question: str, max_new_tokens: int, runner: Runner, name: str
) -> Generated:
    """Generates one answer without a cache: each token takes a whole forward pass.

    As a CUDA graph this is several times faster than passes of one token whose kernels are launched
    one by one. Without CUDA graphs, use `generate_answers`.

    Args:
        model: a causal LM.
        encoder: its tokenizer.
        question: to answer.
        max_new_tokens: limit.
        runner: with CUDA graphs.
        name: identifies the model to the runner.
    """

    def next_token(ids: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        return (logits_at(model, ids, torch.zeros_like(last), last).argmax(-1),)

    asked = encoder.prompt(question)
    width = runner.rounded(len(asked) + max_new_tokens, WIDTH)
    ids = torch.full((1, width), encoder.eos)
    ids[0, : len(asked)] = torch.tensor(asked)
    device = next(model.parameters()).device
    tokens: list[int] = []
    finished = False
    while not finished and len(tokens) < max_new_tokens:
        last = torch.tensor([len(asked) + len(tokens) - 1])
        inputs = (ids.to(device), last.to(device))
        token = int(runner.run(f"next token of {name}", next_token, inputs)[0].item())
        if token == encoder.eos:
            finished = True
            break
        ids[0, len(asked) + len(tokens)] = token
        tokens.append(token)
        finished = prompts.STOP_TEXT in encoder.decode(tokens).lstrip()
    return _generated(encoder, tokens, finished)


def generate_answers(
    model: Any,
    encoder: Encoder,
    questions: Sequence[str],
    max_new_tokens: Sequence[int],
    pause: Pause = no_pause,
) -> list[Generated]:
    """Generates the answers to several questions in one batch; each has its own limit.

    Calls `pause` between two tokens.
    """
    if not questions:
        return []
    rows: list[list[int]] = [[] for _ in questions]
    finished = [False] * len(questions)
    prompt_ids = [encoder.prompt(question) for question in questions]
    for step in greedy_tokens(model, prompt_ids, max(max_new_tokens), encoder.eos):
        for row, token in enumerate(step):
            if finished[row] or len(rows[row]) == max_new_tokens[row]:
                continue
            if token == encoder.eos:
                finished[row] = True
                continue
            rows[row].append(token)
            finished[row] = prompts.STOP_TEXT in encoder.decode(rows[row]).lstrip()
        progress = zip(finished, rows, max_new_tokens, strict=True)
        if all(done or len(row) == limit for done, row, limit in progress):
            break
        pause()
    return [_generated(encoder, row, done) for row, done in zip(rows, finished, strict=True)]


def _generated(encoder: Encoder, tokens: Sequence[int], finished: bool) -> Generated:
    text = encoder.decode(tokens).lstrip().split(prompts.STOP_TEXT)[0].rstrip()
    return Generated(text=text, finished=finished)
