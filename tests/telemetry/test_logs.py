"""The log: for people and for machines, with the ids of what it is about."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from agent.config import LogFormat
from agent.server.telemetry.logs import bound, configure
from tests.log_settings import log_settings_kept

logger = logging.getLogger("agent.test")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with log_settings_kept():
        yield


def test_a_record_for_people_is_a_line_with_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.TEXT, process="learner")
    with bound(fact_id="f1", model_version=3):
        logger.info("served: %s", "teach")
    logger.warning("no more")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(
        " INFO agent.test: served: teach fact_id=f1 model_version=3 process=learner"
    )
    assert second.endswith(" WARNING agent.test: no more process=learner")


def test_a_hostile_fact_cannot_forge_a_line_or_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LogFormat.TEXT)
    with bound(fact_id="f1\nroot"):
        logger.error("refused: %s", "Sky?\n2026-01-01 INFO all is well\x1b[2J")
    [line] = capsys.readouterr().err.splitlines()
    assert r"Sky?\n2026-01-01 INFO all is well\x1b[2J fact_id=f1\nroot" in line


@pytest.mark.parametrize("form", LogFormat)
def test_a_traceback_is_kept(form: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    configure(form)
    try:
        raise ArithmeticError("the loss\x1b is NaN")
    except ArithmeticError:
        logger.exception("it failed")
    text = capsys.readouterr().err
    assert "ArithmeticError: the loss" in text
    assert "\x1b" not in text


async def test_a_record_for_machines_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.JSON)

    async def learn(fact_id: str) -> None:
        with bound(fact_id=fact_id):
            await asyncio.sleep(0)  # tasks do not mix
            logger.info("learned", extra={"steps": 2})

    await asyncio.gather(learn("f1"), learn("f2"))
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(r["message"], r["fact_id"], r["steps"]) for r in records] == [
        ("learned", "f1", 2),
        ("learned", "f2", 2),
    ]
    assert {r["level"] for r in records} == {"info"}
    assert all(r["timestamp"].endswith("Z") and r["logger"] == "agent.test" for r in records)
