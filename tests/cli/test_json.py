"""`--json` everywhere: a command without an entry here, or with other fields, fails."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from agent.cli import app
from memory_store.store import MemoryStore
from tests.cli.conftest import Agent, InThread
from tests.store.builders import new_probe, teach_learned

FACT = (
    "id state question answer learning_rates steps probability_before probability_after"
    " answer_before answer_after model_version reason"
)
OPERATION = (
    "operation kind state fact_id message proof erase to_version done_facts total_facts"
    " requested_at finished_at"
)
SNAPSHOT = "model_version digest size_bytes created_at"
TOKEN = "id name role created_at"
# What each command prints: the fields of the object, and of the objects in its lists.
FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "teach Sea? Tuba": ("facts errors", {"facts": f"{FACT} replaces"}),
    "ask Sky?": ("answer finished model_version", {}),
    "score Sky? Piano": ("log_probability tokens model_version", {}),
    "status": (
        "model model_version queue_depth facts learner device parameters event_sequence"
        " updates_to_replay started_at oldest_queued_at learning_paused leak_limit drift_limit"
        " memory_bytes memory_total_bytes snapshot_version snapshot_overdue teaching_limits"
        " learner_message operation clean_up_problem",
        {},
    ),
    "health": ("service state", {}),
    "eval --list": ("suites", {"suites": "name does costs"}),
    "bench --list": ("benchmarks", {"benchmarks": "name measures costs"}),
    "eval compare FOLDER/run FOLDER/run": (
        "suite settings counts missing",
        {"counts": "name first second difference_interval_95 second_is"},
    ),
    "facts list": ("facts", {"facts": FACT}),
    "facts show FACT": (
        f"{FACT} correlated_questions superseded_by rate_curve updates probes retention touched_by"
        " forgetting",
        {
            "updates": "model_version steps digest_before digest_after algorithm seconds",
            "probes": "kind question answer correct log_probability samples correct_samples"
            " model_version",
        },
    ),
    "facts retry FACT": ("queued refused", {}),
    "facts forget FACT": (f"{OPERATION} out_of_reach", {}),
    "rollback --to 0": (f"{OPERATION} out_of_reach", {}),
    "operations list": ("operations", {"operations": OPERATION}),
    "operations show 1": (OPERATION, {}),
    "operations cancel 1": (OPERATION, {}),
    "pause": ("learning_paused", {}),
    "resume": ("learning_paused", {}),
    "report --out FOLDER/report.html": ("out facts", {}),
    "why Sky?": (
        "fact_id influences",
        {
            "influences": "model_version cause_fact_id cause_question probability_before"
            " probability_after kind"
        },
    ),
    "export FOLDER/export": ("folder model_version", {}),
    "compact": (
        "bytes_before bytes_after removed_probes removed_events reclaimable_bytes postponed",
        {},
    ),
    "backup FOLDER/backup": ("folder model_version", {}),
    "snapshots create": (SNAPSHOT, {}),
    "snapshots list": ("snapshots", {"snapshots": SNAPSHOT}),
    "snapshots verify": ("snapshots", {"snapshots": "model_version error"}),
    "snapshots prune": ("removed_versions", {}),
    "models list": (
        "models",
        {"models": "name source location parameters download_bytes cached default"},
    ),
    "models pull tiny": ("name folder", {}),
    "doctor --model tiny --data FOLDER/data": (
        "healthy checks",
        {"checks": "check state found remedy"},
    ),
    "tokens create ann --role read --tokens FOLDER/tokens": (f"{TOKEN} token", {}),
    "tokens list --tokens FOLDER/tokens": ("tokens", {"tokens": TOKEN}),
    "tokens revoke TOKEN --tokens FOLDER/tokens": (TOKEN, {}),
}
# They run until they are stopped, and have no result.
WITHOUT = {"serve", "monitor"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words, and groups that do something by themselves."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if getattr(command, "invoke_without_command", True):
            yield " ".join(words), command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*words, name))

    yield from walk(typer.main.get_command(app), ())


def test_every_command_has_json_and_its_fields_are_told_here() -> None:
    for words, command in commands():
        has_json = any("--json" in parameter.opts for parameter in command.params)
        assert has_json != (words in WITHOUT), words
        told = [example for example in FIELDS if example.startswith(words)]
        assert bool(told) == has_json, f"{words}: give its fields in FIELDS"


def test_the_fields_are_stable(agent: Agent, server: InThread, tmp_path: Path) -> None:
    def learned(store: MemoryStore) -> str:
        fact = teach_learned(store, "Sky?", "Piano")
        for version, probability in ((0, 0.01), (1, 0.9)):  # so that there is something to explain
            probe = new_probe(fact.id, log_probability=math.log(probability))
            store.record_probes([probe], version, cause_fact_id=fact.id)
        return str(fact.id)

    run = tmp_path / "run"
    run.mkdir()
    counts = {"recall": {"count": 1, "total": 2}}
    results = {"suite": "paper", "settings": {}, "provenance": {}, "counts": counts}
    (run / "results.json").write_text(json.dumps(results))
    named = {"FACT": server.write(learned), "FOLDER": str(tmp_path)}
    for command, (fields, lists) in FIELDS.items():
        given = command.split()
        for name, value in named.items():
            given = [word.replace(name, value) for word in given]
        ran = agent(*given, "--json")
        assert ran.code in (0, 1), (command, ran.err)
        assert list(ran.json) == fields.split(), command
        for name, inner in lists.items():
            assert ran.json[name], f"{command} gave no {name} to look at"
            for item in ran.json[name]:
                assert list(item) == inner.split(), command
        if command.startswith("tokens create"):
            named["TOKEN"] = ran.json["id"]
