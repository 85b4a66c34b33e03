"""General text: the same for the same weights, kept beside the models, and free of padding."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agent.learner.inference.encoding import Encoder
from agent.learner.training import general_text
from agent.learner.training.general_text import (
    COUNTS,
    TOKENS,
    VERSION,
    GeneralText,
    GeneralTextPool,
    general_texts,
)
from agent.models import catalog
from agent.models.loading import LoadedModel, load
from tests.learner.models import one_thread

COUNT = COUNTS["cpu"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load("tiny", device="cpu")


@pytest.fixture(scope="module")
def encoder(loaded: LoadedModel) -> Encoder:
    return Encoder(loaded.tokenizer, loaded.eos_token_id, loaded.device)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test; the folder of the texts in it."""
    monkeypatch.setattr(catalog, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "general-text"


def kept(folder: Path, loaded: LoadedModel) -> Path:
    return folder / f"{loaded.revision}-{VERSION}-{COUNT}.json"


def never(*_: object) -> list[list[int]]:
    raise AssertionError("the texts were written anew")


def test_the_same_weights_write_the_same_texts(loaded: LoadedModel, encoder: Encoder, cache: Path):
    texts = general_texts(loaded, encoder)
    kept(cache, loaded).unlink()
    torch.manual_seed(99)  # the stream of others is no part of it
    before = torch.get_rng_state()
    assert general_texts(loaded, encoder) == texts
    assert torch.equal(torch.get_rng_state(), before)


def test_other_weights_write_others(loaded: LoadedModel, encoder: Encoder):
    texts = general_texts(loaded, encoder)
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(-1)
    assert general_texts(replace(loaded, model=model, revision="other"), encoder) != texts


def test_texts_have_their_number_their_length_and_no_padding(loaded: LoadedModel, encoder: Encoder):
    texts = general_texts(loaded, encoder)
    assert len(texts) == COUNT
    for text in texts:
        assert encoder.eos not in text[:-1]  # which is the padding token too
        assert len(text) == TOKENS or text[-1] == encoder.eos
        assert all(0 <= token < len(loaded.tokenizer) for token in text)
    assert any(text[-1] == encoder.eos for text in texts)  # some do end early
    asked = encoder.encode("Q:")
    assert sum(text[: len(asked)] == asked for text in texts) >= COUNT // 3
    assert len({tuple(text) for text in texts}) > COUNT // 2


def test_a_model_of_short_contexts_writes_short_texts(loaded: LoadedModel, encoder: Encoder):
    texts = general_texts(replace(loaded, max_tokens=7, revision="short"), encoder)
    assert max(map(len, texts)) == 7


def test_texts_are_kept_and_read_again(
    loaded: LoadedModel, encoder: Encoder, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    texts = general_texts(loaded, encoder)
    assert json.loads(kept(cache, loaded).read_text()) == texts
    assert [file.name for file in cache.iterdir()] == [kept(cache, loaded).name]
    monkeypatch.setattr(general_text, "_written", never)
    assert general_texts(loaded, encoder) == texts


def test_those_of_other_weights_or_of_another_version_are_not_read(
    loaded: LoadedModel, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    general_texts(loaded, encoder)
    monkeypatch.setattr(general_text, "_written", never)
    with pytest.raises(AssertionError, match="anew"):
        general_texts(replace(loaded, revision="other"), encoder)
    monkeypatch.setattr(general_text, "VERSION", VERSION + 1)
    with pytest.raises(AssertionError, match="anew"):
        general_texts(loaded, encoder)


@pytest.mark.parametrize("damage", [b"", b"[[1, 2], [3", b"\xff\xfe\x00"])
def test_a_damaged_file_is_written_anew(
    loaded: LoadedModel,
    encoder: Encoder,
    cache: Path,
    damage: bytes,
    caplog: pytest.LogCaptureFixture,
):
    texts = general_texts(loaded, encoder)
    file = kept(cache, loaded)
    file.write_bytes(damage)
    assert general_texts(loaded, encoder) == texts
    assert json.loads(file.read_text()) == texts
    assert f"{file} is damaged" in caplog.text


def test_where_nothing_can_be_kept_they_are_written_all_the_same(
    loaded: LoadedModel, encoder: Encoder, cache: Path, caplog: pytest.LogCaptureFixture
):
    texts = general_texts(loaded, encoder)
    kept(cache, loaded).unlink()
    cache.rmdir()
    cache.write_text("a file in place of the folder")
    assert general_texts(loaded, encoder) == texts
    assert "cannot read" in caplog.text
    assert "cannot keep" in caplog.text


# --- M1: a memory keeps its own copy --------------------------------------------------------------


def own_text(loaded: LoadedModel, encoder: Encoder, folder: Path) -> GeneralText:
    pool = GeneralTextPool(loaded, encoder, folder)
    assert pool.digest == ""
    text = GeneralText(pool.texts())
    assert pool.digest == text.digest
    return text


def own_file(folder: Path) -> Path:
    return folder / f"{VERSION}-{COUNT}.json"


def test_a_memory_keeps_the_text_that_it_was_taught_with(
    loaded: LoadedModel,
    encoder: Encoder,
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    own = own_text(loaded, encoder, tmp_path / "data")
    assert own.texts == general_texts(loaded, encoder)
    # Other hardware or libraries wrote another text into the cache.
    other = [[1, 2, 3], *own.texts[1:]]
    kept(cache, loaded).write_text(json.dumps(other))
    assert GeneralText(other).digest != own.digest
    assert own_text(loaded, encoder, tmp_path / "data") == own
    assert "not the one that this memory was taught with" in caplog.text
    assert own_text(loaded, encoder, tmp_path / "new").texts == other


def test_a_copy_that_is_missing_is_made_again_with_the_same_digest(
    loaded: LoadedModel, encoder: Encoder, cache: Path, tmp_path: Path
):
    own = own_text(loaded, encoder, tmp_path)
    own_file(tmp_path).unlink()
    kept(cache, loaded).unlink()
    assert own_text(loaded, encoder, tmp_path).digest == own.digest
    assert own_file(tmp_path).exists()


@pytest.mark.parametrize("damage", ["{}", "[]", '{"digest": "0", "texts": [[1]]}', "{"])
def test_a_damaged_copy_is_found_by_its_digest(
    loaded: LoadedModel,
    encoder: Encoder,
    tmp_path: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
):
    own = own_text(loaded, encoder, tmp_path)
    own_file(tmp_path).write_text(damage)
    assert own_text(loaded, encoder, tmp_path) == own
    assert "is damaged" in caplog.text
    assert json.loads(own_file(tmp_path).read_text())["digest"] == own.digest
