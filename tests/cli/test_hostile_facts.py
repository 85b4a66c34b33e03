"""Facts that attack a terminal or a log: kept as they are, and shown escaped everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.printable import escaped
from agent.server.api.exports import write_readme
from memory_store.store import MemoryStore
from tests.cli.conftest import Agent, InThread, Ran
from tests.store.builders import new_fact, teach_learned

ATTACKS = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07?",
    "C1 escape": "\x9b31mred",
    "backspace": "safe\b\b\b\bevil",
    "carriage return": "safe\revil",
    "lines": "one\ntwo\x0bthree\u2028four",
    "turned round": "\u202etxt.exe",
    "unseen": "a\u200bb\u00adc",
    "markup": "[bold red]a[/] [link=x:y]b[/]",
    "unclosed markup": "[/nothing] [",
    "emoji code": ":boom:",
    "private use": "\U000f0000",
}


def require_harmless(ran: Ran) -> None:
    for text in (ran.out, ran.err):
        assert all(c.isprintable() or c == "\n" for c in text), repr(text)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_hostile_fact_is_kept_as_it_is_and_shown_escaped(
    agent: Agent, server: InThread, attack: str
) -> None:
    # An answer may have no control characters; the model's own may have any.
    fact = server.write(lambda store: teach_learned(store, attack, attack))
    server.parts.view.learner.says = attack  # type: ignore[union-attr]
    assert server.parts.stored_questions() == [attack]
    for command in (
        ("facts", "list"),
        ("facts", "show", fact.id),
        ("why", attack),
        ("ask", attack),
        ("eval", "--suite", "probes"),
        ("teach", attack, "Other"),
    ):
        plain = agent(*command)
        require_harmless(plain)
        assert plain.code == 0, plain.err
        structured = agent(*command, "--json")
        require_harmless(structured)
        assert structured.json  # one line, one object
    assert agent("facts", "list", "--json").json["facts"][0]["question"] == attack
    assert agent("ask", attack, "--json").json["answer"] == attack
    shown = agent("facts", "show", fact.id).out
    assert escaped(attack).split()[0] in shown


def test_json_says_the_same_with_and_without_escapes(agent: Agent, server: InThread) -> None:
    for attack in ATTACKS.values():
        new = new_fact(attack)
        server.write(lambda store, new=new: store.teach(new))  # type: ignore[misc]
    ran = agent("facts", "list", "--json")
    require_harmless(ran)
    assert [fact["question"] for fact in ran.json["facts"]] == list(ATTACKS.values())


def test_an_id_and_an_error_are_escaped_too(agent: Agent, server: InThread) -> None:
    ran = agent("facts", "show", "\x1b[31m[bold]")
    assert ran.code == 1
    require_harmless(ran)
    assert "[bold]" in ran.err


@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
def test_a_line_of_megabytes_is_told_by_its_number_and_the_others_are_taught(
    agent: Agent, server: InThread, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "facts.jsonl"
    questions = ("Sky?", "x" * size, "Gem?")
    file.write_text("\n".join(json.dumps({"question": q, "answer": "Piano"}) for q in questions))
    ran = agent("teach", "--file", str(file), "--json")
    assert ran.code == 1
    assert [error["line"] for error in ran.json["errors"]] == [2]
    assert len(ran.err) + len(ran.out) < 10_000
    assert server.parts.stored_questions() == ["Sky?", "Gem?"]


def test_the_readme_of_an_export_is_harmless(tmp_path: Path) -> None:
    with MemoryStore.open(tmp_path / "memory.db") as store:
        facts = [teach_learned(store, attack) for attack in ATTACKS.values()]
    write_readme(tmp_path, 3, facts)
    lines = (tmp_path / "README.md").read_text().split("\n")
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith("| ") for line in lines) == 1 + len(ATTACKS)
