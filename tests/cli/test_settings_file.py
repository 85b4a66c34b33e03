"""M13: what a settings file or a variable says is never ignored in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from agent.cli import app
from agent.cli.settings_file import Command, read_settings, unknown_variables
from agent.errors import ConfigError
from tests.cli.conftest import Agent

ROOT = typer.main.get_command(app)
COMMANDS = Command.of(ROOT)
SOURCES = Path(__file__).parents[2]

REFUSED = {
    "a misspelt option": (
        '[serve]\ntokns = "tokens.json"',
        "unknown key 'serve.tokns': did you mean 'tokens'?",
    ),
    "a misspelt option with underscores": (
        "[serve]\nmax_stps = 3",
        "unknown key 'serve.max_stps': did you mean 'max-steps'?",
    ),
    "a misspelt option of all commands": (
        'servr = "127.0.0.1:1"',
        "unknown key 'servr': did you mean 'server'?",
    ),
    "a misspelt table": ("[srve]\nthreads = 1", "unknown key 'srve': did you mean 'serve'?"),
    "a misspelt option of a group": (
        '[facts]\nservr = "127.0.0.1:1"',
        "unknown key 'facts.servr': did you mean 'server'?",
    ),
    "a misspelt option of a command in a group": (
        "[facts.list]\nlimt = 3",
        "unknown key 'facts.list.limt': did you mean 'limit'?",
    ),
    "a misspelt command in a group": (
        "[facts.lst]\nlimit = 3",
        "unknown key 'facts.lst': did you mean 'list'?",
    ),
    "nothing that is like it": ("[serve]\nxyzzy = 3", "unknown key 'serve.xyzzy'\n"),
    "an option of another command": ('[ask]\ntokens = "t"', "unknown key 'ask.tokens'"),
    "an option of the program itself": ("debug = true", "unknown key 'debug'"),
    "an argument": ('[ask]\nquestion = "Sky?"', "unknown key 'ask.question'"),
    "an option with a dash and an underscore": (
        "[serve]\nmax-steps = 3\nmax_steps = 4",
        "'serve.max-steps' is given twice",
    ),
    "an option twice": ("[serve]\nthreads = 3\nthreads = 4", "not valid TOML"),
    "a table for an option": ("[serve.listen]\nport = 1", "'serve.listen' must not be a table"),
    "a value for a command": ('[facts]\nlist = "x"', "'facts.list' must be a table"),
    "true for a number": ("[serve]\nthreads = true", "'serve.threads' must be a whole number"),
    "text for a number": ('[serve]\nthreads = "2"', "'serve.threads' must be a whole number"),
    "a fraction for a whole number": ("[serve]\nthreads = 1.5", "must be a whole number"),
    "a number for text": ("[serve]\nlisten = 50051", "'serve.listen' must be a string"),
    "a number for a path": ("[serve]\ntokens = 1", "'serve.tokens' must be a string"),
    "text for a switch": (
        '[serve]\ninsecure-listen = "no"',
        "'serve.insecure-listen' must be true or false",
    ),
    "a number for a switch": ("[serve]\naccept-drift = 1", "must be true or false"),
    "a list for one value": ('[serve]\nlisten = ["a"]', "'serve.listen' must be a string"),
    "a wrong item of a list": ("[facts.list]\nstate = [1]", "must be a string, or a list of them"),
    "a wrong type for all commands": ("server = 1", "'server' must be a string"),
    "a wrong type for a group": ("[facts]\nserver = 1", "'facts.server' must be a string"),
}


@pytest.mark.parametrize(("content", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused(
    agent: Agent, tmp_path: Path, content: str, why: str
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(content)
    ran = agent("--config", str(config), "status")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert str(config) in ran.err
    assert why in ran.err


def test_a_server_does_not_start_without_the_tokens_that_were_meant(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(*settings: object) -> None:
        pytest.fail("served without authentication")

    monkeypatch.setattr("agent.server.app.serve", serve)
    config = tmp_path / "settings.toml"
    config.write_text('[serve]\ntokns = "tokens.json"\n')
    ran = agent("--config", str(config), "serve", "--model", "tiny")
    assert (ran.code, ran.out) == (1, "")
    monkeypatch.setenv("AGENT_TOKNS", "tokens.json")
    ran = agent("serve", "--model", "tiny")
    assert (ran.code, ran.out) == (1, "")
    assert "AGENT_TOKNS is not a setting: did you mean AGENT_TOKENS?" in ran.err


def test_tables_of_commands_inside_a_group_win_over_those_of_the_group(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(
        'server = "a"\njson = true\n[facts]\nserver = "b"\n'
        '[facts.list]\nserver = "c"\nlimit = 3\nstate = ["known"]\n[teach]\nid = "fact-1"\n'
        "[serve]\nlearning-rate = 1\n"
    )
    defaults = read_settings(config, COMMANDS)
    assert defaults["ask"] == {"server": "a", "json": True}
    assert defaults["facts"]["show"] == {"server": "b", "json": True}
    assert defaults["facts"]["list"] == {
        "server": "c",
        "limit": 3,
        "state": ["known"],
        "json": True,
    }
    assert defaults["teach"]["fact_id"] == "fact-1"  # its flag is --id
    assert defaults["serve"]["learning_rate"] == 1  # a whole number is a number


def test_the_doctor_looks_at_what_serve_is_set_up_as(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(
        '[serve]\nlisten = "a:1"\nmax-steps = 3\ntls_cert = "c"\n[doctor]\ntls-cert = "d"\n'
    )
    defaults = read_settings(config, COMMANDS)
    assert defaults["doctor"] == {"listen": "a:1", "tls_cert": "d"}


def test_variables_of_other_programs_are_left_alone() -> None:
    # As build servers and Kubernetes set them.
    others = ["AGENT_NAME", "AGENT_ID", "AGENT_SERVICE_HOST", "AGENT_TEMPDIRECTORY"]
    assert unknown_variables(ROOT, [*others, "PATH", "AGENT_TOKENS"]) == sorted(others)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AGENT_TOKNS", "AGENT_TOKENS"),
        ("AGENT_TLS_CERTS", "AGENT_TLS_CERT"),
        ("AGENT_MODELS", "AGENT_MODEL"),
        ("AGENT_KERNEL", "AGENT_KERNELS"),
    ],
)
def test_a_variable_that_is_almost_one_of_ours_is_refused(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is not a setting: did you mean {meant}"):
        unknown_variables(ROOT, [name])


def test_serve_reports_the_variables_that_it_ignores(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(*settings: object) -> None:
        pass

    monkeypatch.setattr("agent.server.app.serve", serve)
    monkeypatch.setenv("AGENT_NAME", "builder 7")
    ran = agent("serve", "--model", "tiny")
    assert ran.code == 0
    assert "the variable AGENT_NAME is not a setting" in ran.err
    assert "builder 7" not in ran.err  # a value may be a secret


def test_every_variable_that_the_code_reads_is_known() -> None:
    files = [path for top in ("agent", "eval") for path in (SOURCES / top).rglob("*.py")]
    named = {name for path in files for name in re.findall(r'"(AGENT_[A-Z_]+)"', path.read_text())}
    assert len(named) > 10  # those of option groups are made of the names of their fields
    assert unknown_variables(ROOT, named - {"AGENT_"}) == []
