"""What a run adds up to: a run whose every answer is written here, and its numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from agent.teaching.types import Answer
from eval.metrics import Count, wilson_interval
from eval.suites.continual.general_texts import GeneralScores
from eval.suites.continual.results import full_json, short_json
from eval.suites.continual.run import History, Measurement, Task
from eval.suites.continual.summary import AgeGroup, Summary, summarize
from eval.teachers.protocol import Taught
from memory_store.vocabulary import Verdict

TASK = replace(Task.of(facts=4, controls=3, seed=0), between=(2,))
ANSWERS = [fact.answer for fact in TASK.facts]
BASE = GeneralScores(
    wikitext_perplexity=20.0,
    wikitext_tokens=100,
    mixed_perplexity=40.0,
    mixed_tokens=50,
    lambada_perplexity=10.0,
    lambada_correct=5,
    lambada_total=10,
)
WORSE = replace(
    BASE,
    wikitext_perplexity=22.0,
    mixed_perplexity=30.0,
    lambada_perplexity=20.0,
    lambada_correct=3,
)


def answers(pattern: str) -> tuple[Answer, ...]:
    """`1` for a right answer, of probability 0.8; `0` for a wrong one, of 0.1."""
    return tuple(
        Answer(
            text=f"said {c}", correct=c == "1", log_probability=math.log(0.8 if c == "1" else 0.1)
        )
        for c in pattern
    )


def measurement(
    taught: int, retention: str, paraphrase: str, transfer: str, controls: list[str]
) -> Measurement:
    return Measurement(
        taught=taught,
        retention=answers(retention),
        paraphrase=answers(paraphrase),
        transfer=answers(transfer),
        controls=tuple(controls),
        general=WORSE if taught == 4 else BASE,
        seconds=1.0,
    )


def history(own_turn: str = "1101") -> History:
    turns = zip(
        TASK.facts,
        answers(own_turn),
        [(1e-4,), (1e-4, 3e-5), (), (1e-4,) * 5],
        ["learned", "learned", "known", "resisted"],
        [1.0, 2.0, 0.5, 4.5],
        strict=True,
    )
    return History(
        sees_all=False,
        taught=tuple(
            Taught(
                fact_id=f.id,
                verdict=Verdict(v),
                learning_rates=r,
                seconds=s,
                answer=a,
                candidates=16 * len(r),
            )
            for f, a, r, v, s in turns
        ),
        measurements=(
            measurement(0, "", "", "", ["x", "y", ANSWERS[0]]),
            measurement(2, "11", "1000", "10", ["x", ANSWERS[2], ANSWERS[0]]),
            measurement(4, "0111", "11000011", "0001", [f"the {ANSWERS[1]}", "Y.", ANSWERS[2]]),
        ),
    )


@pytest.fixture
def summary() -> Summary:
    return summarize("ours", TASK, history())


def test_counts_after_each_checkpoint(summary: Summary):
    base, middle, last = summary.checkpoints
    assert base.recall.total == 0
    assert (middle.recall, last.recall) == (Count(count=2, total=2), Count(count=3, total=4))
    assert (middle.paraphrase, last.paraphrase) == (
        Count(count=1, total=4),
        Count(count=4, total=8),
    )
    assert (middle.transfer, last.transfer) == (Count(count=1, total=2), Count(count=1, total=4))


def test_only_what_was_taught_by_then_can_leak(summary: Summary):
    base, middle, last = summary.checkpoints
    assert [point.leaks.leaked.count for point in (base, middle, last)] == [0, 0, 2]
    assert [point.leaks.leaked_exactly.count for point in (base, middle, last)] == [0, 0, 1]
    # "Y." is "y": case and outer punctuation do not count.
    assert [point.leaks.changed.count for point in (base, middle, last)] == [0, 1, 2]
    assert last.leaks.leaked.total == 3


def test_backward_transfer_compares_the_last_row_with_the_diagonal(summary: Summary):
    # Own turn 1101, in the end 0111: the first was lost, the third gained; the last has no after.
    assert (summary.lost, summary.gained) == (Count(count=1, total=3), Count(count=1, total=3))
    assert summary.backward_transfer == 0
    assert summary.accuracy == Count(count=3, total=4)
    assert summarize("x", TASK, history("1111")).backward_transfer == pytest.approx(-1 / 3)
    assert summarize("x", TASK, history("0000")).backward_transfer == pytest.approx(2 / 3)


def test_who_sees_all_facts_at_once_has_no_backward_transfer():
    seen = replace(history(), sees_all=True)
    assert summarize("x", TASK, seen).backward_transfer is None


def test_each_fact_is_in_one_group_of_ages(summary: Summary):
    assert summary.ages == (
        AgeGroup(youngest=0, oldest=0, recall=Count(count=1, total=1)),
        AgeGroup(youngest=1, oldest=3, recall=Count(count=2, total=3)),
    )


def test_general_damage_is_against_the_base_model(summary: Summary):
    change = summary.last.change
    assert change is not None
    assert change.wikitext == pytest.approx(0.1)
    assert change.mixed == pytest.approx(-0.25)
    assert change.lambada == pytest.approx(1.0)
    assert change.lambada_accuracy == pytest.approx(-0.2)


def test_steps_seconds_rates_and_verdicts(summary: Summary):
    assert (summary.steps.mean, summary.steps.median) == (2, 1.5)
    assert (summary.seconds.mean, summary.seconds.median) == (2, 1.5)
    assert (summary.candidates.mean, summary.candidates.median) == (32, 24)
    assert summary.rate_counts == {3e-5: 1, 1e-4: 7}
    assert (summary.rates.min, summary.rates.median, summary.rates.max) == (
        *(3e-5, 1e-4),
        1e-4,
    )
    assert summary.verdicts == {"known": 1, "learned": 2, "resisted": 1}


def test_the_short_json_has_its_stable_fields(summary: Summary):
    other = summarize("paper", TASK, history("1111"))
    written = json.loads(json.dumps(short_json({"seed": 0}, [summary, other]), allow_nan=False))
    assert {name: written[name] for name in list(written)[4:18]} == {
        "recall": 0.75,
        "paraphrase": 0.5,
        "transfer": 0.25,
        "leak": pytest.approx(2 / 3),
        "leak_exact": pytest.approx(1 / 3),
        "control_changed": pytest.approx(2 / 3),
        "ppl_change": pytest.approx(0.1),
        "wikitext_ppl_change": pytest.approx(0.1),
        "mixed_ppl_change": pytest.approx(-0.25),
        "lambada_ppl_change": pytest.approx(1.0),
        "lambada_accuracy_change": pytest.approx(-0.2),
        "acc": 0.75,
        "bwt": 0.0,
        "steps_per_fact": 2.0,
    }
    assert written["seconds_per_fact"] == 2.0
    assert written["candidates_per_fact"] == 32.0
    assert written["candidates"] == {"mean": 32.0, "median": 24.0, "min": 0, "max": 80}
    assert (written["suite"], written["teacher"]) == ("continual", "ours")
    assert written["counts"]["leak"] == {
        "count": 2,
        "total": 3,
        "rate": pytest.approx(2 / 3),
        "interval_95": list(wilson_interval(2, 3)),
    }
    assert written["teachers"]["paper"]["bwt"] == pytest.approx(-1 / 3)


def test_the_full_json_has_the_matrix_and_every_answer(summary: Summary):
    full = full_json({"seed": 0}, {"commit": None}, TASK, [summary])
    written = json.loads(json.dumps(full, allow_nan=False))["teachers"]["ours"]
    assert written["matrix_R"]["taught"] == [2, 4]
    assert written["matrix_R"]["correct"] == [[1, 1], [0, 1, 1, 1]]
    assert written["matrix_R"]["probability"][1] == pytest.approx([0.1, 0.8, 0.8, 0.8])
    assert written["matrix_R"]["own_turn"] == [1, 1, 0, 1]
    first = written["facts"][0]
    assert (first["own_turn"], first["final"], first["final_correct"]) == (
        "said 1",
        "said 0",
        False,
    )
    assert [p["correct"] for p in first["paraphrases"]] == [True, True]
    assert written["controls"][2]["base"] == ANSWERS[0]


def test_a_broken_model_is_null_in_json():
    broken = replace(WORSE, wikitext_perplexity=math.inf, mixed_perplexity=math.nan)
    last = replace(history().measurements[-1], general=broken)
    run = replace(history(), measurements=(*history().measurements[:-1], last))
    full = full_json({}, {}, TASK, [summarize("ours", TASK, run)])
    written = json.loads(json.dumps(full, allow_nan=False))["teachers"]["ours"]
    assert written["ppl_change"] is None
    assert written["mixed_ppl_change"] is None
    assert written["lambada_ppl_change"] == pytest.approx(1.0)


def test_one_fact_without_general_texts_is_a_result_too():
    task = Task.of(facts=1, controls=0, seed=0)
    first = replace(history().measurements[0], controls=(), general=None)
    last = replace(first, taught=1, retention=answers("1"), paraphrase=answers("10"))
    run = History(
        sees_all=False,
        taught=history().taught[:1],
        measurements=(first, replace(last, transfer=answers("0"))),
    )
    written = json.loads(
        json.dumps(full_json({}, {}, task, [summarize("ours", task, run)]), allow_nan=False)
    )["teachers"]["ours"]
    assert (written["recall"], written["leak"], written["bwt"]) == (1.0, None, None)
    assert written["ppl_change"] is None
