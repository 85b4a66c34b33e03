"""The main job, end to end: taught, learned, asked, measured, and still there after a restart."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.servers import (
    AGENT,
    FACTS,
    RunningServer,
    agent,
    contents,
    environment,
    running,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    options = ("--probes", "paper:8")
    with running(tmp_path_factory.mktemp("teaching") / "data", options=options) as started:
        yield started


def teach_file(
    server: RunningServer, folder: Path, lines: list[str], code: int = 0
) -> dict[str, Any]:
    file = folder / "facts.jsonl"
    file.write_text("\n".join(lines))
    return server.json("teach", "--file", file, "--wait", code=code)


def fact_line(question: str, answer: str, **more: object) -> str:
    return json.dumps({"question": question, "answer": answer, **more})


def test_facts_of_a_file_are_learned_and_its_bad_lines_told(
    server: RunningServer, tmp_path: Path
) -> None:
    # With ids, by which an update draws what it rehearses: so it ends the same each time.
    ids = [f"fact-{number}" for number in range(len(FACTS))]
    lines = [
        fact_line(question, answer, id=fact_id)
        for fact_id, (question, answer) in zip(ids, FACTS.items(), strict=True)
    ]
    question, answer = next(iter(FACTS.items()))
    lines[0] = fact_line(question, answer, id=ids[0], correlated_questions=["Hottest in Kyzara?"])
    lines[1:1] = ["{broken", fact_line("Empty?", "")]
    taught = teach_file(server, tmp_path, lines, code=1)
    assert [error["line"] for error in taught["errors"]] == [2, 3]
    assert [fact["question"] for fact in taught["facts"]] == list(FACTS)
    for fact in taught["facts"]:
        assert fact["state"] == "learned"
        assert fact["answer_after"] == fact["answer"]
        assert fact["probability_before"] < 0.01
        assert fact["probability_after"] >= 0.9
        assert fact["steps"] == len(fact["learning_rates"]) > 0
        # Until it is known at this rate; what that disturbed is mended at smaller ones.
        assert fact["learning_rates"][0] == max(fact["learning_rates"]) == 0.003
    for question, answer in FACTS.items():
        assert server.client().ask(question).answer == answer


def done(server: RunningServer) -> dict[str, Any]:
    """What the status tells of what was done: not how much memory that takes, nor its snapshots."""
    told = server.json("status")
    return {
        name: told[name] for name in ("model_version", "facts", "queue_depth", "event_sequence")
    }


def test_taught_again_nothing_is_learned_twice(server: RunningServer) -> None:
    question, answer = next(iter(FACTS.items()))
    before = done(server)
    first = server.json("teach", question, answer, "--wait")["facts"][0]
    assert first["model_version"] == 1
    assert done(server) == before


def test_ask_and_score_tell_the_version_of_the_weights(server: RunningServer) -> None:
    version = server.json("status")["model_version"]
    asked = server.json("ask", "Sky?")
    assert (asked["answer"], asked["finished"], asked["model_version"]) == ("Piano", True, version)
    right = server.json("score", "Sky?", "Piano")
    wrong = server.json("score", "Sky?", "Tuba")
    assert math.exp(right["log_probability"]) > 0.5 > math.exp(wrong["log_probability"])


def test_another_process_sees_the_same_facts(server: RunningServer) -> None:
    here = [(fact.id, fact.question, fact.state.value) for fact in server.client().facts()]
    there = server.json("facts", "list")["facts"]
    assert [(fact["id"], fact["question"], fact["state"]) for fact in there] == here
    assert {question for _, question, _ in here} >= set(FACTS)


def test_a_fact_shows_its_update_and_its_probes(server: RunningServer) -> None:
    first = next(server.client().facts())
    shown = server.json("facts", "show", first.id)
    [update] = shown["updates"]
    assert len(update["steps"]) == shown["steps"]
    assert {probe["kind"] for probe in shown["probes"]} >= {"retention", "transfer"}
    # The fact and its correlated question were sampled with the update, and never since.
    sampled = [probe for probe in shown["probes"] if probe["samples"]]
    assert [(probe["kind"], probe["samples"]) for probe in sampled] == [
        ("transfer", 8),
        ("retention", 8),
    ]
    assert all(0 <= probe["correct_samples"] <= 8 for probe in sampled)
    assert {probe["model_version"] for probe in sampled} == {update["model_version"]}


def test_the_probes_suite_measures_every_fact(server: RunningServer) -> None:
    report = server.json("eval", "--suite", "probes")
    assert (report["suite"], report["model"]) == ("probes", "tiny")
    assert report["retention"]["total"] == len(list(server.client().facts()))
    assert report["retention"]["correct"] == report["retention"]["total"]
    assert report["transfer"]["total"] == 1
    assert report["model_versions"] == [server.json("status")["model_version"]]


def test_health_says_serving(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "continual.v1.MemoryService", "continual.v1.ModelService"):
            response = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_a_reader_that_leaves_early_is_no_traceback(server: RunningServer) -> None:
    command = [*AGENT, "facts", "list", "--server", server.address]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert b"Traceback" not in listing.stderr.read()


def test_a_new_answer_supersedes_the_old_one(server: RunningServer, tmp_path: Path) -> None:
    # With ids, as above: so neither resists by chance.
    old, new = (
        teach_file(server, tmp_path, [fact_line("Drum?", answer, id=fact_id)])["facts"][0]
        for answer, fact_id in (("Lantern", "drum"), ("Bicycle", "drum-again"))
    )
    assert (old["state"], new["state"]) == ("learned", "learned")
    shown = server.json("facts", "show", old["id"])
    assert (shown["state"], shown["superseded_by"]) == ("superseded", new["id"])
    assert server.json("ask", "Drum?")["answer"] == "Bicycle"


def test_what_was_learned_is_still_known_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    facts = dict(list(FACTS.items())[:3])
    with running(data) as server:
        client = server.client()
        ids = [f"fact-{number}" for number in range(len(facts))]
        taught = zip(facts.items(), ids, strict=True)
        client.wait([client.teach(*fact, fact_id=fact_id).fact.id for fact, fact_id in taught])
        before = client.status()
        assert before.model_version == len(facts)
        scores = [server.client().score(*fact).log_probability for fact in facts.items()]
        assert server.stop() == 0
    with running(data) as server:
        after = server.client().status()
        assert (after.model_version, after.facts) == (before.model_version, before.facts)
        for question, answer in facts.items():
            assert server.client().ask(question).answer == answer
        # Replayed to the last bit.
        assert [server.client().score(*f).log_probability for f in facts.items()] == scores
        contents(data).require_each_learned_once()


def test_a_server_that_is_gone_is_told_with_the_remedy(server: RunningServer) -> None:
    ran = agent("ask", "Sky?", "--server", "127.0.0.1:1", "--start-timeout", "0")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "agent serve" in ran.stderr
    assert "Traceback" not in ran.stderr
