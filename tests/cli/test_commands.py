"""The contract that others script against: JSON fields, exit codes, errors."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from agent.cli import connection
from agent.cli.curve import TITLE, curve_lines
from agent.client.client import Client
from agent.errors import AgentError, ServerUnreachableError
from agent.server.api.server import MODEL_SERVICE
from memory_store.store import MemoryStore
from memory_store.vocabulary import Fact, FactState, LearnerState, RatePoint
from tests.cli.conftest import Agent, InThread
from tests.server.serving import recovering
from tests.store.builders import learning as made_learning
from tests.store.builders import (
    new_fact,
    new_probe,
    new_update,
    record_learned,
    record_resisted,
    teach_claimed,
    teach_learned,
)

FACT_FIELDS = {
    "id",
    "state",
    "question",
    "answer",
    "learning_rates",
    "steps",
    "probability_before",
    "probability_after",
    "answer_before",
    "answer_after",
    "model_version",
    "reason",
}


def test_who_waits_is_told_that_learning_is_paused(agent: Agent, server: InThread) -> None:
    server.write(lambda store: teach_learned(store, "Sky?", answer="Piano"))
    assert "paused" not in agent("teach", "Sky?", "Piano", "--wait").err
    assert agent("pause").code == 0
    ran = agent("teach", "Sky?", "Piano", "--wait", "--json")
    assert ran.json["facts"][0]["state"] == "learned"
    assert "learning is paused" in ran.err


def test_teach_says_what_was_accepted(agent: Agent, server: InThread) -> None:
    ran = agent("teach", "Sky?", "Piano", "--id", "the-sky", "--json")
    assert ran.code == 0
    assert ran.json == {
        "facts": [
            {
                "id": "the-sky",
                "state": "queued",
                "question": "Sky?",
                "answer": "Piano",
                "learning_rates": [],
                "steps": 0,
                "probability_before": None,
                "probability_after": None,
                "answer_before": None,
                "answer_after": None,
                "model_version": None,
                "reason": "",
                "replaces": "",
            }
        ],
        "errors": [],
    }
    assert server.parts.stored_questions() == ["Sky?"]


def test_another_answer_to_a_question_tells_which_fact_it_replaces(
    agent: Agent, server: InThread
) -> None:
    assert "takes the place" not in agent("teach", "Sky?", "Piano", "--id", "the-sky").err
    ran = agent("teach", " SKY? ", "Violin")
    assert "takes the place of the-sky, another answer to the same question" in ran.err
    assert "takes the place" not in agent("teach", "Sky?", "Violin").err
    [violin] = [
        f for f in agent("facts", "list", "--json").json["facts"] if f["answer"] == "Violin"
    ]
    [harp] = agent("teach", "Sky?", "Harp", "--json").json["facts"]
    assert harp["replaces"] == violin["id"]


def test_what_is_taught_again_tells_what_was_not_taken_over(agent: Agent, server: InThread) -> None:
    assert "taught already" not in agent("teach", "Sky?", "Piano", "--id", "the-sky").err
    assert "taught already, as the-sky\n" in agent("teach", "Sky?", "Piano").err
    ran = agent("teach", "Sky?", "Piano", "--id", "heaven", "--correlated", "What is up?")
    assert ran.code == 0
    assert "taught already, as the-sky: --id and --correlated not taken over" in ran.err


def test_the_version_is_told(agent: Agent) -> None:
    ran = agent("--version")
    assert (ran.code, ran.out) == (0, f"continual-agent {metadata.version('continual-agent')}\n")


def test_teach_with_wait_tells_how_it_was_learned(agent: Agent, server: InThread) -> None:
    server.write(lambda store: teach_learned(store, "Sky?", "Piano"))
    ran = agent("teach", "Sky?", "Piano", "--wait", "--json")
    assert ran.code == 0
    [fact] = ran.json["facts"]
    assert set(fact) == FACT_FIELDS | {"replaces"}
    assert fact["state"] == "learned"
    assert (fact["learning_rates"], fact["steps"]) == ([1e-4, 3e-5], 2)
    assert (fact["probability_before"], fact["probability_after"]) == (0.1, 0.1 + 0.2)
    assert fact["answer_after"] == "Jane Austen"


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("state", ["resisted", "quarantined"])
def test_a_fact_that_was_not_learned_is_exit_code_1(
    agent: Agent, server: InThread, state: str, as_json: bool
) -> None:
    def fail_at_it(store: MemoryStore) -> bool:
        fact = store.claim()
        if fact is None:
            return False
        if state == "resisted":
            record_resisted(store, fact.id, "no way", made_learning())
        else:
            store.record_failure(fact.id, "no way", 1)
        return True

    def learn() -> None:
        deadline = time.monotonic() + 10
        while not server.write(fail_at_it) and time.monotonic() < deadline:
            time.sleep(0.01)

    learner = threading.Thread(target=learn)
    learner.start()
    ran = agent("teach", "Sky?", "Piano", "--id", "the-sky", "--wait", *["--json"] * as_json)
    learner.join()
    assert ran.code == 1
    if as_json:
        [fact] = ran.json["facts"]
        assert (fact["state"], fact["reason"]) == (state, "no way")
    else:
        assert f"the-sky is {state}: no way\n" in ran.err


def test_ask_tells_answer_and_version(agent: Agent, server: InThread) -> None:
    ran = agent("ask", "Sky?", "--json")
    assert ran.code == 0
    assert ran.json == {"answer": "Piano", "finished": True, "model_version": 3}
    assert agent("ask", "Sky?").out == "Piano\n"


def test_score_tells_log_probability_and_version(agent: Agent, server: InThread) -> None:
    ran = agent("score", "Sky?", "Piano", "--json")
    assert ran.code == 0
    assert ran.json == {"log_probability": -0.5, "tokens": 6, "model_version": 3}


def test_status_tells_every_state(agent: Agent, server: InThread) -> None:
    server.write(lambda store: teach_learned(store, "Old?"))
    server.write(lambda store: store.teach(new_fact("New?")))
    status = agent("status", "--json").json
    assert set(status) == {
        "model",
        "model_version",
        "queue_depth",
        "facts",
        "learner",
        "device",
        "parameters",
        "event_sequence",
        "updates_to_replay",
        "started_at",
        "oldest_queued_at",
        "learning_paused",
        "leak_limit",
        "drift_limit",
        "memory_bytes",
        "memory_total_bytes",
        "snapshot_version",
        "snapshot_overdue",
        "teaching_limits",
        "learner_message",
        "operation",
        "clean_up_problem",
    }
    assert status["teaching_limits"] == {
        "policies": ["fixed", "paper", "until-known", "search", "predicted"],
        "largest_learning_rate": 5e-3,
        "most_steps": 100,
        "gated": True,
    }
    assert (status["model"], status["model_version"], status["queue_depth"]) == ("fake-model", 1, 1)
    assert set(status["facts"]) == {state.value for state in FactState}
    assert status["facts"]["learned"] == status["facts"]["queued"] == 1


def test_learning_is_paused_until_it_is_resumed(agent: Agent, server: InThread) -> None:
    assert agent("pause", "--json").json == {"learning_paused": True}
    assert agent("status", "--json").json["learning_paused"]
    assert "learning is paused" in agent("status").out
    assert agent("resume").err == "learning is on\n"
    assert not agent("status", "--json").json["learning_paused"]
    assert server.parts.accepted == 1  # the loop was woken


def test_facts_are_listed_by_state_and_up_to_a_limit(agent: Agent, server: InThread) -> None:
    server.write(lambda store: teach_learned(store, "Old?"))
    server.write(lambda store: [store.teach(new_fact(f"New {n}?")) for n in range(450)])
    assert len(agent("facts", "list", "--json").json["facts"]) == 451  # several pages
    learned = agent("facts", "list", "--state", "learned", "--json").json["facts"]
    assert [fact["question"] for fact in learned] == ["Old?"]
    assert set(learned[0]) == FACT_FIELDS
    limited = agent("facts", "list", "--limit", "2", "--json").json["facts"]
    assert [fact["question"] for fact in limited] == ["Old?", "New 0?"]


def test_a_fact_is_shown_with_its_updates(agent: Agent, server: InThread) -> None:
    fact = server.write(lambda store: teach_learned(store, "Sky?", "Piano"))
    shown = agent("facts", "show", fact.id, "--json").json
    assert set(shown) == FACT_FIELDS | {
        "correlated_questions",
        "superseded_by",
        "rate_curve",
        "updates",
        "probes",
        "retention",
        "touched_by",
        "forgetting",
    }
    [update] = shown["updates"]
    assert update["model_version"] == 1
    assert update["steps"][0]["learning_rate"] == 1e-4
    assert "Sky?" in agent("facts", "show", fact.id).out


def test_a_fact_is_shown_with_the_samples_of_its_probes(agent: Agent, server: InThread) -> None:
    fact = server.write(lambda store: teach_learned(store, "Sky?", "Piano"))
    server.write(lambda store: store.record_probes([new_probe(fact.id)], 1))
    assert "sampled" not in agent("facts", "show", fact.id).out
    sampled = new_probe(fact.id, samples=80, correct_samples=61)
    server.write(lambda store: store.record_probes([sampled], 1))
    shown = agent("facts", "show", fact.id, "--json").json["probes"]
    assert [(p["samples"], p["correct_samples"]) for p in shown] == [(80, 61), (0, 0)]
    out = agent("facts", "show", fact.id).out
    assert "sampled" in out
    assert out.count("61/80") == 1


def test_a_fact_is_shown_with_its_rate_curve(agent: Agent, server: InThread) -> None:
    def taught(store: MemoryStore) -> Fact:
        fact = teach_claimed(store, "Sky?", "Piano")
        points = (RatePoint(1e-6, 0.25), RatePoint(1e-4, 0.75), RatePoint(1e-2, math.nan))
        record_learned(store, new_update(fact.id, 0), made_learning(curve=points))
        return store.fact(fact.id)

    fact = server.write(taught)
    assert agent("facts", "show", fact.id, "--json").json["rate_curve"] == [
        {"learning_rate": 1e-6, "probability": 0.25},
        {"learning_rate": 1e-4, "probability": 0.75},
        {"learning_rate": 1e-2, "probability": None},
    ]
    out = agent("facts", "show", fact.id).out
    assert fact.learning is not None
    # The chosen rate is that of the first step.
    drawn = "\n".join(curve_lines(fact.learning.curve, 1e-4))
    assert f"\n{drawn}\n" in out
    assert out.index("once taught") < out.index(drawn) < out.index("Updates")


def test_a_fact_is_shown_with_what_became_of_it(agent: Agent, server: InThread) -> None:
    def taught(store: MemoryStore) -> Fact:
        fact: Fact = teach_learned(store, "Sky?", "Piano")
        store.record_probes([new_probe(fact.id, log_probability=-0.25)], 1)
        other = teach_learned(store, "Sea?", "Tuba")
        store.record_probes([new_probe(fact.id, log_probability=-2.0)], 2, other.id)
        return fact

    fact = server.write(taught)
    told = agent("facts", "show", fact.id, "--json").json
    assert [point["probability"] for point in told["retention"]] == [math.exp(-0.25), math.exp(-2)]
    assert [one["cause_question"] for one in told["touched_by"]] == ["Sea?"]
    out = agent("facts", "show", fact.id).out
    assert "Retention over time" in out
    assert "version 1 to 2, 2 probes" in out
    assert out.index("Updates that touched it") < out.index("Sea?")


@pytest.mark.slow
def test_a_report_is_one_page(agent: Agent, server: InThread, tmp_path: Path) -> None:
    fact = server.write(lambda store: teach_learned(store, "Sky?", "<script>"))
    server.write(lambda store: store.record_probes([new_probe(fact.id, log_probability=-2.0)], 1))
    page = tmp_path / "report.html"
    assert agent("report", "--out", str(page), "--json").json == {"out": str(page), "facts": 1}
    text = page.read_text(encoding="utf-8")
    assert "What fake-model was taught, at version 1" in text
    assert "<td>Sky?</td><td>&lt;script&gt;</td>" in text  # lost at the last probe
    assert text.count("data:image/png;base64") == 3  # learned, probes, rates
    ran = agent("report", "--out", str(tmp_path / "nowhere" / "a.html"))
    assert ran.code == 1
    assert "name another file by --out" in ran.err


def test_without_a_curve_nothing_is_drawn(agent: Agent, server: InThread) -> None:
    fact = server.write(lambda store: teach_learned(store, "Sky?", "Piano"))
    queued = server.write(lambda store: store.teach(new_fact("Sea?"))).fact
    for fact_id in (fact.id, queued.id):
        assert agent("facts", "show", fact_id, "--json").json["rate_curve"] == []
        assert TITLE not in agent("facts", "show", fact_id).out


def test_eval_probes_every_fact_with_denominators(agent: Agent, server: InThread) -> None:
    server.write(lambda store: teach_learned(store, "Sky?", "Piano"))
    server.write(lambda store: teach_learned(store, "Sea?", "Tuba"))
    report = agent("eval", "--suite", "probes", "--json").json
    assert (report["suite"], report["model"], report["model_versions"]) == (
        "probes",
        "fake-model",
        [3],
    )
    assert (report["retention"]["correct"], report["retention"]["total"]) == (1, 2)
    assert (report["transfer"]["total"], report["transfer"]["rate"]) == (0, None)
    assert len(report["probes"]) == 2
    assert "missed: Sea?" in agent("eval", "--suite", "probes").out


def test_eval_of_an_empty_memory_is_still_json(agent: Agent, server: InThread) -> None:
    report = agent("eval", "--suite", "probes", "--json").json
    assert report["retention"]["total"] == 0
    assert report["retention"]["mean_probability"] is None


def test_models_are_listed_without_a_server(agent: Agent) -> None:
    models = {model["name"]: model for model in agent("models", "list", "--json").json["models"]}
    assert models["tiny"]["cached"] is True
    assert [name for name, model in models.items() if model["default"]] == ["pythia-410m"]


def test_a_file_with_bad_lines_teaches_the_others(
    agent: Agent, server: InThread, tmp_path: Path
) -> None:
    file = tmp_path / "facts.jsonl"
    good = [json.dumps({"question": f"Question {n}?", "answer": "Piano"}) for n in range(2)]
    refused = json.dumps({"question": "Sky?", "answer": "two\nlines"})
    file.write_text("\n".join([good[0], "{", refused, good[1]]))
    ran = agent("teach", "--file", str(file), "--json")
    assert ran.code == 1
    assert [fact["question"] for fact in ran.json["facts"]] == ["Question 0?", "Question 1?"]
    assert [error["line"] for error in ran.json["errors"]] == [2, 3]
    assert ran.json["errors"][1]["message"].startswith("answer: must be one line")
    ran = agent("teach", "--file", str(file))
    assert ran.code == 1
    assert "line 2: not JSON" in ran.err
    assert "line 3: answer: must be one line" in ran.err


def test_a_file_of_good_lines_is_exit_code_0(
    agent: Agent, server: InThread, tmp_path: Path
) -> None:
    file = tmp_path / "facts.csv"
    rows = [f"Question {number}?,Piano" for number in range(600)]
    file.write_text("\n".join(["question,answer", *rows]))
    ran = agent("teach", "--file", str(file), "--json")
    assert ran.code == 0
    assert len(ran.json["facts"]) == 600
    assert len(server.parts.stored_questions()) == 600


def test_a_file_without_the_columns_is_one_line(
    agent: Agent, server: InThread, tmp_path: Path
) -> None:
    file = tmp_path / "facts.csv"
    file.write_text("frage,antwort\nSky?,Piano\n")
    ran = agent("teach", "--file", str(file), "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (1, "CONFIG")
    assert ran.err == "error: the first line must name the columns: answer, question missing\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("teach", "", "Piano"), "question: must not be empty"),
        (("teach", "Sky?", "two\nlines"), "answer: must be one line"),
        (("teach", "Sky?", "Piano", "--id", "The Sky"), "fact_id: "),
        (("teach", "Sky?", "Piano", "--policy", "magic"), "unknown policy 'magic'"),
        (("teach", "Sky?", "Piano", "--learning-rate", "1"), "learning_rate: 1 is out of range"),
        (("teach", "Sky?", "Piano", "--learning-rate", "nan"), "learning_rate: nan is out of"),
        (("teach", "Sky?", "Piano", "--max-steps", "-1"), "max_steps: -1 is out of range"),
        (("teach", "caf\udce9?", "Piano"), "question: must be UTF-8"),
        (("teach", "Sky?", "caf\udce9"), "answer: must be UTF-8"),
        (
            ("teach", "Sky?", "Piano", "--correlated", "caf\udce9"),
            "correlated_questions[0]: must be UTF-8",
        ),
        (("ask", "caf\udce9?"), "question: must be UTF-8"),
        (("score", "Sky?", "caf\udce9"), "answer: must be UTF-8"),
        (("facts", "show", "caf\udce9"), "fact_id: must be UTF-8"),
        (("ask", ""), "question: must not be empty"),
        (("facts", "show", "nobody"), "nobody"),
        (("eval", "--suite", "everything"), "unknown suite 'everything': use one of probes"),
    ],
)
def test_what_is_refused_is_one_line_and_exit_code_1(
    agent: Agent, server: InThread, arguments: tuple[str, ...], why: str
) -> None:
    ran = agent(*arguments, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, 1)
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert why in ran.err
    assert server.parts.stored_questions() == []


def test_a_model_that_is_not_ready_says_so(agent: Agent, server: InThread) -> None:
    recovering(server.parts)
    for command in (("ask", "Sky?"), ("score", "Sky?", "Piano")):
        ran = agent(*command, "--start-timeout", "0")
        assert (ran.code, ran.out) == (1, "")
        assert "after 0 s the learner is recovering" in ran.err


def test_a_model_that_is_being_loaded_is_waited_for(
    agent: Agent, server: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = server.parts.view.learner
    recovering(server.parts)

    async def load() -> None:
        server.parts.view.learner, server.parts.view.state = learner, LearnerState.READY
        server.parts.server.set_serving(MODEL_SERVICE, True)

    def loaded_when_reported(*arguments: Any) -> Callable[[AgentError], None]:
        report = reporting(*arguments)

        def on_wait(reason: AgentError) -> None:
            report(reason)
            server.run(load())

        return on_wait

    reporting = connection._reporting
    monkeypatch.setattr(connection, "_reporting", loaded_when_reported)
    ran = agent("ask", "Sky?")
    assert (ran.code, ran.out) == (0, "Piano\n")
    assert ran.err == "the learner is recovering: waiting up to 60 s\n"


def test_teach_does_not_wait_for_the_model_and_says_why_its_fact_waits(
    agent: Agent, server: InThread
) -> None:
    server.write(lambda store: teach_learned(store, "Gem?", answer="Curtain"))
    recovering(server.parts)
    server.parts.view.message = "signal 9"
    ran = agent("teach", "Sky?", "Piano", "--json", "--start-timeout", "0")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["facts"][0]["state"] == "queued"
    ran = agent("teach", "Gem?", "Curtain", "--wait")
    assert ran.code == 0
    assert "the learner is recovering (signal 9): the facts wait until it is ready\n" in ran.err


def test_who_waits_for_a_server_that_ends_is_told_what_became_of_the_fact(
    agent: Agent, server: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(client: Client, fact_ids: object) -> Iterator[Fact]:
        raise ServerUnreachableError("no server answers")

    monkeypatch.setattr(Client, "settle", gone)
    ran = agent("teach", "Sky?", "Piano", "--wait")
    assert ran.code == 1
    assert "the facts are accepted, and are learned once it runs again" in ran.err
    assert ran.err.endswith("error: no server answers\n")


@pytest.fixture
def nobody() -> str:
    """An address where no server answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize("command", [("status",), ("teach", "Sky?", "Piano", "--wait")])
