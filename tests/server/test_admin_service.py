"""`AdminService`, and what `MemoryService` takes back, over a real connection."""

from __future__ import annotations

import json
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.snapshots import WEIGHTS, folder_of, read_manifest
from agent.wire.message_size import Room
from continual.v1 import admin_pb2 as pb
from continual.v1 import memory_pb2
from memory_store import operations, undo
from memory_store.places import list_places, record_place
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, Fact, PlaceKind
from tests.server.serving import LEARNER_GONE, Serving, made_snapshot, recovering
from tests.store import integrity
from tests.store.builders import learning, new_probe, record_resisted, teach_claimed, teach_learned

Code = grpc.StatusCode


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def assert_refused(error: grpc.aio.AioRpcError, code: grpc.StatusCode, told: str) -> None:
    assert error.code() == code
    assert told in (error.details() or "")


# --- Forgetting -----------------------------------------------------------------------------------


async def test_a_request_to_forget_is_durable_and_wakes_the_loop(served: Serving) -> None:
    fact = await served.store.write(teach_learned)
    request = memory_pb2.ForgetRequest(fact_id=fact.id)
    response = await served.memory.Forget(request)
    operation = response.operation
    assert (operation.id, operation.fact_id, operation.erase) == (1, fact.id, False)
    assert operation.kind == memory_pb2.OPERATION_KIND_FORGET
    assert operation.state == memory_pb2.OPERATION_STATE_PENDING
    assert (operation.proof_json, list(response.out_of_reach)) == ("", [])
    assert served.accepted == 1
    with MemoryStore.open(served.path, read_only=True) as store:
        assert operations.oldest_open(store) is not None
    assert (await served.memory.Forget(request)).operation == operation
    shown = await served.memory.GetFact(memory_pb2.GetFactRequest(fact_id=fact.id))
    assert shown.forgetting == operation
    looked_up = await served.admin.GetOperation(pb.GetOperationRequest(id=1))
    assert looked_up.operation == operation


async def test_who_erases_is_told_what_is_out_of_reach(served: Serving) -> None:
    fact = await served.store.write(teach_learned)
    await served.store.write(lambda store: record_place(store, PlaceKind.EXPORT, "/a/model", 1))
    request = memory_pb2.ForgetRequest(fact_id=fact.id, erase=True)
    response = await served.memory.Forget(request)
    assert response.operation.erase
    assert list(response.out_of_reach) == ["export: /a/model"]


async def test_watchers_get_nothing_of_an_erased_text_from_memory(served: Serving) -> None:
    """H1: long before the fact is forgotten, which may fail or be cancelled."""

    async def findings() -> list[object]:
        async with aclosing(served.hub.watch(served.store, 0)) as watching:
            found = await anext(watching)
            return [each.event.learning for each in found if each.event.kind is EventKind.LEARNED]

    async with aclosing(served.hub.watch(served.store, 0)) as other:  # so that events are kept
        fact = await served.store.write(teach_learned)
        await anext(other)
        assert await findings() != [None]
        await served.memory.Forget(memory_pb2.ForgetRequest(fact_id=fact.id, erase=True))
        assert await findings() == [None]


async def test_a_done_operation_has_its_proof(served: Serving) -> None:
    fact = await served.store.write(teach_claimed)
    await served.store.write(lambda store: record_resisted(store, fact.id, "no", learning()))
    await served.memory.Forget(memory_pb2.ForgetRequest(fact_id=fact.id))
    await served.store.write(partial(undo.finish_if_not_held, operation_id=1))
    await served.store.write(partial(undo.close_forget, operation_id=1))
    response = await served.admin.GetOperation(pb.GetOperationRequest(id=1))
    assert response.operation.state == memory_pb2.OPERATION_STATE_DONE
    assert json.loads(response.operation.proof_json) == {"weights": "they do not hold it"}


