"""M2: a changed tokenizer is noticed, and one that is only written differently is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers

from agent.models.loading import load
from agent.models.tokenizer_identity import identify


@pytest.fixture(scope="module")
def file() -> str:
    return load("tiny", device="cpu").tokenizer.backend_tokenizer.to_str()


def rewritten(file: str, **changed: Any) -> str:
    return json.dumps(json.loads(file) | changed)


def test_the_same_file_has_the_same_identity(file: str) -> None:
    assert identify(file) == identify(file)
    assert identify(file).library == tokenizers.__version__


def test_written_differently_it_does_the_same(file: str) -> None:
    pretty = json.dumps(json.loads(file), indent=4)
    assert identify(pretty).file != identify(file).file
    assert identify(pretty).behavior == identify(file).behavior


@pytest.mark.parametrize(
    "changed",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "NFC"}},
    ],
)
def test_one_that_does_something_else_is_another(file: str, changed: dict[str, Any]) -> None:
    assert identify(rewritten(file, **changed)).behavior != identify(file).behavior


def test_another_vocabulary_is_another(file: str) -> None:
    model = json.loads(file)["model"]
    first, second, *_ = model["vocab"]
    vocabulary = model["vocab"]
    swapped = vocabulary | {first: vocabulary[second], second: vocabulary[first]}
    other = rewritten(file, model=model | {"vocab": swapped})
    assert identify(other).behavior != identify(file).behavior