def test_no_server_is_one_line_with_the_remedy(agent: Agent, nobody: str, command) -> None:
    options = ("--start-timeout", "0") if command[0] == "teach" else ()
    ran = agent(*command, "--server", nobody, *options)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    for part in (nobody, "agent serve", "--server", "AGENT_SERVER"):
        assert part in ran.err


def test_a_server_that_is_not_there_yet_is_reported(
    nobody: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[AgentError] = [ServerUnreachableError("gone")]

    def wait(client: Client, seconds: float, on_wait: Callable[[AgentError], None]) -> None:
        on_wait(*reasons)

    monkeypatch.setattr(Client, "wait_accepting", wait)
    with Client(nobody) as client:
        connection.wait_accepting(client, 60.0)
    reported = " ".join(capsys.readouterr().err.split())
    assert f"no server answers at {nobody} yet ('agent serve' starts one)" in reported
    assert reported.endswith("waiting up to 60 s")


HOSTILE = "[red]a[/red] \x1b[31mb\x07 \u202ec :smile:"


@pytest.mark.parametrize("command", ["ask", "list", "show", "eval", "error"])
def test_text_from_outside_reaches_no_terminal_as_it_is(
    agent: Agent, server: InThread, command: str
) -> None:
    fact = server.write(lambda store: teach_learned(store, HOSTILE, HOSTILE))
    assert server.parts.view.learner is not None
    server.parts.view.learner.says = HOSTILE if command == "ask" else "x"
    ran = {
        "ask": lambda: agent("ask", "Sky?"),
        "list": lambda: agent("facts", "list"),
        "show": lambda: agent("facts", "show", fact.id),
        "eval": lambda: agent("eval", "--suite", "probes"),
        "error": lambda: agent("facts", "show", HOSTILE),
    }[command]()
    text = ran.out + ran.err
    assert "[red]a[/red]" in text
    assert ":smile:" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_json_carries_any_text_unchanged(agent: Agent, server: InThread) -> None:
    server.write(lambda store: teach_learned(store, HOSTILE, "\U0001f3b9 Klavier\u2028"))
    [fact] = agent("facts", "list", "--json").json["facts"]
    assert (fact["question"], fact["answer"]) == (HOSTILE, "\U0001f3b9 Klavier\u2028")
