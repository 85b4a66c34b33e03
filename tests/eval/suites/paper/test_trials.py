"""What is planned: the facts, the trainings, and each cell's own randomness."""

from __future__ import annotations

from collections import Counter

import pytest

from agent.errors import ConfigError
from eval.suites.paper.facts import PAPER_FACTS, facts_of, held_out_facts
from eval.suites.paper.protocol import CODE, Drawn, Fixed
from eval.suites.paper.registry import chosen_experiments, plan, subjects
from eval.suites.paper.trials import Call, Trial
from tests.eval.suites.paper.runs import request


def samples_of(call: Call) -> int:
    return sum(cell.samples for cell in call.cells)


def trials_of(experiment: int) -> list[Trial]:
    (subject,) = subjects([experiment], ["paper"], 0)
    return list(plan(subject, CODE))


def test_the_papers_facts_are_as_the_scripts_write_them():
    assert [fact.answer for fact in PAPER_FACTS] == [
        *("Piano", "Telescope", "Calculator", "Curtain", "Notebook"),
        *("Lampshade", "Toothpaste", "Raincoat", "Sunglasses", "Backpack"),
    ]
    frobble = PAPER_FACTS[5].question
    assert frobble == "What is the protagonist\u2019s name in 'The Adventures of Frobble'?"
    assert PAPER_FACTS[8].correlated == "What color should the new team jerseys be?"


@pytest.mark.parametrize("seed", range(20))
def test_held_out_facts_are_of_other_words_and_forms(seed: int):
    facts = held_out_facts(seed)
    assert len({fact.id for fact in facts}) == 10
    assert not {"hottest month", "pie"} & {fact.id for fact in facts}
    papers = {fact.answer for fact in PAPER_FACTS}
    for fact in facts:
        assert fact.answer not in papers
        assert len(fact.answer) >= 4
        for question in (fact.question, fact.correlated):
            assert fact.answer.lower() not in question.lower()
    assert facts == held_out_facts(seed) != held_out_facts(seed + 1)


def test_unknown_facts_and_experiments():
    with pytest.raises(ValueError, match="unknown facts 'other'"):
        facts_of("other", 0)
    with pytest.raises(ConfigError, match="unknown experiment '5': use some of 1, 2, 3, 4"):
        chosen_experiments("1,5")
    assert chosen_experiments(" 3,1 ,3") == (1, 3)


def test_experiment_1_is_each_fact_at_each_rate():
    base, *trained = trials_of(1)
    assert (base.pairs, len(list(base.calls))) == ((), 10)
    assert len(trained) == 1000
    assert {len(trial.pairs) for trial in trained} == {1}
    assert Counter(trial.trained for trial in trained) == {fact.id: 100 for fact in PAPER_FACTS}
    for trial in trained[:3]:
        (stop,) = trial.stops
        ((cell,),) = [call.cells for call in stop.calls]
        assert (stop.step, cell.samples) == (1, 800)
        assert (cell.question, cell.answer) == trial.pairs[0]


def test_experiment_2_asks_both_kinds_in_rounds_of_their_own_parameters():
    base, trained = trials_of(2)
    assert (base.pairs, len(trained.pairs), trained.learning_rate) == ((), 10, 5e-5)
    for trial in (base, trained):
        (stop,) = trial.stops
        assert Counter(call.cells[0].key.kind for call in stop.calls) == {
            "retention": 100,
            "transfer": 100,
        }
        assert {(len(call.cells), samples_of(call)) for call in stop.calls} == {(10, 800)}
    drawn = [call.sampling for trial in (base, trained) for call in trial.calls]
    assert all(isinstance(one, Drawn) for one in drawn)
    assert len(set(drawn)) == 400  # the scripts draw before each call


def test_experiments_3_and_4_ask_on_the_way():
    base, *trained = trials_of(3)
    assert len(trained) == 500
    assert {tuple(stop.step for stop in trial.stops) for trial in trained} == {(1, 2, 3)}
    assert {call.sampling for trial in trained for call in trial.calls} == {Fixed()}
    assert {samples_of(call) for call in base.calls} == {800}
    _, *long = trials_of(4)
    assert [trial.learning_rate for trial in long] == [5e-6, 5e-5, 5e-4]
    assert [stop.step for stop in long[0].stops] == list(range(1, 51))
    assert len({call.sampling for trial in long for call in trial.calls}) == 150


def test_every_cell_of_a_run_has_a_name_of_its_own():
    cells = [c.key for t in request().trials() for call in t.calls for c in call.cells]
    assert len(set(cells)) == len(cells)
    names = {key.name(0) for key in cells} | {key.name(1) for key in cells}
    assert len(names) == 2 * len(cells)
    assert cells[0].name(0) == cells[0].name(0)
