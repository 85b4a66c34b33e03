"""What `--help` tells, and what starting the command line costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.docs.cli_reference import commands
from tests.cli.conftest import Agent

COMMANDS = ["serve", "teach", "ask", "score", "status", "eval", "facts", "models"]
COMMANDS += ["rollback", "why", "export", "backup", "snapshots", "tokens", "doctor"]
COMMANDS += ["bench", "monitor", "pause", "resume", "report", "operations"]
CLIENTS = [
    ("teach",),
    ("ask",),
    ("score",),
    ("status",),
    ("eval",),
    ("facts", "list"),
    ("facts", "show"),
    ("facts", "forget"),
    ("rollback",),
    ("pause",),
    ("resume",),
    ("why",),
    ("report",),
    ("export",),
    ("backup",),
    *(("operations", command) for command in ("list", "show", "cancel")),
    *(("snapshots", command) for command in ("list", "create", "verify", "prune")),
]


def test_help_names_every_command(agent: Agent) -> None:
    ran = agent("--help")
    assert ran.code == 0
    for command in COMMANDS:
        assert f" {command} " in ran.out


@pytest.mark.parametrize("command", CLIENTS, ids=" ".join)
def test_every_client_command_takes_a_server_and_json(agent: Agent, command) -> None:
    ran = agent(*command, "--help")
    assert ran.code == 0
    assert "--server" in ran.out
    assert "AGENT_SERVER" in ran.out
    assert "[default: 127.0.0.1:50051]" in ran.out
    assert "--json" in ran.out
    for option in ("--tls-ca", "--tls-cert", "--tls-key", "--token", "--token-file"):
        assert f" {option} " in ran.out
    assert "AGENT_TOKEN" in ran.out


def test_help_of_serve_tells_each_default_and_variable(agent: Agent) -> None:
    text = agent("serve", "--help").out
    for default in (
        "127.0.0.1:50051",
        "pythia-410m",
        "agent-data",
        "auto",
        "0",
        "search",
        "0.0001",
        "24",
        "100000",
        "20.0",
        "10.0",
    ):
        assert f"[default: {default}]" in text
    for setting in (
        "LISTEN",
        "DATA",
        "MODEL",
        "DEVICE",
        "THREADS",
        "POLICY",
        "GUARDS",
        "LEARNING_RATE",
        "SNAPSHOT_SECONDS",
    ):
        assert f"AGENT_{setting}" in text


def test_help_of_an_option_is_a_sentence() -> None:
    for words, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                help_ = parameter.help
                assert help_[0].isupper(), (words, parameter.name)
                assert help_.endswith((".", "installation")), (words, parameter.name)


def test_the_command_line_starts_without_the_large_libraries() -> None:
    code = (
        "import sys, agent.cli;"
        "large = {'torch', 'transformers', 'numpy', 'apscheduler', 'eval.suites.probes'};"
        "print(*large & {*sys.modules})"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("ask",),
        ("teach",),
        ("teach", "Sky?"),
        ("teach", "Sky?", "Piano", "--file", "facts.csv"),
        ("teach", "Sky?", "--file", "facts.csv"),
        ("teach", "--file", "facts.csv", "--learning-rate", "1e-3"),
        ("teach", "--file", "facts.csv", "--id", "the-sky"),
        ("teach", "--file", "facts.csv", "--correlated", "Heaven?"),
        ("ask", "Sky?", "--max-new-tokens", "0"),
        ("status", "--no-such-flag"),
        ("facts", "list", "--state", "lost"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_says_how(agent: Agent, arguments) -> None:
    ran = agent(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: ")
