"""Model folders that want to run code, or to lead elsewhere: none of it is followed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ModelError
from agent.models.loading import load
from agent.models.tiny import build_tiny

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    model, tokenizer = build_tiny()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A good checkpoint, with a pickle and a module beside it that leave a mark if they are run."""
    folder = Path(shutil.copytree(pristine, tmp_path / "checkpoint"))
    mark = tmp_path / "was-run"
    for name in ("pytorch_model.bin", "adapter_model.bin"):
        with (folder / name).open("wb") as file:
            pickle.dump(_Marking(mark), file)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    return folder


class _Marking:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def was_run(folder: Path) -> bool:
    return (folder.parent / "was-run").exists()


def write_index(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"weight": name}}))


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_mark_would_be_seen(folder: Path) -> None:
    with (folder / "pytorch_model.bin").open("rb") as file:
        pickle.load(file)
    assert was_run(folder)


def test_a_pickle_alone_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"only as pickle \(adapter_model.bin, pytorch_model.bin"):
        load(str(folder), device="cpu")
    assert not was_run(folder)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "../other/model.safetensors",
        "/etc/model.safetensors",
        "sub/m.safetensors",
    ],
)
def test_an_index_leads_to_safetensors_beside_it_only(folder: Path, name: str) -> None:
    write_index(folder, name)
    with pytest.raises(ModelError, match=r"only \.safetensors files of the same folder"):
        load(str(folder), device="cpu")
    assert not was_run(folder)


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": 3}', "[" * 100_000])
def test_an_index_that_is_none_is_told(folder: Path, content: str) -> None:
    write_index(folder, "")
    (folder / INDEX).write_text(content)
    with pytest.raises(ModelError, match=r"index\.json is damaged"):
        load(str(folder), device="cpu")


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/somewhere/else"}')
    with pytest.raises(ModelError, match="holds an adapter"):
        load(str(folder), device="cpu")
    assert not was_run(folder)


def test_code_that_a_config_names_is_not_run(folder: Path) -> None:
    auto_map = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    change_json(folder / "config.json", auto_map=auto_map)
    tokenizers = {"AutoTokenizer": ["evil.T", "evil.T"]}
    change_json(folder / "tokenizer_config.json", auto_map=tokenizers)
    assert type(load(str(folder), device="cpu").model).__module__.startswith("transformers.")
    assert not was_run(folder)


def test_a_model_that_is_nothing_without_its_code_is_refused(folder: Path) -> None:
    auto_map = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    change_json(folder / "config.json", auto_map=auto_map, model_type="evil")
    with pytest.raises(ModelError, match="needs code of its own"):
        load(str(folder), device="cpu")
    assert not was_run(folder)
