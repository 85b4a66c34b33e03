"""What a model's name means, and that asking it costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from agent.errors import ModelNotFoundError
from agent.models import catalog
from agent.models.catalog import Source, resolve


def test_the_known_names_start_with_the_default():
    names = [entry.name for entry in catalog.entries()]
    assert names[0] == catalog.DEFAULT_MODEL == "pythia-410m"
    assert {"smollm2-135m", "tiny", "pythia-14m", "pythia-1b"} < set(names)
    assert all(resolve(entry.name) == entry for entry in catalog.entries())


def test_a_hub_id_of_a_known_model_is_that_model():
    assert resolve("EleutherAI/pythia-410m") is resolve("pythia-410m")


def test_any_other_hub_id_is_taken_as_it_is():
    entry = resolve("Qwen/Qwen2.5-0.5B")
    assert (entry.source, entry.location) == (Source.HUB, "Qwen/Qwen2.5-0.5B")


def test_a_folder_is_a_model_but_a_known_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert resolve("tiny").source is Source.BUILT_IN
    assert resolve("./tiny").location == str(tmp_path / "tiny")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert resolve("owner/name").source is Source.FOLDER


@pytest.mark.parametrize("name", ["", "nope", "./absent", "/absent/x", "a/b/c", "../x", "a\n/b"])
def test_an_unknown_name_lists_the_known_ones(name: str):
    with pytest.raises(ModelNotFoundError, match=r"Known names: pythia-410m, .*smollm2-135m"):
        resolve(name)


def test_a_slip_of_the_pen_is_recognised():
    with pytest.raises(ModelNotFoundError, match="Did you mean smollm2-135m"):
        resolve("SmolLM-135m")


def test_a_file_is_not_a_model(tmp_path: Path):
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(ModelNotFoundError, match="is a file: give the folder"):
        resolve(str(file))


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_CACHE", str(tmp_path))
    assert catalog.cache_folder() == tmp_path
    assert not catalog.is_cached(resolve("smollm2-135m"))
    assert catalog.is_cached(resolve("tiny"))
    monkeypatch.delenv("AGENT_CACHE")
    assert catalog.cache_folder().name == "continual-agent"


def test_an_interrupted_download_does_not_count_as_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    entry = resolve("owner/name")
    assert not catalog.is_cached(entry)
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    for name in ("config.json", "tokenizer.json"):
        (snapshot / name).write_text("{}")
    assert not catalog.is_cached(entry)

    index = snapshot / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}')
    (snapshot / "model-1.safetensors").touch()
    assert not catalog.is_cached(entry)
    (snapshot / "model-2.safetensors").touch()
    assert catalog.is_cached(entry)
    assert catalog.cached_snapshot("owner/name", "c0ffee") == snapshot


def test_the_catalog_does_without_torch():
    code = (
        "import sys; from agent.models import catalog; import agent.errors;"
        "[catalog.is_cached(e) for e in catalog.entries()];"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
