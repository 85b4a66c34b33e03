"""With `--json` every command prints exactly one object, also where it fails."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.cli.output import print_json
from agent.errors import ServerUnreachableError
from tests.cli.conftest import Agent, InThread, Ran
from tests.cli.test_json import FIELDS, commands
from tests.integration.servers import environment

ERROR = ["code", "reason", "message", "hint", "violations", "retry_seconds"]
# They ask no server.
LOCAL = ("eval", "bench", "models", "doctor", "tokens")


def error_of(ran: Ran) -> dict[str, Any]:
    """The error object of a command, which is all of its standard output."""
    assert "\x1b" not in ran.out + ran.err
    assert list(ran.json) == ["error"]
    error: dict[str, Any] = ran.json["error"]
    assert list(error) == ERROR
    assert error["code"] == ran.code
    assert error["message"]
    assert "\n" not in error["message"]
    assert ran.err  # people are told too
    return error


@pytest.mark.parametrize("words", sorted(words for words, _ in commands()))
def test_wrong_usage_of_any_command(agent: Agent, words: str) -> None:
    error = error_of(agent(*words.split(), "--nonsense", "--json"))
    assert (error["code"], error["reason"]) == (2, "WRONG_USAGE")
    assert error["hint"] == f"see '{' '.join(('agent', *words.split()))} --help'"


ASKING = [command for command in FIELDS if not command.startswith(LOCAL)]


@pytest.mark.parametrize("command", ASKING)
def test_no_server_for_any_command_that_asks_one(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def fail(*_: object) -> None:
        raise ServerUnreachableError("no server answers at 127.0.0.1:1")

    monkeypatch.setattr("agent.cli.connection.Client", fail)
    monkeypatch.setenv("AGENT_SERVER", "127.0.0.1:1")
    error = error_of(agent(*command.split(), "--json"))
    assert (error["code"], error["reason"]) == (1, "SERVER_UNREACHABLE")
    assert "agent serve" in error["hint"]


FAILING = {
    "eval --suite probes": (1, "SERVER_UNREACHABLE"),
    "eval --suite nonsense": (1, "CONFIG"),
    "eval --suite continual --policy nonsense": (2, "WRONG_USAGE"),
    "eval compare FOLDER/none FOLDER/none": (2, "WRONG_USAGE"),
    "bench": (2, "WRONG_USAGE"),
    "models pull no-such-model": (1, "MODEL_NOT_FOUND"),
    "tokens create ann --role nobody --tokens FOLDER/tokens": (2, "WRONG_USAGE"),
    "tokens create ann --role read --tokens FOLDER": (1, "CONFIG"),
    "tokens list --tokens FOLDER/none": (1, "CONFIG"),
    "tokens revoke nobody --tokens FOLDER/none": (1, "CONFIG"),
    "teach --file FOLDER/none.csv": (1, "CONFIG"),
    "teach Sky? Piano": (1, "SERVER_UNREACHABLE"),
    "teach": (2, "WRONG_USAGE"),
    "facts retry": (2, "WRONG_USAGE"),
    "nonsense": (2, "WRONG_USAGE"),
    "facts nonsense": (2, "WRONG_USAGE"),
    "--nonsense status": (2, "WRONG_USAGE"),
    "--config FOLDER/none.toml status": (1, "CONFIG"),
    "serve": (2, "WRONG_USAGE"),  # it has no result, and no --json
    "monitor": (2, "WRONG_USAGE"),
}


@pytest.mark.parametrize(("command", "expected"), FAILING.items(), ids=FAILING)
def test_other_failures(
    agent: Agent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    expected: tuple[int, str],
) -> None:
    def fail(*_: object) -> None:
        raise ServerUnreachableError("no server answers at 127.0.0.1:1")

    monkeypatch.setattr("agent.cli.connection.Client", fail)
    error = error_of(agent(*command.replace("FOLDER", str(tmp_path)).split(), "--json"))
    assert (error["code"], error["reason"]) == expected


def test_what_a_server_refuses_brings_its_reason_and_its_fields(
    agent: Agent, server: InThread
) -> None:
    error = error_of(agent("teach", "Sky?", " ", "--json"))
    assert (error["code"], error["reason"]) == (1, "INVALID_FIELD")
    assert error["violations"] == [{"field": "answer", "message": "must not be empty"}]
    error = error_of(agent("facts", "show", "nothing", "--json"))
    assert (error["reason"], error["violations"]) == ("NOT_FOUND", [])
    server.parts.view.learner = None
    error = error_of(agent("score", "Sky?", "Piano", "--json"))
    assert (error["reason"], error["retry_seconds"]) == ("LEARNER_UNAVAILABLE", 1.0)
    assert error["hint"] == "try again in 1 s"


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        (KeyboardInterrupt(), 130, "INTERRUPTED"),
        (ZeroDivisionError("by\nzero"), 1, "ZERO_DIVISION"),
    ],
)
def test_an_interrupt_and_a_fault_of_ours(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("agent.cli.connection.Client", fail)
    error = error_of(agent("status", "--json"))
    assert (error["code"], error["reason"]) == (code, reason)


def test_an_object_that_was_asked_for_in_the_settings(agent: Agent, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("json = true\n")
    error = error_of(agent("--config", str(config), "tokens", "list", "--tokens", "none"))
    assert error["reason"] == "CONFIG"
    # And for the next command it is not in force any more.
    assert agent("tokens", "list", "--tokens", "none").out == ""


def test_an_argument_that_is_no_option_asks_for_no_object(agent: Agent) -> None:
    ran = agent("tokens", "create", "--role", "nobody", "--", "--json")
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_object_can_be_read_whatever_the_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    told = {"answer": "Flügelhorn \u732b \U0001f3b9 \x1b[31m \udcff"}
    print_json(told)
    sys.stdout.flush()
    line = written.getvalue()
    assert b"\x1b" not in line
    assert json.loads(line.decode(encoding)) == told


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": float("nan"), "steps": [{"p": float("-inf")}], "pair": (1.5, 2)})
    assert json.loads(capsys.readouterr().out) == {
        "loss": None,
        "steps": [{"p": None}],
        "pair": [1.5, 2],
    }


@pytest.mark.parametrize("arguments", [("models", "list"), ("tokens", "list", "--tokens", "é")])
def test_a_pipe_gets_the_object_alone(arguments: tuple[str, ...], tmp_path: Path) -> None:
    colorful = {"PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    ran = subprocess.run(
        [sys.executable, "-m", "agent", *arguments, "--json"],
        env=environment() | colorful | {"HOME": os.fspath(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert ran.stdout.count(b"\n") == 1
    assert b"\x1b" not in ran.stdout
    assert isinstance(json.loads(ran.stdout.decode("ascii")), dict)
