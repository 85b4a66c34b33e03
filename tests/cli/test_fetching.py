"""The model is fetched while the server accepts facts already."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import typer

from agent.cli import model_fetch
from agent.errors import MissingDeviceError
from agent.models import catalog
from tests.cli.conftest import Agent


@pytest.fixture
def pulling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Has `agent models pull` be a script, which the test writes."""
    script = tmp_path / "pull.py"
    started = asyncio.create_subprocess_exec

    async def start(*command: str, **options: object) -> asyncio.subprocess.Process:
        assert command[-4:] == ("agent", "models", "pull", "pythia-14m")
        return await started(sys.executable, str(script), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(catalog, "cached_snapshot", lambda hub_id: None)
    return script


async def test_a_model_that_is_here_is_not_fetched() -> None:
    await model_fetch.fetch("tiny")


async def test_a_model_that_cannot_be_fetched_ends_with_the_code_of_the_pull(pulling: Path) -> None:
    pulling.write_text("raise SystemExit(1)")
    with pytest.raises(typer.Exit) as ended:
        await model_fetch.fetch("pythia-14m")
    assert ended.value.exit_code == 1
    pulling.write_text("")
    await model_fetch.fetch("pythia-14m")


async def test_a_server_that_is_stopped_stops_the_fetching(pulling: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    pulling.write_text(f"import time; open({str(begun)!r}, 'w'); time.sleep(600)")
    fetching = asyncio.create_task(model_fetch.fetch("pythia-14m"))
    async with asyncio.timeout(30):
        while not begun.exists():
            await asyncio.sleep(0.01)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching  # the process has ended: it was waited for


def test_what_is_no_model_is_refused_before_anything_is_made(agent: Agent, tmp_path: Path) -> None:
    ran = agent("serve", "--model", "tinny", "--data", str(tmp_path / "data"))
    assert ran.code == 1
    assert "Did you mean tiny" in ran.err
    assert not (tmp_path / "data").exists()


async def test_a_device_that_is_missing_is_found_before_the_model_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no_cuda(command: list[str], stderr: int | None = None) -> int:
        assert "torch.cuda.is_available" in command[-1]
        return 1

    monkeypatch.setattr(model_fetch, "_ended", no_cuda)
    with pytest.raises(MissingDeviceError, match="--device cpu"):
        await model_fetch.prepare("pythia-14m", "cuda")
