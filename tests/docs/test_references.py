"""The pages that are made from the code tell all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.docs.cli_reference import cli_page, commands, settings_page
from scripts.docs.proto_reference import proto_page
from scripts.readme_blocks import parse

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
# What `make docs-test` executes.
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    *(ROOT / "docs" / "how-to").glob("*.md"),
]


def test_every_command_and_option_is_told() -> None:
    page = cli_page()
    for words, command in commands():
        assert f"\n## {words}\n" in page
        assert all(
            f"`{name}`" in page for p in command.params for name in p.opts[:1] if "-" in name
        )
    assert "| `--json` |  | Print one JSON object, also for an error. |" in page


def test_a_setting_is_told_with_its_variable_and_default() -> None:
    page = settings_page()
    assert (
        "| `server` | `AGENT_SERVER` | `127.0.0.1:50051` |"
        " Call the server at this address, HOST:PORT or HOST. |" in page
    )
    assert "| `model` | `AGENT_MODEL` | `pythia-410m` |" in page


def test_methods_messages_and_enums_are_told_with_their_comments() -> None:
    page = proto_page(PROTO)
    assert "### MemoryService.Teach\n\n[TeachRequest](#teachrequest) → [TeachResponse]" in page
    assert "Answers once it is durable, before it is learned." in page
    assert "### LearningRatePolicy.Fixed { #learningratepolicy-fixed }" in page
    assert "| 4 | `correlated_questions` | list of string | Related questions" in page
    assert "| 7 | `environment` | map of string to string | Software and hardware" in page
    assert "| 1 | `FACT_STATE_QUEUED` | Accepted, waiting for its turn. |" in page
    assert "`Timestamp`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_each_page_make_sense(page: Path) -> None:
    parse(page.read_text(encoding="utf-8"), page.name)
