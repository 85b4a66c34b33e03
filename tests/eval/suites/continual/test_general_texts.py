"""Perplexity and accuracy, against a plain computation one text at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.errors import ConfigError
from agent.models.loading import LoadedModel, load
from eval.suites.continual import general_texts
from eval.suites.continual.general_texts import (
    DEFAULT_LIMITS,
    FILES,
    LAMBADA,
    MIXED,
    WIKITEXT,
    GeneralScores,
    ScoredText,
    measure_general,
    missing_files,
    read_general_texts,
)

SENTENCES = ["A short one", "Another sentence that is a good deal longer than the first", "Third!"]
PASSAGES = ["He gave her the ring and she took the ring", "No signs here but\n\none of the signs"]


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load("tiny", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Test sets of the right form: 700 bytes of articles, three sentences, two passages."""
    texts = {WIKITEXT: ["x" * 300, "y\u2028" * 100], MIXED: SENTENCES, LAMBADA: PASSAGES}
    for name, lines in texts.items():
        rows = [json.dumps({"text": text}, ensure_ascii=False) for text in lines]
        (tmp_path / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def decoded(loaded: LoadedModel, ids: tuple[int, ...]) -> str:
    return str(loaded.tokenizer.decode(list(ids)))


def alone(model: Any, text: ScoredText) -> tuple[float, bool]:
    """Nats of the scored tokens, one after the other; and whether each is the argmax."""
    nats, greedy = 0.0, True
    for end in range(text.start, len(text.ids)):
        logits = model(input_ids=torch.tensor([text.ids[:end]])).logits[0, -1]
        nats -= logits.log_softmax(-1)[text.ids[end]].item()
        greedy &= logits.argmax().item() == text.ids[end]
    return nats, greedy


@pytest.mark.parametrize("batch_tokens", [1, 60, 2048])
def test_batches_give_what_single_texts_give(
    folder: Path, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
):
    monkeypatch.setattr(general_texts, "WINDOW_TOKENS", 30)
    monkeypatch.setattr(general_texts, "BATCH_TOKENS", batch_tokens)
    limits = {WIKITEXT: 3, MIXED: 10, LAMBADA: 10}
    texts = read_general_texts(folder, tiny.tokenizer, tiny.max_tokens, limits)
    seen: list[tuple[int, int]] = []
    scores = measure_general(tiny.model, texts, lambda *now: seen.append(now))
    for measured, group, count in (
        (scores.wikitext_perplexity, texts.wikitext, 3 * 29),
        (scores.mixed_perplexity, texts.mixed, sum(len(s) - 1 for s in SENTENCES)),
        (scores.lambada_perplexity, texts.lambada, 2),
    ):
        nats = math.fsum(alone(tiny.model, text)[0] for text in group)
        assert measured == pytest.approx(math.exp(nats / count), rel=1e-4)
    assert (scores.wikitext_tokens, scores.lambada_total) == (87, 2)
    assert scores.lambada_correct == sum(alone(tiny.model, text)[1] for text in texts.lambada)
    assert seen[-1] == (8, 8)


def test_a_last_word_counts_only_if_all_its_tokens_are_the_models_choice(tiny: LoadedModel):
    ids = tiny.tokenizer("Once upon a").input_ids
    with torch.no_grad():
        for _ in range(3):
            ids.append(tiny.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
    right = ScoredText(tuple(ids), len(ids) - 3)
    first_wrong = ScoredText((*ids[:-3], (ids[-3] + 1) % 256, *ids[-2:]), len(ids) - 3)
    texts = general_texts.GeneralTexts(
        wikitext=(right,), mixed=(right,), lambada=(right, first_wrong, right)
    )
    scores = measure_general(tiny.model, texts, lambda done, total: None)
    assert (scores.lambada_accuracy.count, scores.lambada_accuracy.total) == (2, 3)


def test_the_last_word_is_scored_with_the_space_before_it(folder: Path, tiny: LoadedModel):
    texts = read_general_texts(folder, tiny.tokenizer, tiny.max_tokens, None)
    scored = [decoded(tiny, text.ids[text.start :]) for text in texts.lambada]
    assert scored == [" ring", " signs"]


def test_a_text_beyond_the_models_context_keeps_its_end(folder: Path, tiny: LoadedModel):
    texts = read_general_texts(folder, tiny.tokenizer, 8, None)
    assert all(len(text.ids) <= 8 for text in texts.lambada + texts.mixed + texts.wikitext)
    assert decoded(tiny, texts.lambada[1].ids[texts.lambada[1].start :]) == " signs"


def test_a_limit_spreads_what_stays_over_the_file(folder: Path, tiny: LoadedModel):
    rows = [json.dumps({"text": f"{number:03d}"}) for number in range(10)]
    (folder / MIXED).write_text("\n".join(rows))
    limits = {**DEFAULT_LIMITS, MIXED: 3}
    texts = read_general_texts(folder, tiny.tokenizer, tiny.max_tokens, limits)
    assert [decoded(tiny, text.ids) for text in texts.mixed] == ["000", "003", "006"]


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "one JSON object"), ("[1]\n", "one JSON object"), ('{"text": 1}', "one JSON object")],
)
def test_files_of_another_form_are_refused(folder: Path, tiny: LoadedModel, content: str, why: str):
    (folder / LAMBADA).write_text(content)
    with pytest.raises(ConfigError, match=why):
        read_general_texts(folder, tiny.tokenizer, tiny.max_tokens, None)


def test_too_little_text_is_refused(folder: Path, tiny: LoadedModel):
    (folder / WIKITEXT).write_text('{"text": "a"}\n')
    with pytest.raises(ConfigError, match="too little text"):
        read_general_texts(folder, tiny.tokenizer, tiny.max_tokens, None)


def test_missing_files_are_named(folder: Path, tmp_path: Path):
    assert missing_files(folder) == []
    assert missing_files(tmp_path / "nothing") == list(FILES)


def test_a_broken_model_gives_numbers_that_json_has():
    scores = GeneralScores(
        wikitext_perplexity=math.inf,
        wikitext_tokens=1,
        mixed_perplexity=math.nan,
        mixed_tokens=1,
        lambada_perplexity=2.0,
        lambada_correct=0,
        lambada_total=1,
    )
    written = json.loads(json.dumps(scores.as_json(), allow_nan=False))
    assert written["wikitext_perplexity"] is None
    assert written["mixed_perplexity"] is None
    assert written["lambada_perplexity"] == 2.0