async def test_what_is_not_there_is_not_found(served: Serving) -> None:
    for call, told in (
        (served.memory.Forget(memory_pb2.ForgetRequest(fact_id="nobody")), "nobody"),
        (served.memory.Explain(memory_pb2.ExplainRequest(question="Sky?")), "Sky?"),
        (served.admin.GetOperation(pb.GetOperationRequest(id=7)), "operation 7"),
        (served.admin.Rollback(pb.RollbackRequest(to_version=7)), "version 7"),
    ):
        assert_refused(await refused(call), Code.NOT_FOUND, told)
    assert served.accepted == 0


async def test_an_answer_is_explained_by_its_probes_up_to_a_limit(served: Serving) -> None:
    fact = await served.store.write(partial(teach_learned, question="Sky?"))
    other = await served.store.write(partial(teach_learned, question="Gem?"))
    for version, cause, log_probability in ((1, fact, -0.5), (2, other, -3.0)):
        probe = new_probe(fact.id, log_probability=log_probability)
        await served.store.write(
            partial(
                MemoryStore.record_probes,
                probes_=[probe],
                model_version=version,
                cause_fact_id=cause.id,
            )
        )
    response = await served.memory.Explain(memory_pb2.ExplainRequest(question="sky?", limit=1))
    assert response.fact_id == fact.id
    [influence] = response.influences
    assert (influence.model_version, influence.cause_question) == (2, "Gem?")
    assert influence.probability_before > 0.6
    assert influence.probability_after < 0.05
    error = await refused(served.memory.Explain(memory_pb2.ExplainRequest(question="")))
    assert_refused(error, Code.INVALID_ARGUMENT, "question: ")


# --- Rolling back ---------------------------------------------------------------------------------


async def test_a_request_to_roll_back_is_durable_and_wakes_the_loop(served: Serving) -> None:
    await served.store.write(teach_learned)
    response = await served.admin.Rollback(pb.RollbackRequest(to_version=1))
    assert response.operation.kind == memory_pb2.OPERATION_KIND_ROLLBACK
    assert (response.operation.to_version, response.operation.fact_id) == (1, "")
    assert served.accepted == 1


async def test_a_rollback_that_makes_no_sense_is_refused(served: Serving) -> None:
    error = await refused(served.admin.Rollback(pb.RollbackRequest(to_version=-1)))
    assert_refused(error, Code.INVALID_ARGUMENT, "to_version: ")
    fact = await served.store.write(teach_learned)
    await served.memory.Forget(memory_pb2.ForgetRequest(fact_id=fact.id))
    error = await refused(served.admin.Rollback(pb.RollbackRequest(to_version=1)))
    assert_refused(error, Code.FAILED_PRECONDITION, fact.id)


# --- Snapshots ------------------------------------------------------------------------------------


async def test_snapshots_are_made_listed_verified_and_pruned(served: Serving) -> None:
    made_snapshot(served.snapshots, 1)
    made_snapshot(served.snapshots, 2)
    listed = (await served.admin.ListSnapshots(pb.ListSnapshotsRequest())).snapshots
    assert [(s.model_version, s.digest, s.size_bytes) for s in listed] == [
        (2, "digest-2", 2),
        (1, "digest-1", 1),
    ]
    assert listed[0].create_time == read_manifest(folder_of(served.snapshots, 2)).created_at

    (folder_of(served.snapshots, 1) / WEIGHTS).write_text("x")
    verdicts = (await served.admin.VerifySnapshots(pb.VerifySnapshotsRequest())).verdicts
    assert [(v.model_version, bool(v.error)) for v in verdicts] == [(2, False), (1, True)]
    assert "torn" in verdicts[1].error

    pruned = await served.admin.PruneSnapshots(pb.PruneSnapshotsRequest())
    assert list(pruned.removed_versions) == [1]
    created = await served.admin.CreateSnapshot(pb.CreateSnapshotRequest())
    assert (created.snapshot.model_version, created.snapshot.digest) == (3, "digest-3")
    listed = (await served.admin.ListSnapshots(pb.ListSnapshotsRequest())).snapshots
    assert [snapshot.model_version for snapshot in listed] == [3]  # the rule: the newest


