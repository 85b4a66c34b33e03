"""`agent eval --suite continual`: its JSON, its folder, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from eval.teachers import registry
from tests.cli.conftest import Agent
from tests.eval.fake_teacher import FakeTeacher

SHORT = [
    *("eval", "--suite", "continual", "--model", "tiny", "--device", "cpu"),
    *("--facts", "2", "--controls", "3"),
]
FIXED = ("--policy", "fixed", "--learning-rate", "3e-3", "--max-steps", "1")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Teachers `ours` and `other`, which need no model; with the settings they were given."""
    given: dict[str, Any] = {}

    def fake(name: str) -> Any:
        def make(loaded: Any, **settings: Any) -> FakeTeacher:
            given[name] = settings
            return FakeTeacher(name)

        return make

    monkeypatch.setattr(registry, "TEACHERS", {name: fake(name) for name in ("ours", "other")})
    return given


def test_a_real_run_prints_one_object_and_keeps_nothing(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = agent(*SHORT, *FIXED, "--json")
    assert ran.code == 0, ran.err
    result = ran.json
    for field in ("recall", "paraphrase", "transfer", "leak", "control_changed"):
        assert 0 <= result[field] <= 1
        assert result["counts"][field]["total"] > 0
    assert (result["steps_per_fact"], result["ppl_change"]) == (1.0, None)
    assert result["verdicts"] == {"learned": 2}
    assert result["settings"]["policy"]["learning_rate"] == 3e-3
    assert result["settings"]["revision"] == "tiny-1"
    assert list(tmp_path.iterdir()) == []


def test_without_texts_one_sentence_says_how_to_get_them(agent: Agent, fakes: Any) -> None:
    ran = agent(*SHORT)
    assert ran.code == 0
    assert ran.err.count("\n") == 1
    for part in ("--data", "AGENT_EVAL_DATA", "wikitext2_test.jsonl", "docs/how-to/"):
        assert part in ran.err


def test_teachers_stand_beside_each_other_and_only_ours_gets_the_policy(
    agent: Agent, fakes: dict[str, Any]
) -> None:
    ran = agent(*SHORT, *FIXED, "--teachers", "other,ours,other")
    assert ran.code == 0, ran.err
    header = next(line for line in ran.out.split("\n") if "after all facts" in line)
    assert header.index("other") < header.index("ours")
    assert "100.0% (2 of 2; 34.2-100.0%)" in ran.out
    assert fakes["other"] == {}
    assert fakes["ours"]["policy"].name == "fixed"


def test_the_folder_has_the_report_and_the_same_command_prints_it_again(
    agent: Agent, fakes: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = agent(*SHORT, "--out", str(out), "--json").json
    names = {path.name for path in out.iterdir()}
    assert {"results.json", "results.md", "report.html", "recall.png", "ours.jsonl"} <= names
    stored = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert stored["provenance"]["model"] == "tiny"
    assert {"commit", "torch", "transformers", "date", "wall_seconds"} <= set(stored["provenance"])
    fakes.clear()
    again = agent(*SHORT, "--out", str(out), "--json").json
    assert again["teachers"] == first["teachers"]
    assert fakes == {}, "nothing is taught again"


def test_other_settings_in_the_same_folder_are_refused(
    agent: Agent, fakes: Any, tmp_path: Path
) -> None:
    agent(*SHORT, "--out", str(tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    ran = agent(*SHORT, "--seed", "7", "--out", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (2, "")
    assert "seed was 0, now 7" in ran.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_interrupted_run_says_how_to_go_on_and_does(
    agent: Agent, fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    teach = FakeTeacher.teach

    def stopping(self: FakeTeacher, examples: Any) -> Any:
        yield next(iter(teach(self, examples)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FakeTeacher, "teach", stopping)
        ran = agent(*SHORT, "--out", str(out), "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (130, "INTERRUPTED")
    assert f"the same command goes on from {out}" in ran.err
    assert not (out / "results.json").exists()
    assert agent(*SHORT, "--out", str(out), "--json").json["recall"] == 1.0


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--teachers", "ours,magic"), "unknown teacher 'magic'"),
        (("--teachers", ""), "unknown teacher ''"),
        (("--policy", "magic"), "unknown policy 'magic'"),
        (("--learning-rate", "0.5"), "out of range"),
        (("--device", "toaster"), "auto, cpu or cuda"),
        (("--general", "some"), "from 1 on, or 'full'"),
        (("--general", "0"), "from 1 on, or 'full'"),
        (("--facts", "0"), "--facts"),
        (("--controls", "-1"), "--controls"),
        (("--data", "/no/such/folder"), "does not exist"),
        (("--data", "."), "lacks wikitext2_test.jsonl"),
    ],
)
def test_wrong_usage_is_exit_code_2(agent: Agent, flags: tuple[str, str], why: str) -> None:
    ran = agent(*SHORT, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: ")
    assert why in ran.err


def test_two_runs_in_one_folder_are_refused(agent: Agent, fakes: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    agent(*SHORT, "--out", str(out))
    with FileLock(out / "lock"):
        ran = agent(*SHORT, "--out", str(out))
    assert (ran.code, ran.out) == (1, "")
    assert "another run is using" in ran.err


def test_a_folder_of_something_else_is_refused(agent: Agent, fakes: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    ran = agent(*SHORT, "--out", str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert "holds something else" in ran.err


def test_the_list_tells_each_suite_and_its_cost(agent: Agent) -> None:
    assert [suite["name"] for suite in agent("eval", "--list", "--json").json["suites"]] == [
        "probes",
        "continual",
        "zsre",
        "counterfact",
        "paper",
    ]
    listed = agent("eval", "--list").out
    for part in ("probes", "continual", "what it costs"):
        assert part in listed


def test_without_a_suite_it_says_which_there_are(agent: Agent) -> None:
    ran = agent("eval")
    assert (ran.code, ran.out) == (2, "")
    assert "probes, continual" in ran.err
