"""Learning without a server: the same learner and ledger, in this process."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import Guards, Learner, Policy
from agent.config import DATABASE
from agent.errors import ConfigError, InvalidFactError, SnapshotError
from agent.teaching import rates
from agent.teaching.guard_presets import REHEARSAL
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.undo import request_forget
from memory_store.vocabulary import FactState, ProbeKind, Step, Verdict

POLICY = Policy(name="until-known", learning_rate=3e-3, max_steps=100, guards=REHEARSAL)
HOPELESS = Policy(name="until-known", learning_rate=1e-5, max_steps=2, guards=REHEARSAL)
MONTH = "What is the hottest month in Kyzara?"


@pytest.fixture
def learner() -> Iterator[Learner]:
    with Learner.from_pretrained("tiny", device="cpu", threads=1, policy=POLICY) as learner:
        yield learner


def test_a_fact_is_learned_asked_scored_and_listed(learner: Learner) -> None:
    steps: list[Step] = []
    before = learner.probability(MONTH, "Raincoat")
    fact = learner.teach(
        MONTH, "Raincoat", correlated_questions=["Hot?"], fact_id="the-month", on_step=steps.append
    )
    assert (fact.id, fact.state) == ("the-month", FactState.LEARNED)
    assert fact.learning is not None
    assert fact.learning.probability_before == pytest.approx(before, rel=1e-4)
    assert fact.learning.learning_rates == tuple(step.learning_rate for step in steps)
    assert learner.model_version == 1
    assert learner.ask(MONTH).answer == "Raincoat"
    assert learner.probability(MONTH, "Raincoat") >= 0.9
    assert learner.score(MONTH, "Raincoat").model_version == 1
    assert [fact.answer for fact in learner.facts()] == ["Raincoat"]

    held, updates, probes = learner.history("the-month")
    assert held == learner.fact("the-month") == fact
    assert [update.policy for update in updates] == [POLICY]
    assert [probe.kind for probe in probes] == [ProbeKind.TRANSFER, ProbeKind.RETENTION]
    assert [probe.kind for probe in learner.probe()] == [ProbeKind.RETENTION, ProbeKind.TRANSFER]
    assert len(learner.history("the-month")[2]) == 4


def test_a_known_fact_a_repeated_one_and_a_new_answer(learner: Learner) -> None:
    first = learner.teach(MONTH, "Raincoat")
    assert learner.teach(MONTH, "Raincoat") == first
    assert learner.model_version == 1
    second = learner.teach(MONTH, "Umbrella")
    assert second.state is FactState.LEARNED
    assert learner.fact(first.id).state is FactState.SUPERSEDED
    assert learner.ask(MONTH).answer == "Umbrella"


def test_what_resists_leaves_the_weights(learner: Learner) -> None:
    fact = learner.teach(MONTH, "Raincoat", policy=HOPELESS)
    assert fact.state is FactState.RESISTED
    assert fact.reason
    assert fact.policy == HOPELESS
    assert learner.model_version == 0


def test_ctrl_c_leaves_everything_as_it_was(learner: Learner) -> None:
    def interrupt(step: object) -> None:
        raise KeyboardInterrupt

    digest = learner.describe().base_digest
    with pytest.raises(KeyboardInterrupt):
        learner.teach(MONTH, "Raincoat", on_step=interrupt)
    assert list(learner.facts()) == []
    fact = learner.teach(MONTH, "Raincoat")
    assert learner.history(fact.id)[1][0].digest_before == digest


def test_ctrl_c_between_ledger_and_weights_comes_after_both(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = learner._core.commit

    def interrupted(version: int, digest: str) -> None:
        signal.raise_signal(signal.SIGINT)
        commit(version, digest)

    monkeypatch.setattr(learner._core, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learner.teach(MONTH, "Raincoat")
    monkeypatch.undo()
    assert learner.model_version == learner._store.model_version() == 1
    assert [fact.state for fact in learner.facts()] == [FactState.LEARNED]
    assert learner.teach("Sky?", "Piano").state is FactState.LEARNED


def test_what_an_operator_has_asked_for_is_not_passed_over(
    learner: Learner, tmp_path: Path
) -> None:
    fact = learner.teach(MONTH, "Raincoat")
    learner.save(tmp_path / "memory")
    with MemoryStore.open(tmp_path / "memory" / DATABASE) as store:
        request_forget(store, fact.id)
    with pytest.raises(ConfigError, match=r"a forget was asked for .*agent serve --data"):
        Learner.load(tmp_path / "memory", "tiny")


def test_what_is_saved_is_loaded_and_goes_on(learner: Learner, tmp_path: Path) -> None:
    fact = learner.teach(MONTH, "Raincoat")
    learner.save(tmp_path / "saved")
    with Learner.load(tmp_path / "saved", "tiny", device="cpu", policy=POLICY) as again:
        assert again.model_version == 1
        assert again.ask(MONTH).answer == "Raincoat"
        assert again.fact(fact.id) == fact
        assert again.teach("Sky?", "Piano").state is FactState.LEARNED
    # A server would find the same; what was taught afterwards is not in the folder.
    with MemoryStore.open(tmp_path / "saved" / "memory.db", read_only=True) as store:
        assert count_by_state(store.connection)[FactState.LEARNED] == 1
    with pytest.raises(ConfigError, match="name a new one"):
        learner.save(tmp_path / "saved")
    (tmp_path / "saved" / "snapshots").rename(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match="agent snapshots create"):
        Learner.load(tmp_path / "saved", "tiny", device="cpu")


def test_an_export_is_a_model_by_itself(learner: Learner, tmp_path: Path) -> None:
    learner.teach(MONTH, "Raincoat")
    learner.export(tmp_path / "export")
    assert "| Raincoat |" in (tmp_path / "export" / "README.md").read_text()
    with Learner.from_pretrained(str(tmp_path / "export"), device="cpu") as again:
        assert (again.model_version, again.ask(MONTH).answer) == (0, "Raincoat")


def test_predicted_rates_come_from_this_memory(learner: Learner) -> None:
    # With so little history it is `search`, which the random model resists.
    fact = learner.teach(
        "Sky?",
        "Piano",
        policy=Policy(name="predicted", learning_rate=1e-4, max_steps=1, guards=Guards()),
    )
    [tried] = list(learner.facts())
    assert tried.tried_policy is not None
    assert (fact.state, tried.tried_policy.name) == (FactState.RESISTED, "predicted")


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({"policy": "magic"}, ConfigError, "unknown policy 'magic'"),
        ({"guards": "magic"}, ConfigError, "unknown guards 'magic'"),
        (
            {"policy": Policy(name="fixed", learning_rate=0.5, max_steps=1)},
            InvalidFactError,
            "learning_rate",
        ),
    ],
)
def test_a_wrong_setting_is_said_at_once(given, error, why) -> None:
    with pytest.raises(error, match=why):
        Learner.from_pretrained("tiny", device="cpu", **given)


def test_what_cannot_be_taught_is_said(learner: Learner) -> None:
    with pytest.raises(InvalidFactError, match="answer"):
        learner.teach("Sky?", "two\nlines")
    with pytest.raises(ConfigError, match="unknown policy"):
        learner.teach("Sky?", "Piano", policy=Policy(name="magic", learning_rate=1e-3, max_steps=1))
    assert list(learner.facts()) == []


def test_records_become_rows_of_a_table(learner: Learner) -> None:
    learner.teach(MONTH, "Raincoat")
    # pandas.DataFrame takes a list of dataclasses, by `dataclasses.asdict`.
    [row] = [dataclasses.asdict(fact) for fact in learner.facts()]
    assert (row["answer"], row["state"]) == ("Raincoat", "learned")
    assert row["learning"]["model_version"] == 1


def test_a_policy_of_ones_own(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_step(policy: Policy, progress: rates.Progress) -> rates.Decision | None:
        return rates.Decision(Verdict.LEARNED) if progress.steps else None

    monkeypatch.setitem(rates.POLICIES, "one-step", one_step)
    policy = Policy(name="one-step", learning_rate=3e-3, max_steps=9, guards=Guards())
    fact = learner.teach("Sky?", "Piano", policy=policy)
    assert fact.policy == policy
    assert fact.learning is not None
    assert fact.learning.learning_rates == (3e-3,)