async def test_without_a_learner_there_is_no_snapshot_and_no_export(
    served: Serving, tmp_path: Path
) -> None:
    recovering(served)
    target = tmp_path / "model"
    for call in (
        served.admin.CreateSnapshot(pb.CreateSnapshotRequest()),
        served.admin.Export(pb.ExportRequest(folder=str(target))),
    ):
        assert (await refused(call)).code() == Code.UNAVAILABLE
    assert not target.exists()


# --- Copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Export", "Backup"])
async def test_a_folder_that_cannot_be_new_is_refused(
    served: Serving, tmp_path: Path, method: str
) -> None:
    existing, file = tmp_path / "existing", tmp_path / "file"
    existing.mkdir()
    file.write_text("x")
    request = {"Export": pb.ExportRequest, "Backup": pb.BackupRequest}[method]
    for folder in ("", "relative/folder", str(existing), str(file), str(file / "below")):
        error = await refused(getattr(served.admin, method)(request(folder=folder)))
        assert_refused(error, Code.INVALID_ARGUMENT, "folder: ")
    assert list(existing.iterdir()) == []
    assert await served.store.read(list_places) == []


async def test_an_export_is_a_checkpoint_with_a_list_of_its_facts(
    served: Serving, tmp_path: Path
) -> None:
    await served.store.write(partial(teach_learned, question="a | b?", answer="Piano"))
    target = tmp_path / "new" / "model"
    response = await served.admin.Export(pb.ExportRequest(folder=str(target)))
    assert response.model_version == 3
    assert sorted(file.name for file in target.iterdir()) == ["README.md", "model.safetensors"]
    assert "| a \\| b? | Piano | 0.300 |" in (target / "README.md").read_text()
    [place] = await served.store.read(list_places)
    assert (place.kind, place.path, place.model_version) == (PlaceKind.EXPORT, str(target), 3)


