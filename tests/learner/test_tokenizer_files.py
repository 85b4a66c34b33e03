"""What a server knows of a model's tokenizer before the model is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.learner.core import Learner
from agent.models import catalog
from agent.models.loading import load
from agent.models.tiny_tokenizer import MAX_TOKENS, build_tiny_tokenizer
from agent.models.token_budget import MAX_FACT_TOKENS
from agent.models.tokenizer_files import read_tokenizer

TOKENIZER = build_tiny_tokenizer().to_str()


def folder_with(folder: Path, config: Any = None, tokenizer: str | None = TOKENIZER) -> Path:
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_tiny_is_read_as_its_learner_describes_it() -> None:
    source = read_tokenizer(catalog.resolve("tiny"))
    described = Learner(load("tiny", device="cpu")).describe()
    assert source is not None
    assert json.loads(source.tokenizer)["model"] == json.loads(described.tokenizer)["model"]
    assert source.max_tokens == described.max_tokens == MAX_TOKENS


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 128}, 128),
        ({"n_positions": 64}, 64),
        ({"max_position_embeddings": 16, "text_config": {"max_position_embeddings": 99}}, 99),
        ({"max_position_embeddings": None}, MAX_FACT_TOKENS),
        ({}, MAX_FACT_TOKENS),
        (None, MAX_FACT_TOKENS),
    ],
)
def test_a_folder_says_how_long_a_text_may_be(tmp_path: Path, config: Any, context: int) -> None:
    source = read_tokenizer(catalog.resolve(str(folder_with(tmp_path, config))))
    assert source is not None
    assert (source.tokenizer, source.max_tokens) == (TOKENIZER, context)


def test_a_folder_without_tokenizer_json_says_nothing(tmp_path: Path) -> None:
    assert read_tokenizer(catalog.resolve(str(folder_with(tmp_path, {}, tokenizer=None)))) is None


@pytest.mark.parametrize("name", ["smollm2-135m", "pythia-14m"])
def test_a_model_that_is_not_here_yet_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(catalog.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(catalog, "cached_snapshot", lambda hub_id: None)
    assert read_tokenizer(catalog.resolve(name)) is None


def test_a_hub_model_is_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "cached_snapshot", lambda hub_id: folder_with(tmp_path, {}))
    source = read_tokenizer(catalog.resolve("pythia-14m"))
    assert source is not None
    assert source.tokenizer == TOKENIZER


@pytest.mark.parametrize("config", ["{", "[]"])
def test_a_damaged_config_is_a_value_error(tmp_path: Path, config: str) -> None:
    (folder_with(tmp_path) / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json|property name"):
        read_tokenizer(catalog.resolve(str(tmp_path)))


def test_reading_takes_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from agent.models import catalog, tokenizer_files;"
        "tokenizer_files.read_tokenizer(catalog.resolve('tiny'));"
        "print(*{'torch', 'transformers'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
