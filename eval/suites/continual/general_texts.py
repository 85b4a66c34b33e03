"""General damage: what teaching does to text that has nothing to do with the facts.

Three public test sets, read from the user's folder (the project ships none): WikiText-2 and
sentences of mixed origin by perplexity, LAMBADA by accuracy and perplexity. They are only for
measuring; an update must be anchored to other text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.errors import RequestError
from eval.metrics import Count, finite

WIKITEXT = "wikitext2_test.jsonl"
MIXED = "me_ppl_1k.jsonl"
LAMBADA = "lambada_openai_test.jsonl"
FILES = (WIKITEXT, MIXED, LAMBADA)

WINDOW_TOKENS = 256
FULL = "full"
# Texts of each set, so that a measurement of a small model takes a minute or two on two cores.
DEFAULT_LIMITS = {WIKITEXT: 100, MIXED: 300, LAMBADA: 300}
# Tokens in one forward pass, padding included: bounds the logits (tokens times vocabulary).
BATCH_TOKENS = 2048

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A text whose tokens from `start` on are scored, each given all tokens before it."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralTexts:
    """The texts that a model is measured on, as its tokens.

    Attributes:
        wikitext: windows of `WINDOW_TOKENS` tokens.
        mixed: sentences.
        lambada: passages; only the last word is scored.
    """

    wikitext: tuple[ScoredText, ...]
    mixed: tuple[ScoredText, ...]
    lambada: tuple[ScoredText, ...]

    def __len__(self) -> int:
        return len(self.wikitext) + len(self.mixed) + len(self.lambada)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralScores:
    """How well a model predicts the texts.

    Attributes:
        wikitext_perplexity: per token.
        wikitext_tokens: tokens scored.
        mixed_perplexity: per token.
        mixed_tokens: tokens scored.
        lambada_perplexity: per last word, as lm-evaluation-harness reports it.
        lambada_correct: last words that greedy decoding yields.
        lambada_total: passages.
    """

    wikitext_perplexity: float
    wikitext_tokens: int
    mixed_perplexity: float
    mixed_tokens: int
    lambada_perplexity: float
    lambada_correct: int
    lambada_total: int

    @property
    def lambada_accuracy(self) -> Count:
        """How many last words were predicted."""
        return Count(count=self.lambada_correct, total=self.lambada_total)

    def as_json(self) -> dict[str, Any]:
        """All fields; a perplexity that is not finite (the model broke) as None."""
        return {name: finite(number) for name, number in asdict(self).items()}


def read_general_texts(
    folder: Path, tokenizer: Any, max_tokens: int, limits: dict[str, int] | None
) -> GeneralTexts:
    """Reads the test sets.

    If a limit leaves texts out, the others are spread evenly over the file.

    Args:
        folder: holds `FILES`, JSON lines with `text`.
        tokenizer: of the model, a Hugging Face fast tokenizer.
        max_tokens: longest sequence of the model; longer texts keep their end.
        limits: how many texts of each file; None for all.

    Raises:
        RequestError: a file is missing or malformed.
    """

    def spread(name: str, texts: Sequence[ScoredText]) -> tuple[ScoredText, ...]:
        if not texts:
            raise RequestError("data", f"{folder / name} has too little text to measure on")
        wanted = len(texts) if limits is None else min(limits[name], len(texts))
        return tuple(texts[i * len(texts) // wanted] for i in range(wanted))

    def encode(text: str) -> tuple[int, ...]:
        # A tokenizer warns about texts longer than its model allows; they are cut below.
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return tuple(ids)

    articles = encode("\n\n".join(_texts(folder / WIKITEXT)))
    size = min(WINDOW_TOKENS, max_tokens)
    windows = [
        ScoredText(articles[at : at + size], 1) for at in range(0, len(articles) - size + 1, size)
    ]
    sentences = [ScoredText(encode(t)[-max_tokens:], 1) for t in _texts(folder / MIXED)]
    passages = [_passage(encode, t, max_tokens) for t in _texts(folder / LAMBADA)]
    return GeneralTexts(
        wikitext=spread(WIKITEXT, windows),
        mixed=spread(MIXED, [s for s in sentences if len(s.ids) > 1]),
        lambada=spread(LAMBADA, passages),
    )


def text_limits(general: str | None) -> dict[str, int] | None:
    """How many texts of each file are measured; None for all.

    Args:
        general: a number for each of them, `full` for all, None for `DEFAULT_LIMITS`.

    Raises:
        RequestError: it is none of these.
    """
    if general is None:
        return DEFAULT_LIMITS
    if general == FULL:
        return None
    if not general.isdecimal() or not int(general):
        raise RequestError("general", f"give a number from 1 on, or '{FULL}'")
    return dict.fromkeys(FILES, int(general))


def missing_files(folder: Path) -> list[str]:
    """Names of test sets that a folder lacks."""
    return [name for name in FILES if not (folder / name).is_file()]


def measure_general(model: Any, texts: GeneralTexts, progress: Progress) -> GeneralScores:
    """Scores a model on all texts.

    Args:
        model: a causal LM in fp32.
        texts: tokens of its tokenizer.
        progress: called with texts done and texts in all.
    """
    done = 0

    def score(group: Sequence[ScoredText]) -> tuple[float, int, int]:
        """Nats and tokens in all, and texts whose scored tokens are all the most probable."""
        nonlocal done
        nats, tokens, greedy = [0.0], 0, 0
        for batch in _batches(group):
            batch_nats, batch_greedy = _score(model, batch)
            nats += batch_nats
            greedy += sum(batch_greedy)
            tokens += sum(len(text.ids) - text.start for text in batch)
            done += len(batch)
            progress(done, len(texts))
        return math.fsum(nats), tokens, greedy

    wikitext, wikitext_tokens, _ = score(texts.wikitext)
    mixed, mixed_tokens, _ = score(texts.mixed)
    lambada, _, lambada_correct = score(texts.lambada)
    return GeneralScores(
        wikitext_perplexity=_perplexity(wikitext, wikitext_tokens),
        wikitext_tokens=wikitext_tokens,
        mixed_perplexity=_perplexity(mixed, mixed_tokens),
        mixed_tokens=mixed_tokens,
        lambada_perplexity=_perplexity(lambada, len(texts.lambada)),
        lambada_correct=lambada_correct,
        lambada_total=len(texts.lambada),
    )


def _texts(path: Path) -> Iterator[str]:
    try:
        # Not splitlines: it also splits at separators that JSON does not escape.
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line)["text"] for line in lines if line]
    except OSError as error:
        raise RequestError("data", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            "data", f"{path} must hold one JSON object with 'text' on each line"
        ) from error
    if not rows or not all(isinstance(row, str) for row in rows):
        raise RequestError("data", f"{path} must hold one JSON object with 'text' on each line")
    yield from rows


def _passage(encode: Callable[[str], tuple[int, ...]], text: str, max_tokens: int) -> ScoredText:
    """A LAMBADA passage, scored from where the tokens of all but the last word end."""
    context = text.rpartition(" ")[0]
    ids = encode(text)
    start = len(encode(context))
    cut = max(len(ids) - max_tokens, 0)
    return ScoredText(ids[cut:], max(start - cut, 1))


def _batches(texts: Sequence[ScoredText]) -> Iterator[list[ScoredText]]:
    """Groups texts of similar lengths, so that little of a batch is padding."""
    batch: list[ScoredText] = []
    # The longest first, so that a batch that does not fit in memory fails at once.
    for text in sorted(texts, key=lambda text: -len(text.ids)):
        if batch and (len(batch) + 1) * len(batch[0].ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


@torch.inference_mode()
def _score(model: Any, batch: Sequence[ScoredText]) -> tuple[list[float], list[bool]]:
    """Nats of each text's scored tokens, and whether each of them is the most probable one."""
    device = next(model.parameters()).device
    width = len(batch[0].ids)
    # Padding on the right needs no mask: causal attention never looks there.
    ids = torch.tensor([[*text.ids, *[0] * (width - len(text.ids))] for text in batch])  # [B, T]
    ids = ids.to(device)
    logits = model(input_ids=ids, use_cache=False).logits  # [B, T, V]
    nats, greedy = [], []
    for row, text in enumerate(batch):
        scored = slice(text.start, len(text.ids))
        predicted: Tensor = logits[row, text.start - 1 : len(text.ids) - 1].float()  # [N, V]
        target = ids[row, scored]  # [N]
        nats.append(F.cross_entropy(predicted, target, reduction="sum").item())
        greedy.append(bool((predicted.argmax(-1) == target).all()))
    return nats, greedy


def _perplexity(nats: float, count: int) -> float:
    """exp(nats / count); infinite if it is too large for a float."""
    try:
        return math.exp(nats / count)
    except OverflowError:
        return math.inf
