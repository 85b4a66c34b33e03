"""Where a setting comes from: flag, then environment, then file, then default."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent.cli.serve import event_loop_factory
from agent.client.channel import Access
from agent.config import DEFAULT_ADDRESS
from agent.teaching.limits import TeachingLimits
from tests.cli.conftest import Agent

FLAG, VARIABLE, FILE = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"


@pytest.fixture
def asked(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    """Runs `agent status` and tells which address it was about to ask."""
    addresses: list[str] = []

    class Recorded:
        def __init__(self, address: str, access: Access) -> None:
            addresses.append(address)
            raise SystemExit(0)

    monkeypatch.setattr("agent.cli.connection.Client", Recorded)

    def run(*arguments: str) -> str:
        agent(*arguments)
        return addresses.pop()

    return run


def test_flag_over_environment_over_file_over_default(
    asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked("status") == DEFAULT_ADDRESS
    config = tmp_path / "settings.toml"
    config.write_text(f'server = "{FILE}"\n')
    monkeypatch.setenv("AGENT_CONFIG", str(config))
    assert asked("status") == FILE
    monkeypatch.setenv("AGENT_SERVER", VARIABLE)
    assert asked("status") == VARIABLE
    assert asked("status", "--server", FLAG) == FLAG


def test_a_table_of_one_command_wins_over_the_setting_of_all(asked, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f'server = "{FILE}"\n[status]\nserver = "{VARIABLE}"\n')
    assert asked("--config", str(config), "status") == VARIABLE
    assert asked("--config", str(config), "score", "Sky?", "Piano") == FILE


def test_the_file_of_the_user_is_found(asked, tmp_path: Path) -> None:
    config = tmp_path / "config" / "continual-agent" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'server = "{FILE}"\n')
    assert asked("status") == FILE


@pytest.fixture
def served(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    """Runs `agent serve` and tells the settings it was about to serve with."""
    given = []

    async def record(settings, on_start, fetch) -> None:
        given.append(settings)

    monkeypatch.setattr("agent.server.app.serve", record)

    def run(*arguments: str):
        ran = agent(*arguments, "serve", "--model", "tiny")
        assert ran.code == 0, ran.err
        return given.pop()

    return run


def test_serve_takes_its_settings_from_the_same_places(
    served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(
        '[serve]\nlisten = "127.0.0.1:3"\nmax-steps = 7\nlearning_rate = 3e-3\nthreads = 1\n'
    )
    monkeypatch.setenv("AGENT_LISTEN", VARIABLE)
    monkeypatch.setenv("AGENT_DATA", str(tmp_path / "data"))
    settings = served("--config", str(config))
    assert settings.listen == VARIABLE
    assert settings.data == tmp_path / "data"
    assert settings.threads == 1
    assert (settings.policy.learning_rate, settings.policy.max_steps) == (3e-3, 7)


def test_a_command_leaves_no_log_handler_to_the_next_test(agent: Agent) -> None:
    """Low: it wrote "Logging error ... I/O operation on closed file" into the runs of others."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    assert agent("serve", "--device", "abacus").code == 1
    assert (root.handlers, root.level) == before


def test_the_defaults_of_serve(served) -> None:
    settings = served()
    assert (settings.listen, settings.data) == (DEFAULT_ADDRESS, Path("agent-data"))
    assert (settings.device, settings.threads) == ("auto", None)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"server = ", "not valid TOML"),
        (b'server = "\xff"', "not valid TOML"),
        (b'status = "127.0.0.1:3"', "'status' must be a table"),
    ],
    ids=["missing", "broken", "not UTF-8", "no table"],
)
def test_a_bad_settings_file_is_one_line_and_exit_code_1(
    agent: Agent, tmp_path: Path, content: bytes | None, why: str
) -> None:
    config = tmp_path / "settings.toml"
    if content is not None:
        config.write_bytes(content)
    ran = agent("--config", str(config), "status")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert str(config) in ran.err
    assert why in ran.err


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--policy", "magic"), "unknown policy 'magic'"),
        (("--learning-rate", "0.5"), "out of range"),
        (("--learning-rate", "nan"), "out of range"),
        (("--max-steps", "0"), "out of range"),
        (("--allow-policies", "search,magic"), "unknown policy 'magic'"),
        (("--allow-policies", "fixed"), "--policy search is not among --allow-policies"),
        (("--largest-learning-rate", "nan"), "out of range"),
        (("--most-steps", "0"), "out of range"),
        (
            ("--largest-learning-rate", "1e-5"),
            "--learning-rate 0.0001 is more than --largest-learning-rate 1e-05",
        ),
        (("--most-steps", "10"), "--max-steps 24 is more than --most-steps 10"),
        (("--device", "toaster"), "auto, cpu or cuda"),
        (("--model", "no-such-model"), "No model named 'no-such-model'"),
    ],
)
def test_a_wrong_setting_of_serve_is_one_line_and_exit_code_1(
    agent: Agent, tmp_path: Path, flags: tuple[str, str], why: str
) -> None:
    data = tmp_path / "data"
    ran = agent("serve", "--model", "tiny", "--data", str(data), *flags)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert why in ran.err
    assert not data.exists()


def test_the_limits_of_serve_are_safe_unless_the_operator_says_otherwise(served) -> None:  # M5
    every = ("fixed", "paper", "until-known", "search", "predicted")
    assert served().limits == TeachingLimits(
        policies=every, largest_learning_rate=5e-3, most_steps=100, gated=True
    )


def test_the_limits_of_serve_are_settings(
    served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # M5
    config = tmp_path / "settings.toml"
    config.write_text(
        '[serve]\nallow-policies = "search, fixed"\nlargest-learning-rate = 1e-3\n'
        "most-steps = 200\nallow-ungated = true\n"
    )
    monkeypatch.setenv("AGENT_MOST_STEPS", "50")
    assert served("--config", str(config)).limits == TeachingLimits(
        policies=("search", "fixed"), largest_learning_rate=1e-3, most_steps=50, gated=False
    )


def test_the_limits_of_serve_allow_its_own_policy(served, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("[serve]\nlearning-rate = 0.02\nmax-steps = 500\n")
    limits = served("--config", str(config)).limits
    assert (limits.largest_learning_rate, limits.most_steps) == (0.02, 500)


def test_the_server_takes_uvloop_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = event_loop_factory()
    assert factory is not None
    loop = factory()
    assert type(loop).__module__.startswith("uvloop")
    loop.close()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert event_loop_factory() is None
