"""C1, with real servers: what an erase removes, and a data folder that goes away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.server.app import DISK_FAILED_EXIT_CODE
from agent.snapshots import folder_of, write_snapshot
from tests.integration.servers import PATIENCE_SECONDS, contents, running

pytestmark = pytest.mark.slow


def test_a_served_backup_erases_neither_itself_nor_its_origin_s_backups(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        server.client().teach("Sky?", "Piano", fact_id="of-sky")
        for name in ("first", "second"):
            assert server.json("backup", tmp_path / name)["folder"] == str(tmp_path / name)
        assert server.stop() == 0
    with running(tmp_path / "second") as server:
        erased = server.json("facts", "forget", "of-sky", "--erase", "--wait")
        assert "this memory is a copy" in erased["message"]
        server.client().teach("Gem?", "Curtain")
        assert server.stop() == 0
    assert [fact.question for fact in contents(tmp_path / "second").facts] == ["", "Gem?"]
    assert [fact.question for fact in contents(tmp_path / "first").facts] == ["Sky?"]
    with running(tmp_path / "data") as server:
        erased = server.json("facts", "forget", "of-sky", "--erase", "--wait")
        assert f"{tmp_path / 'second'}: it belongs to another memory now" in erased["message"]
        assert server.stop() == 0
    assert not (tmp_path / "first").exists()
    assert len(contents(tmp_path / "second").facts) == 2


def test_a_server_whose_data_folder_was_removed_accepts_nothing_and_exits(tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as server:
        client = server.client()
        client.teach("Sky?", "Piano")
        shutil.rmtree(tmp_path / "data")
        with pytest.raises(AgentError):
            client.teach("Gem?", "Curtain")
        assert server.process.wait(PATIENCE_SECONDS) == DISK_FAILED_EXIT_CODE
        assert "was deleted, moved or replaced" in server.log.read_text()
    assert not (tmp_path / "data").exists()


def test_a_server_tells_snapshots_of_another_history_from_its_own(tmp_path: Path) -> None:
    """Low: beside a restored database, those of its lost future are newer than all others."""
    (tmp_path / "data").mkdir(mode=0o700)
    snapshots = tmp_path / "data" / "snapshots"
    write_snapshot(
        snapshots,
        lambda file: file.touch(),
        model_version=9,
        digest="of the lost future",
        base_digest="base",
        environment={},
    )
    with running(tmp_path / "data", ready=False) as server:
        verdict = server.client().verify_snapshots()[9]
        assert "another history" in verdict
        assert server.stop() == 0
    assert folder_of(snapshots, 9).exists()
