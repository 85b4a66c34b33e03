"""Recorded histories come out as recorded: the guard rail of every change of structure.

Ledgers must replay bit by bit, whatever is moved or renamed. `tests/golden/*.json` says what a few
histories led to. Bits depend on the machine (see `recorder.fingerprint`):

- On a machine that is in the file, everything is compared exactly.
- On another one the outline is compared (versions, rows, policies, states), the history is lived
  twice, which must give the same bits, and every restart must find the weights that were served
  before it. To compare bits there too, record them before a change: `python -m tests.golden`
  at a commit that is known to be good adds that machine to the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from memory_store.vocabulary import Update
from tests.golden.golden_file import ONLY_RELATIONS, Golden, first_difference, live
from tests.golden.histories import FAST, SLOW, History
from tests.golden.recorder import Steps, fingerprint, row_bits
from tests.integration.servers import contents, running
from tests.undo.memory import FACTS

RecordProperty = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def torch_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", FAST)
def test_a_history_comes_out_as_recorded(name: str, record_property: RecordProperty) -> None:
    check(name, FAST[name], record_property)


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("name", SLOW)
def test_a_history_of_a_real_model_comes_out_as_recorded(
    name: str, record_property: RecordProperty
) -> None:
    check(name, SLOW[name], record_property)


def check(name: str, history: History, record_property: RecordProperty) -> None:
    golden = Golden.read(name)
    lived = live(history)
    assert not (difference := first_difference(golden.outline, lived.outline)), difference
    restarts_change_nothing(lived.bits)
    bits = golden.bits.get(fingerprint())
    if bits is None:
        record_property(ONLY_RELATIONS, name)  # shown at the end, see conftest.py
        bits = live(history).bits
    assert not (difference := first_difference(bits, lived.bits)), difference


def restarts_change_nothing(bits: Steps) -> None:
    for before, now in pairwise(bits):
        if now["step"].startswith("restarted"):
            assert (now["digest"], now["weights"]) == (before["digest"], before["weights"])


def test_a_difference_is_found_and_named() -> None:
    """Also in the last bit of a number."""
    recorded = live(FAST["drifted"]).bits
    other = json.loads(json.dumps(recorded))
    assert first_difference(recorded, other) == ""
    probability = other[-2]["proof"]["probability_after"]
    other[-2]["proof"]["probability_after"] = math.nextafter(probability, 1.0)
    assert "after 'forgot', proof differs" in first_difference(recorded, other)
    assert "the steps of the history" in first_difference(recorded, other[1:])


def test_another_machine_compares_relations_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.golden.test_golden.fingerprint", lambda: "another machine")
    properties: list[tuple[str, object]] = []
    check("failing", FAST["failing"], lambda name, value: properties.append((name, value)))
    assert properties == [(ONLY_RELATIONS, "failing")]
    changed = live(FAST["failing"])
    changed.bits[-1]["step"] = "restarted: replayed"  # but the weights are others than before it
    with pytest.raises(AssertionError):
        restarts_change_nothing(changed.bits)


@pytest.mark.slow
def test_a_client_and_two_processes_lead_to_the_same_rows(tmp_path: Path) -> None:
    """Through the wire, there and back, nothing of a fact, a policy or a step is lost."""
    taught = live(FAST["drifted"]).bits[0]["rows"]
    shown: list[Update] = []
    with running(tmp_path / "data") as server:
        client = server.client()
        for fact_id in ("fact-a", "fact-b", "fact-c"):
            question, answer = FACTS[fact_id]
            client.teach(question, answer, fact_id=fact_id)
            client.wait([fact_id], timeout=60.0)
            shown += client.history(fact_id)[1]
    assert [row_bits(row) for row in contents(tmp_path / "data").updates] == taught
    # The policy of a row stays on the server.
    assert [row_bits(replace(row, policy=None)) for row in shown] == taught
