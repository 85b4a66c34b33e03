"""Free greedy generation for a batch of questions, one token at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from agent.learning import prompts
from agent.learning.encoding import Encoder
from agent.learning.graphs import WIDTH, Runner
from agent.learning.logits import logits_at
from agent.learning.records import Generated


@torch.inference_mode()
def greedy_tokens(
    model: Any, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int, eos: int
) -> Iterator[list[int]]:
    """Yields the next token of every row, until the caller stops or the limit is reached.

    Args:
        model: a causal LM with a key-value cache.
        prompt_ids: B rows of token ids, of any lengths.
        max_new_tokens: how many times to yield at most.
        eos: pads rows on the left; masked out.

    Yields:
        [B] token ids. Rows go on after their terminator: the caller drops what follows.
    """
    device = next(model.parameters()).device
    width = max(map(len, prompt_ids))
    padding = [width - len(row) for row in prompt_ids]
    ids = torch.tensor(
        [[eos] * n + list(row) for n, row in zip(padding, prompt_ids, strict=True)], device=device
    )  # [B, T]
    mask = torch.tensor([[0] * n + [1] * (width - n) for n in padding], device=device)  # [B, T]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # [B, T]
    cache = None
    for _ in range(max_new_tokens):
        out = model(
            input_ids=ids,
            # Without padding no mask is passed: a row is computed as it is when scored.
            attention_mask=mask if any(padding) else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        ids = out.logits[:, -1:].argmax(-1)  # [B, 1]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = positions[:, -1:] + 1
        yield ids[:, 0].tolist()


def stream_answer(
    model: Any, encoder: Encoder, question: str, max_new_tokens: int
) -> Iterator[str | Generated]:
    """Generates one answer; yields pieces of text as they come, then the whole that they join to.

    Text is held back while it ends in an incomplete character, or in space that may be the last.
    """
    tokens: list[int] = []
    sent = 0
    finished = False
    for (token,) in greedy_tokens(model, [encoder.prompt(question)], max_new_tokens, encoder.eos):
        if token == encoder.eos:
            finished = True
            break
        tokens.append(token)
        text = encoder.decode(tokens).lstrip()
        if prompts.STOP_TEXT in text:
            finished = True
            break
        if text.endswith("\ufffd"):
            continue
        text = text.rstrip()
        if text[sent:]:
            yield text[sent:]
            sent = len(text)
    whole = _generated(encoder, tokens, finished)
    if whole.text[sent:]:
        yield whole.text[sent:]  # the last token's part before the end of the line
    yield whole


@torch.inference_mode()
def answer_alone(
    model: Any, encoder: Encoder, question: str, max_new_tokens: int, runner: Runner, name: str
) -> Generated:
    """Generates one answer without a cache, each token by a whole forward pass.

    By a CUDA graph that is several times faster than a pass of one token that is launched kernel
    by kernel. Elsewhere use `generate_answers`.

    Args:
        model: a causal LM.
        encoder: its tokenizer.
        question: to be answered.
        max_new_tokens: limit.
        runner: with graphs.
        name: of the model, to the runner.
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
    model: Any, encoder: Encoder, questions: Sequence[str], max_new_tokens: Sequence[int]
) -> list[Generated]:
    """Generates the answers to several questions in one batch, each with a limit of its own."""
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
    return [_generated(encoder, row, done) for row, done in zip(rows, finished, strict=True)]


def _generated(encoder: Encoder, tokens: Sequence[int], finished: bool) -> Generated:
    text = encoder.decode(tokens).lstrip().split(prompts.STOP_TEXT)[0].rstrip()
    return Generated(text=text, finished=finished)
