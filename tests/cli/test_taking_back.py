"""The contract of `facts forget`, `rollback`, `why`, `snapshots`, `export` and `backup`."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest

from agent.cli.operations import proof_lines
from agent.snapshots import WEIGHTS, folder_of
from memory_store import operations, undo
from memory_store.places import record_place
from memory_store.store import MemoryStore
from memory_store.vocabulary import PlaceKind
from tests.cli.conftest import Agent, InThread
from tests.server.serving import made_snapshot
from tests.store.builders import learning, new_probe, record_resisted, teach_claimed, teach_learned

OPERATION_FIELDS = {"operation", "kind", "state", "fact_id", "message", "proof", "out_of_reach"}
OPERATION_FIELDS |= {"erase", "to_version", "done_facts", "total_facts", "requested_at"}
OPERATION_FIELDS |= {"finished_at"}


def test_forget_tells_the_operation_and_what_is_out_of_reach(
    agent: Agent, server: InThread
) -> None:
    fact = server.write(teach_learned)
    ran = agent("facts", "forget", fact.id, "--json")
    assert ran.code == 0
    told = ran.json
    assert told.pop("requested_at")
    assert told == {
        "operation": 1,
        "kind": "forget",
        "state": "pending",
        "fact_id": fact.id,
        "message": "",
        "proof": {},
        "erase": False,
        "to_version": 0,
        "done_facts": 0,
        "total_facts": 0,
        "finished_at": None,
        "out_of_reach": [],
    }
    server.write(lambda store: record_place(store, PlaceKind.EXPORT, "/a/model", 1))
    erased = agent("facts", "forget", fact.id, "--erase", "--json").json
    assert set(erased) == OPERATION_FIELDS
    assert erased["out_of_reach"] == ["export: /a/model"]
    assert "/a/model" in agent("facts", "forget", fact.id, "--erase").err
    shown = agent("facts", "show", fact.id, "--json").json["forgetting"]
    assert (shown["operation"], shown["state"]) == (2, "pending")


def test_forget_with_wait_tells_the_proof(agent: Agent, server: InThread) -> None:
    fact = server.write(teach_claimed)
    server.write(lambda store: record_resisted(store, fact.id, "too hard", learning()))
    server.write(partial(undo.request_forget, fact_id=fact.id))
    server.write(partial(undo.finish_if_not_held, operation_id=1))
    server.write(partial(undo.close_forget, operation_id=1))
    ran = agent("facts", "forget", fact.id, "--wait", "--json")
    assert (ran.code, ran.json["state"]) == (0, "done")
    assert ran.json["proof"] == {"weights": "they do not hold it"}
    assert "they do not hold it" in agent("facts", "forget", fact.id).out


def test_operations_are_listed_shown_and_cancelled(agent: Agent, server: InThread) -> None:
    """H5: progress too, and what can be cancelled no more is refused."""
    first, second = (server.write(partial(teach_learned, question=q)).id for q in ("1?", "2?"))
    agent("facts", "forget", first, "--erase")
    server.write(partial(undo.begin_operation, operation_id=1))
    agent("rollback", "--to", "0")
    listed = agent("operations", "list", "--json").json["operations"]
    assert [(each["operation"], each["kind"], each["state"]) for each in listed] == [
        (2, "rollback", "pending"),
        (1, "forget", "running"),
    ]
    assert (listed[1]["done_facts"], listed[1]["total_facts"]) == (0, 1)
    assert "0 of 1" in agent("operations", "show", "1").out
    table = agent("operations", "list").out
    assert "erase" in table
    assert "version 0" in table
    status = agent("status", "--json").json
    assert status["operation"] == listed[1]
    assert "0 of 1 facts learned again" in agent("status").out

    assert agent("operations", "cancel", "1", "--json").json["state"] == "cancelled"
    assert "cancelled" in agent("operations", "cancel", "1").out  # once more: it stays so
    assert len(agent("operations", "list", "--limit", "1", "--json").json["operations"]) == 1
    # The weights are as they were; the text of an erased fact is gone all the same.
    shown = agent("facts", "show", first, "--json").json
    assert (shown["state"], shown["question"]) == ("superseded", "")

    server.write(lambda store: store.release_claims(max_attempts=3))
    agent("operations", "cancel", "2")
    server.write(lambda store: undo.request_forget(store, second))
    server.write(partial(undo.fail_operation, operation_id=3, reason="drift"))
    refused = agent("operations", "cancel", "3")
    assert refused.code == 1
    assert "is failed already" in refused.err
    assert agent("operations", "show", "4").code == 1


def test_a_proof_is_told_in_words() -> None:
    proof = {
        "probability_taught": 0.98,
        "probability_after": 2e-7,
        "answers_it": False,
        "retained": 18,
        "retained_of": 19,
        "relearned": 12,
        "seconds": 3.21,
        "resisted": 1,
        "quarantined": 0,
    }
    assert dict(proof_lines(proof)) == {
        "its answer's p": "0.980 taught, 2.0e-07 now",
        "the model": "does not answer it",
        "other facts": "18 of 19 that should be recalled are",
        "learned again": "12 in 3.2 s, of which 1 resisted",
    }


def test_rollback_tells_the_operation(agent: Agent, server: InThread) -> None:
    server.write(teach_learned)
    ran = agent("rollback", "--to", "0", "--json")
    assert ran.code == 0
    assert set(ran.json) == OPERATION_FIELDS
    assert (ran.json["operation"], ran.json["kind"], ran.json["state"]) == (
        1,
        "rollback",
        "pending",
    )


def test_an_operation_that_failed_meanwhile_is_exit_code_1(agent: Agent, server: InThread) -> None:
    server.write(teach_learned)

    def fail(store: MemoryStore) -> bool:
        operation = operations.oldest_open(store)
        if operation is None:
            return False
        undo.fail_operation(store, operation.id, "it drifted")
        return True

    def work() -> None:
        deadline = time.monotonic() + 10
        while not server.write(fail) and time.monotonic() < deadline:
            time.sleep(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    ran = agent("rollback", "--to", "0", "--wait", "--json")
    worker.join()
    assert ran.code == 1
    assert (ran.json["state"], ran.json["message"]) == ("failed", "it drifted")


def test_why_tells_which_updates_moved_an_answer(agent: Agent, server: InThread) -> None:
    fact = server.write(partial(teach_learned, question="Sky?"))
    server.write(
        lambda store: store.record_probes([new_probe(fact.id, log_probability=0.0)], 1, fact.id)
    )
    ran = agent("why", "Sky?", "--json")
    assert ran.code == 0
    assert ran.json == {
        "fact_id": fact.id,
        "influences": [
            {
                "model_version": 1,
                "cause_fact_id": fact.id,
                "cause_question": "Sky?",
                "probability_before": 0.1,
                "probability_after": 1.0,
                "kind": "teach",
            }
        ],
    }
    assert "taught" in agent("why", "Sky?").out
    assert "Sky?" in agent("why", "Sky?").out


def test_snapshots_are_listed_and_verified(agent: Agent, server: InThread) -> None:
    manifests = [made_snapshot(server.parts.snapshots, version) for version in (2, 1)]
    assert agent("snapshots", "list", "--json").json == {
        "snapshots": [
            {
                "model_version": manifest.model_version,
                "digest": manifest.digest,
                "size_bytes": manifest.size,
                "created_at": manifest.created_at,
            }
            for manifest in manifests
        ]
    }
    ran = agent("snapshots", "verify", "--json")
    assert ran.code == 0
    assert ran.json == {
        "snapshots": [{"model_version": 2, "error": ""}, {"model_version": 1, "error": ""}]
    }
    (folder_of(server.parts.snapshots, 2) / WEIGHTS).write_text("x")
    ran = agent("snapshots", "verify", "--json")
    assert ran.code == 1
    assert ["torn" in snapshot["error"] for snapshot in ran.json["snapshots"]] == [True, False]
    assert "1: good" in agent("snapshots", "verify").out


def test_snapshots_are_made_and_pruned(agent: Agent, server: InThread) -> None:
    made_snapshot(server.parts.snapshots, 1)
    made_snapshot(server.parts.snapshots, 2)
    assert agent("snapshots", "prune", "--json").json == {"removed_versions": [1]}
    created = agent("snapshots", "create", "--json").json
    assert set(created) == {"model_version", "digest", "size_bytes", "created_at"}
    assert created["model_version"] == 3


@pytest.mark.parametrize("command", ["export", "backup"])
def test_copies_name_their_folder_and_version(
    agent: Agent, server: InThread, tmp_path: Path, command: str
) -> None:
    server.write(teach_learned)
    target = tmp_path / "copy"
    ran = agent(command, str(target), "--json")
    assert ran.code == 0
    version = {"export": 3, "backup": 1}[command]
    assert ran.json == {"folder": str(target), "model_version": version}
    ran = agent(command, str(target))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: folder: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("facts", "forget", "nobody"), "nobody"),
        (("rollback", "--to", "7"), "version 7"),
        (("why", "Sky?"), "Sky?"),
        (("why", ""), "question: must not be empty"),
        (("facts", "forget", "caf\udce9"), "fact_id: must be UTF-8"),
        (("why", "caf\udce9?"), "question: must be UTF-8"),
        (("export", "caf\udce9"), "folder: must be UTF-8"),
        (("backup", "caf\udce9"), "folder: must be UTF-8"),
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


def test_facts_that_were_given_up_are_queued_again(agent: Agent, server: InThread) -> None:
    """H6."""
    failed = [server.write(partial(teach_claimed, question="Sky?")).id]
    server.write(lambda store: store.record_failure(failed[0], "out of memory", 1))
    resisted = server.write(partial(teach_claimed, question="Hard?")).id
    server.write(lambda store: record_resisted(store, resisted, "too hard", learning()))
    ran = agent("facts", "retry", "--all-quarantined", "--json")
    assert (ran.code, ran.json) == (0, {"queued": failed, "refused": {}})
    ran = agent("facts", "retry", resisted, failed[0])
    assert (ran.code, ran.out) == (1, "queued again: 1\n")
    assert f"{failed[0]}: Fact {failed[0]} is queued" in ran.err
    assert (
        agent("facts", "retry").code == agent("facts", "retry", "x", "--all-quarantined").code == 2
    )


def test_a_proof_says_why_it_begins_earlier_and_what_was_not_measured() -> None:  # H1
    proof = {"answers_it": None, "branch_from": 3, "branch_from_because": "of an upgrade"}
    assert dict(proof_lines(proof)) == {"begins at": "version 3, since of an upgrade"}
    assert dict(proof_lines({"served": 0, "served_because": "x"})) == {
        "begins at": "version 0, since x"
    }
    assert dict(proof_lines({"branch_from": 3, "branch_from_because": ""})) == {}
