"""`agent eval --suite paper` and `agent eval compare`: folders, JSON, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.suites.paper import model_backend
from tests.cli.conftest import Agent
from tests.eval.suites.paper.fake_backend import FakeBackend

SMOKE = [
    *("eval", "--suite", "paper", "--model", "tiny", "--device", "cpu", "--scale", "smoke"),
    *("--experiments", "2", "--fact-sets", "paper"),
]


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> list[FakeBackend]:
    """The backends that runs made; they need no model."""
    made: list[FakeBackend] = []

    def make(loaded: Any, *, seed: int, estimates: bool) -> FakeBackend:
        made.append(FakeBackend(seed))
        return made[-1]

    monkeypatch.setattr(model_backend, "ModelBackend", make)
    return made


def test_without_a_folder_it_prints_one_object_and_keeps_nothing(
    agent: Agent, backends: list[FakeBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = agent(*SMOKE, "--json")
    assert ran.code == 0, ran.err
    result = ran.json
    assert (result["suite"], result["model"]) == ("paper", "tiny")
    assert result["settings"]["protocol"] == "code"
    assert result["scale"].startswith("REDUCED SCALE")
    assert "REDUCED SCALE" in ran.err
    assert result["counts"]["2 paper: Zogron retention after"]["total"] == 8
    assert len(result["findings"]["2"]) == 3
    assert list(tmp_path.iterdir()) == []


def test_the_folder_has_the_report_and_the_same_command_reads_it_again(
    agent: Agent, backends: list[FakeBackend], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = agent(*SMOKE, "--out", str(out), "--json").json
    names = {path.name for path in out.iterdir()}
    assert {"results.json", "report.md", "report.html", "cells.sqlite", "settings.json"} <= names
    stored = json.loads((out / "results.json").read_text(encoding="utf-8"))
    expected = {"commit", "revision", "device", "torch", "seed", "protocol", "scale", "date"}
    expected |= {"wall_seconds", "tokens_sampled"}
    assert expected <= set(stored["provenance"])
    assert agent(*SMOKE, "--out", str(out), "--json").json == first
    assert backends[1].asked == []
    compared = agent("eval", "compare", str(out), str(out), "--json").json
    assert compared["settings"] == {}
    assert {count["second_is"] for count in compared["counts"]} == {"no clear difference"}
    shown = agent("eval", "compare", str(out), str(out))
    assert shown.code == 0
    assert "2 paper: Zogron retention after" in shown.out


def test_an_interrupted_run_says_how_to_go_on_and_does(
    agent: Agent, backends: list[FakeBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    step = FakeBackend.step
    with monkeypatch.context() as patched:

        def stopped(self: FakeBackend, pairs: Any, rate: float) -> float:
            raise KeyboardInterrupt

        patched.setattr(FakeBackend, "step", stopped)
        ran = agent(*SMOKE, "--out", str(out), "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (130, "INTERRUPTED")
    assert f"the same command goes on from {out}" in ran.err
    assert not (out / "results.json").exists()
    assert FakeBackend.step is step
    assert agent(*SMOKE, "--out", str(out)).code == 0
    assert len(backends[1].asked) == 40  # the base model's cells were stored


def test_other_settings_in_the_same_folder_are_refused(
    agent: Agent, backends: list[FakeBackend], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    agent(*SMOKE, "--out", str(out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    ran = agent(*SMOKE, "--seed", "7", "--protocol", "paper", "--out", str(out))
    assert (ran.code, ran.out) == (2, "")
    assert "seed was 0, now 7" in ran.err
    assert "protocol was 'code', now 'paper'" in ran.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_several_models_have_a_folder_each_and_an_overview(
    agent: Agent, backends: list[FakeBackend], tmp_path: Path, model_folder: Path
) -> None:
    out = tmp_path / "out"
    ran = agent(*SMOKE, "--models", f"tiny,{model_folder}", "--out", str(out), "--json")
    assert ran.code == 0, ran.err
    assert [found["model"] for found in ran.json["models"]] == ["tiny", str(model_folder)]
    for name in ("tiny", model_folder.name):
        assert (out / name / "results.json").exists()
    assert "replayed with 2 models" in (out / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as files, under another name."""
    from agent.models.tiny import build_tiny

    folder = tmp_path_factory.mktemp("models") / "tiny-saved"
    model, tokenizer = build_tiny()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--experiments", "1,5"), "unknown experiment '5'"),
        (("--experiments", ""), "unknown experiment ''"),
        (("--protocol", "magic"), "choose code or paper"),
        (("--scale", "2"), "above 0 and up to 1"),
        (("--fact-sets", "paper,mine"), "unknown facts 'mine'"),
        (("--model", "no-such-model"), "No model named"),
        (("--models", "tiny,no-such-model"), "No model named"),
        (("--device", "toaster"), "auto, cpu or cuda"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    agent: Agent, flags: tuple[str, str], why: str, tmp_path: Path
) -> None:
    ran = agent(*SMOKE, *flags, "--out", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: ")
    assert why in ran.err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_causal_is_refused(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ran = agent(*SMOKE, "--model", str(folder), "--out", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (2, "")
    assert "not a causal language model" in ran.err
    assert not (tmp_path / "out").exists()


def test_cuda_that_is_not_there_is_refused(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = agent(*SMOKE, "--device", "cuda", "--out", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (2, "")
    assert "torch sees no CUDA device" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    ran = agent(*SMOKE, "--out", str(tmp_path))
    assert ran.code == 2
    assert "holds something else" in ran.err
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_compare_refuses_what_is_no_run(agent: Agent, tmp_path: Path) -> None:
    ran = agent("eval", "compare", str(tmp_path), str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert "has no results.json" in ran.err


def test_the_list_of_suites_tells_the_cost(agent: Agent) -> None:
    suites = {suite["name"]: suite for suite in agent("eval", "--list", "--json").json["suites"]}
    assert "five million" in suites["paper"]["costs"]
