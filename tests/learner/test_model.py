"""Loading real checkpoint formats from folders, and every way in which that must not go well."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from agent.errors import ConfigError, ModelError, NotCausalLanguageModelError
from agent.models.loading import LoadedModel, choose_device, load
from agent.models.tiny import build_tiny

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    model, tokenizer = build_tiny()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


def load_cpu(folder: Path) -> LoadedModel:
    return load(str(folder), device="cpu")


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- What works -----------------------------------------------------------------------------------


def test_a_folder_comes_back_as_it_was_saved(folder: Path):
    original, _ = build_tiny()
    loaded = load_cpu(folder)
    assert loaded.name == str(folder)
    assert (loaded.max_tokens, loaded.eos_token_id, loaded.tokenizer.pad_token_id) == (
        512,
        256,
        256,
    )
    assert not loaded.model.training
    assert loaded.model.config._attn_implementation == "eager"
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name])


def test_the_revision_follows_the_weights_and_nothing_else(folder: Path):
    first = load_cpu(folder).revision
    change_json(folder / "config.json", transformers_version="0.0")
    assert load_cpu(folder).revision == first
    weights = load_file(folder / "model.safetensors")
    weights["embed_out.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert load_cpu(folder).revision != first


def test_half_precision_becomes_fp32(folder: Path):
    build_tiny()[0].half().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    loaded = load_cpu(folder)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def test_tied_weights_stay_tied(folder: Path):
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model: Any = load_cpu(folder).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_context_is_capped(folder: Path):
    change_json(folder / "config.json", max_position_embeddings=8192)
    assert load_cpu(folder).max_tokens == 2048


def test_a_bare_tokenizer_file_gets_its_end_from_the_config(folder: Path):
    (folder / "tokenizer_config.json").unlink()
    loaded = load_cpu(folder)
    assert loaded.eos_token_id == loaded.tokenizer.pad_token_id == 256
    assert loaded.tokenizer("ab").input_ids == [97, 98]


# --- Pythia's format ------------------------------------------------------------------------------


@pytest.fixture
def pythia(tmp_path: Path) -> Path:
    """A folder with the real config and tokenizer of pythia-410m."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    source = Path(os.environ.get("AGENT_SHARED_DATA", default)) / "pythia-tokenizer"
    if not source.is_dir():
        pytest.skip(f"no {source}: set AGENT_SHARED_DATA to the folder of the shared data")
    shutil.copyfile(source / "tokenizer.json", tmp_path / "tokenizer.json")
    shutil.copyfile(source / "pythia-410m-config.json", tmp_path / "config.json")
    return tmp_path


def write_random_weights(folder: Path) -> None:
    """Fills a checkpoint of the folder's config with numbers of a plausible size, in fp32."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        shapes = {
            name: tensor.shape
            for name, tensor in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    weights = {name: torch.empty(shape).uniform_(-0.03, 0.03) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def assert_works_as_pythia(loaded: LoadedModel) -> None:
    assert type(loaded.model).__name__ == "GPTNeoXForCausalLM"
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert (loaded.max_tokens, loaded.eos_token_id) == (2048, 0)
    assert loaded.tokenizer.eos_token == loaded.tokenizer.pad_token == "<|endoftext|>"
    encoded = loaded.tokenizer("What is the hottest month in Kyzara?", return_tensors="pt")
    assert loaded.tokenizer.decode(encoded.input_ids[0]) == "What is the hottest month in Kyzara?"
    model: Any = loaded.model
    generated = model.generate(**encoded, max_new_tokens=1, do_sample=False)
    assert generated.shape[1] == encoded.input_ids.shape[1] + 1


def test_pythias_format_in_small(pythia: Path):
    small = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4}
    change_json(pythia / "config.json", num_hidden_layers=2, **small)
    write_random_weights(pythia)
    assert_works_as_pythia(load_cpu(pythia))


@pytest.mark.slow
def test_exactly_pythia_410m(pythia: Path):
    write_random_weights(pythia)
    loaded = load_cpu(pythia)
    assert parameters(loaded.model) == 405_334_016
    assert_works_as_pythia(loaded)


# --- What is refused ------------------------------------------------------------------------------


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["gpt_neox.layers.1.mlp.dense_4h_to_h.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def spoil_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["embed_out.weight"][7, 7] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def lose_shard(folder: Path) -> None:
    weight_map = {"embed_out.weight": "model-00001-of-00002.safetensors"}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def no_end_token(folder: Path, eos_token_id: int | None = None) -> None:
    (folder / "tokenizer_config.json").unlink()
    change_json(folder / "config.json", eos_token_id=eos_token_id)


REFUSED: dict[str, tuple[Damage, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "bad config": (lambda f: (f / "config.json").write_text("{"), "Cannot read .*config.json"),
    "unknown type": (lambda f: change_json(f / "config.json", model_type="zz"), "Cannot read"),
    "quantized": (
        lambda f: change_json(f / "config.json", quantization_config={"quant_method": "gptq"}),
        "quantized weights",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "only pickle": (pickle_only, "only as pickle .*convert them to safetensors"),
    "truncated": (truncate, "Cannot load the weights"),
    "garbage": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "Cannot load the wei"),
    "lost shard": (lose_shard, "Cannot load the weights"),
    "missing weight": (drop_weight, "lacks weights: gpt_neox.layers.1.mlp.dense_4h_to_h.weight"),
    "other shape": (lambda f: change_json(f / "config.json", hidden_size=32), "Cannot load the w"),
    "more layers": (lambda f: change_json(f / "config.json", num_hidden_layers=3), "lacks weights"),
    "not a number": (spoil_weight, "NaN or infinity"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
    "bad tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is dam"),
    "no end token": (no_end_token, "set eos_token_id"),
    "end out of range": (
        lambda f: no_end_token(f, eos_token_id=999),
        "set eos_token_id",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_checkpoint_says_what_is_wrong(folder: Path, case: str):
    damage, message = REFUSED[case]
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load_cpu(folder)


def test_the_tokenizer_must_fit_the_model(folder: Path):
    _, tokenizer = build_tiny()
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="258 tokens but the model only 257"):
        load_cpu(folder)


SMALL_BERT: dict[str, Any] = {
    "vocab_size": 257,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def test_an_encoder_is_refused(folder: Path):
    BertForMaskedLM(BertConfig(**SMALL_BERT)).save_pretrained(folder)
    with pytest.raises(NotCausalLanguageModelError, match="is a BertForMaskedLM, not a causal"):
        load_cpu(folder)


def test_an_encoder_decoder_is_refused(folder: Path):
    config = T5Config(vocab_size=257, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    with pytest.raises(NotCausalLanguageModelError, match="T5ForConditionalGeneration"):
        load_cpu(folder)


def test_an_encoder_in_disguise_is_found_out(folder: Path):
    BertLMHeadModel(BertConfig(**SMALL_BERT, initializer_range=0.5)).save_pretrained(folder)
    with pytest.raises(NotCausalLanguageModelError, match="looks at later tokens"):
        load_cpu(folder)


# --- Devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["tpu", "", "cuda:", "cuda:x", "cpu:1", "CPU"])
def test_an_unknown_device_is_a_setting_to_mend(device: str):
    with pytest.raises(ConfigError, match="choose"):
        choose_device(device)


def test_cuda_must_be_there_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        load("tiny", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="this machine has 1 CUDA"):
        choose_device("cuda:1")