async def test_an_export_reads_its_facts_in_parts(
    served: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M11: all of them at once held up everybody who reads."""
    monkeypatch.setattr("agent.server.api.held_facts.PAGE", 2)
    for number in range(5):
        await served.store.write(partial(teach_learned, question=f"{number}?", answer="Piano"))
    limits: list[int] = []
    facts = MemoryStore.facts

    def noted(store: MemoryStore, **options: Any) -> list[Fact]:
        limits.append(options["limit"])
        return facts(store, **options)

    monkeypatch.setattr(MemoryStore, "facts", noted)
    target = tmp_path / "model"
    await served.admin.Export(pb.ExportRequest(folder=str(target)))
    assert limits == [2, 2, 2]
    readme = (target / "README.md").read_text()
    assert all(f"| {number}? | Piano |" in readme for number in range(5))


async def test_operations_are_listed_in_pages_that_end_by_their_bytes(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M10: every list does."""
    facts = [
        await served.store.write(partial(teach_learned, question=f"{n}?", answer="Piano"))
        for n in range(3)
    ]
    for fact in facts:
        await served.memory.Forget(memory_pb2.ForgetRequest(fact_id=fact.id))
    monkeypatch.setattr(Room.__init__, "__defaults__", (1,))
    request, seen = pb.ListOperationsRequest(), list[str]()
    while not seen or request.page_token:
        page = await served.admin.ListOperations(request)
        [operation] = page.operations
        seen.append(operation.fact_id)
        request.page_token = page.next_page_token
    assert seen == [fact.id for fact in facts[::-1]]


async def test_an_export_that_fails_leaves_nothing(served: Serving, tmp_path: Path) -> None:
    assert served.view.learner is not None
    served.view.learner.error = LEARNER_GONE
    folder = tmp_path / "copies"
    folder.mkdir()
    error = await refused(served.admin.Export(pb.ExportRequest(folder=str(folder / "model"))))
    assert error.code() == Code.UNAVAILABLE
    assert list(folder.iterdir()) == []
    assert await served.store.read(list_places) == []


async def test_a_backup_is_a_data_folder(served: Serving, tmp_path: Path) -> None:
    fact = await served.store.write(teach_learned)
    made_snapshot(served.snapshots, 1)
    general_text = served.snapshots.parent / "general-text"  # M1
    general_text.mkdir()
    (general_text / "2-96.json").write_text("{}")
    target = tmp_path / "copy"
    response = await served.admin.Backup(pb.BackupRequest(folder=str(target)))
    assert response.model_version == 1
    assert target.stat().st_mode & 0o077 == 0
    assert (target / "general-text" / "2-96.json").read_text() == "{}"
    with MemoryStore.open(target / "memory.db") as copy:
        assert integrity.problems(copy.connection) == []
        assert copy.fact(fact.id) == fact
    assert read_manifest(folder_of(target / "snapshots", 1)).digest == "digest-1"
    [place] = await served.store.read(list_places)
    assert (place.kind, place.path) == (PlaceKind.BACKUP, str(target))


async def test_compacting_removes_old_probes_and_gives_space_back(served: Serving) -> None:  # M15
    def fill(store: MemoryStore) -> None:
        fact = teach_learned(store, "compacted?")
        wordy = [new_probe(fact.id, correct=False, answer=f"{n} ".ljust(500)) for n in range(900)]
        store.record_probes(wordy, 1)

    await served.store.write(fill)
    done = await served.admin.Compact(pb.CompactRequest())
    assert done.removed_probes == 898
    assert done.bytes_after < done.bytes_before / 2
    assert (done.removed_events, done.reclaimable_bytes) == (0, 0)


# --- Operations -----------------------------------------------------------------------------------


async def test_operations_are_listed_in_pages_newest_first(served: Serving) -> None:
    """H5."""
    await served.store.write(teach_learned)
    for _ in range(3):
        await served.admin.Rollback(pb.RollbackRequest(to_version=1))
    first = await served.admin.ListOperations(pb.ListOperationsRequest(page_size=2))
    assert [operation.id for operation in first.operations] == [3, 2]
    second = await served.admin.ListOperations(
        pb.ListOperationsRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [operation.id for operation in second.operations] == [1]
    assert second.next_page_token == ""
    assert second.operations[0].HasField("request_time")
    assert not second.operations[0].HasField("finish_time")
    call = served.admin.ListOperations(pb.ListOperationsRequest(page_token="another"))
    assert_refused(await refused(call), Code.INVALID_ARGUMENT, "page token")


async def test_a_cancelled_operation_wakes_the_loop_and_is_over(served: Serving) -> None:
    """H5."""
    fact = await served.store.write(teach_learned)
    await served.memory.Forget(memory_pb2.ForgetRequest(fact_id=fact.id))
    accepted = served.accepted
    response = await served.admin.CancelOperation(pb.CancelOperationRequest(id=1))
    assert response.operation.state == memory_pb2.OPERATION_STATE_CANCELLED
    assert response.operation.HasField("finish_time")
    assert served.accepted == accepted + 1
    events = await served.store.read(MemoryStore.events)
    assert (events[-1].kind, events[-1].message) == ("operation_failed", "cancelled")
    call = served.admin.CancelOperation(pb.CancelOperationRequest(id=9))
    assert_refused(await refused(call), Code.NOT_FOUND, "operation 9")


async def test_what_is_served_already_cannot_be_cancelled(served: Serving) -> None:
    """H5: only the clean-up is left."""
    fact = await served.store.write(teach_claimed)
    await served.store.write(lambda store: record_resisted(store, fact.id, "no", learning()))
    await served.memory.Forget(memory_pb2.ForgetRequest(fact_id=fact.id))
    await served.store.write(partial(undo.finish_if_not_held, operation_id=1))
    call = served.admin.CancelOperation(pb.CancelOperationRequest(id=1))
    assert_refused(await refused(call), Code.FAILED_PRECONDITION, "its result is served")
