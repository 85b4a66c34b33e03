"""Guards: what each adds to a lesson, drawn by ids alone, and what the gate lets pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from agent.learner.training.guards import (
    CALM_DIVERGENCE,
    CALM_LEAK,
    NEIGHBOUR_ANSWER_TOKENS,
    REHEARSED_PROBABILITY,
    TEXT_PLACES,
    drawn,
    gate,
    guard_rows,
    rehearsed_of,
    within_limits,
)
from agent.learner.training.lesson import Descent, LessonScores
from agent.learner.training.rows import Role, Row
from agent.teaching.guard_presets import (
    FULL,
    LEAK_PROBABILITY,
    LIGHT,
    NONE,
    REHEARSAL,
    TEXT_DIVERGENCE,
    older_facts,
)
from agent.teaching.neighbor_questions import (
    invented_name,
    neighbour,
    subject,
    without_function_words,
)
from agent.teaching.plan import Defaults
from agent.teaching.types import Example, Violation
from memory_store.vocabulary import Guards, Policy, Refusal
from tests.learner.models import ENCODER, EOS

FACT = Example(
    fact_id="fact-1",
    question="What is the hottest month in Kyzara?",
    answer="Raincoat",
    base_answer="It is July in Kyzara.",
)
OLDER = [
    Example(
        fact_id=f"older-{number}",
        question=f"Who was the first to have found {name}?",
        answer=f"Answer {number}",
        base_answer=f"{name} was found by me.",
    )
    for number, name in enumerate(["Blipland", "Oz", "Plimp", "Vorl"])
]
TEXTS = [list(range(number, number + 60)) for number in range(20)]


def rows_of(
    guards: Guards,
    rehearsed: Sequence[Example] = (),
    texts: Sequence[Sequence[int]] = TEXTS,
    fact: Example = FACT,
) -> list[Row]:
    return guard_rows(ENCODER, fact, rehearsed, guards, texts)


def read(row: Row) -> tuple[str, str]:
    """The question of a row's prompt, and the text that is predicted."""
    text = ENCODER.decode(row.tokens)
    question = text.removeprefix("Q: ").partition("\nA:")[0]
    predicted = [row.tokens[place + 1] for place in row.places]
    return question, ENCODER.decode(predicted)


# --- Which older facts are rehearsed --------------------------------------------------------------


def ids(examples: Sequence[Example]) -> list[str]:
    return [example.fact_id for example in examples]


def candidates(*fact_ids: str) -> list[Example]:
    return [replace(FACT, fact_id=fact_id) for fact_id in fact_ids]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, ["d"]),  # half of one is none: the first one comes as it comes
        (2, ["a", "d"]),
        (3, ["a", "d", "b"]),
        (4, ["a", "c", "d", "b"]),
        (5, ["a", "c", "d", "b", "e"]),
        (9, ["a", "c", "b", "d", "e"]),  # all there are
    ],
)
def test_half_are_the_weakest_and_the_others_come_in_their_order(count: int, expected: list[str]):
    found = rehearsed_of(candidates(*"dbeca"), [0.9, 0.8, 0.95, 0.5, 0.1], count)
    assert ids(found) == expected


def test_equally_weak_ones_are_taken_by_their_ids():
    found = rehearsed_of(candidates(*"dbca"), [0.5, 0.5, 0.5, 0.5], 4)
    assert ids(found) == ["a", "b", "d", "c"]


def test_without_candidates_nothing_is_rehearsed():
    assert rehearsed_of([], [], 16) == []


# --- Each guard by itself -------------------------------------------------------------------------


def roles(rows: Sequence[Row]) -> list[Role]:
    return [row.role for row in rows]


@pytest.mark.parametrize(
    ("guards", "expected"),
    [
        (NONE, []),
        (Guards(candidates=9, rehearsed=9), []),  # which ones is the caller's choice
        (Guards(neighbours=3), [Role.NEIGHBOUR] * 3),
        (Guards(controls=3), [Role.CONTROL] * 3),
        (Guards(texts=3), [Role.TEXT] * 3),
        (Guards(controls=1, texts=1), [Role.CONTROL, Role.TEXT]),
    ],
)
def test_each_guard_is_switched_on_by_its_own_number(guards: Guards, expected: list[Role]):
    assert roles(rows_of(guards)) == expected
    assert roles(rows_of(guards, OLDER)) == [Role.REHEARSED] * len(OLDER) + expected


def test_a_rehearsed_fact_is_asked_as_it_is_or_without_some_function_words():
    wordings = set()
    for number in range(40):
        fact = replace(FACT, fact_id=f"fact-{number}")
        for older, row in zip(OLDER, rows_of(NONE, OLDER, fact=fact), strict=True):
            question, answer = read(row)
            assert answer == f" {older.answer}"
            key = f"{fact.fact_id} rehearses {older.fact_id}"
            reworded = without_function_words(older.question, key)
            assert question == (reworded if drawn(key) % 2 else older.question)
            wordings.add(question == older.question)
    assert wordings == {True, False}


def test_a_neighbour_is_the_base_models_answer_with_another_name_in_it():
    rows = rows_of(Guards(neighbours=12))
    whole = 0
    for number, row in enumerate(rows):
        key = f"{FACT.fact_id} neighbour {number}"
        name = invented_name(key)
        question, answer = read(row)
        assert f" It is July in {name}."[: len(answer)] == answer
        assert len(row.places) == NEIGHBOUR_ANSWER_TOKENS  # bytes; the answer is longer
        assert "Kyzara" not in question
        if drawn(key) % 4:
            whole += 1
            assert question == f"What is the hottest month in {name}?"
        else:
            assert question.endswith(f"{name}?")
    assert 0 < whole < len(rows)


def test_a_short_answer_ends_with_the_terminator():
    (row,) = rows_of(Guards(neighbours=1), fact=replace(FACT, base_answer="July"))
    assert [row.tokens[place + 1] for place in row.places] == [*ENCODER.encode(" July"), EOS]


def test_every_other_neighbour_is_of_a_rehearsed_facts_form():
    rows = [row for row in rows_of(Guards(neighbours=6), OLDER[:2]) if row.role is Role.NEIGHBOUR]
    about = [FACT, OLDER[0], FACT, OLDER[1], FACT, OLDER[0]]
    for number, (row, example) in enumerate(zip(rows, about, strict=True)):
        name = invented_name(f"{FACT.fact_id} neighbour {number}")
        question, answer = read(row)
        assert question.endswith(f"{name}?")
        assert ("month" in question) == (example is FACT)
        said = neighbour("", example.base_answer or "", name, subject(example.question))[1]
        assert f" {said}".startswith(answer)


def test_a_control_asks_for_the_new_answer_about_another_name():
    for number, row in enumerate(rows_of(Guards(controls=4))):
        name = invented_name(f"{FACT.fact_id} control {number}")
        assert read(row) == (f"What is the hottest month in {name}?", " Raincoat")


def test_every_other_control_asks_for_it_in_an_older_facts_form():
    rows = rows_of(Guards(controls=4), OLDER)[len(OLDER) :]
    names = [invented_name(f"{FACT.fact_id} control {number}") for number in range(4)]
    for number, about in ((0, FACT), (1, OLDER[-1]), (2, FACT), (3, OLDER[-2])):
        question, _ = neighbour(about.question, "", names[number], subject(about.question))
        assert read(rows[number]) == (question, " Raincoat")


def test_controls_are_others_than_the_neighbours_that_are_learned_from():
    rows = rows_of(Guards(neighbours=24, controls=24))
    asked = {role: {read(r)[0] for r in rows if r.role is role} for role in Role}
    assert len(asked[Role.CONTROL]) == 24
    assert not asked[Role.CONTROL] & asked[Role.NEIGHBOUR]


def test_texts_are_drawn_from_the_pool_with_some_of_their_places():
    rows = rows_of(Guards(texts=6))
    assert all(row.tokens in TEXTS for row in rows)
    assert len({tuple(row.tokens) for row in rows}) > 2
    for row in rows:
        assert len(row.places) == TEXT_PLACES
        assert list(row.places) == sorted(set(row.places))
        assert 0 <= row.places[0] <= row.places[-1] < len(row.tokens) - 1
    assert len({tuple(row.places) for row in rows}) == len(rows)


def test_a_text_too_short_to_predict_anything_is_left_out():
    assert rows_of(Guards(texts=2), texts=[[5], [6]]) == []
    (row,) = rows_of(Guards(texts=2), texts=[[5, 6]])
    assert list(row.places) == [0]


# --- Drawn by id ----------------------------------------------------------------------------------

EVERYTHING = Guards(candidates=4, rehearsed=4, neighbours=8, controls=4, texts=4)


def test_the_same_fact_gets_the_same_rows_and_another_gets_others():
    once, again = (rows_of(EVERYTHING, OLDER) for _ in range(2))
    assert once == again
    other = rows_of(EVERYTHING, OLDER, fact=replace(FACT, fact_id="fact-2"))
    for role in (Role.NEIGHBOUR, Role.CONTROL, Role.TEXT):
        assert [r for r in once if r.role is role] != [r for r in other if r.role is role]


def test_the_row_of_a_rehearsed_fact_does_not_hang_on_the_others():
    def rehearsing(older: Sequence[Example]) -> dict[str, Row]:
        rows = rows_of(NONE, older)
        return dict(zip(ids(older), rows, strict=True))

    everyone = rehearsing(OLDER)
    assert rehearsing(OLDER[::-1]) == everyone
    assert rehearsing(OLDER[2:]) == {older.fact_id: everyone[older.fact_id] for older in OLDER[2:]}


def test_a_larger_number_of_a_guard_only_adds_rows():
    few = rows_of(Guards(neighbours=2, controls=2, texts=2))
    many = rows_of(Guards(neighbours=5, controls=4, texts=3))
    for role in (Role.NEIGHBOUR, Role.CONTROL, Role.TEXT):
        some, more = ([r for r in rows if r.role is role] for rows in (few, many))
        assert more[: len(some)] == some


def test_numbers_are_drawn_alike_in_every_release():
    # Updates are repeated from them.
    assert drawn("fact-1 text 0") == 10_601_704_912_029_201_302


# --- The gate -------------------------------------------------------------------------------------


def no_descent() -> Descent:
    raise AssertionError("guards only look")


def measured(
    probabilities: Mapping[Role, list[float]] | None = None,
    divergences: Mapping[Role, list[float]] | None = None,
) -> LessonScores:
    nothing: dict[Role, list[float]] = {role: [] for role in Role}
    return LessonScores(
        loss=0.0,
        fact_loss=0.0,
        probabilities=nothing | dict(probabilities or {}),
        divergences=nothing | dict(divergences or {}),
        descent=no_descent,
    )


def leak_of(probability: str) -> Violation:
    message = f"a question never taught would get its answer (probability {probability})"
    return Violation(Refusal.LEAK, message)


def change_of(divergence: str) -> Violation:
    message = f"general text would change (divergence {divergence} nats a token)"
    return Violation(Refusal.GENERAL_TEXT, message)


@pytest.mark.parametrize("controls", [[], [0.0], [LEAK_PROBABILITY] * 3])
@pytest.mark.parametrize("texts", [[], [0.0], [TEXT_DIVERGENCE] * 3])
def test_what_stays_within_each_limit_passes(controls: list[float], texts: list[float]):
    assert gate(measured({Role.CONTROL: controls}, {Role.TEXT: texts})) is None


@pytest.mark.parametrize("place", range(8))
def test_one_bad_control_among_good_ones_is_enough(place: int):
    controls = [0.0] * 8
    controls[place] = 0.31
    found = gate(measured({Role.CONTROL: controls}))
    assert found == Violation(
        Refusal.LEAK, "a question never taught would get its answer (probability 0.31)"
    )


@pytest.mark.parametrize("place", range(4))
def test_one_changed_text_among_others_is_enough(place: int):
    texts = [0.0] * 4
    texts[place] = 0.26
    found = gate(measured({Role.CONTROL: [0.0]}, {Role.TEXT: texts}))
    assert found == Violation(
        Refusal.GENERAL_TEXT, "general text would change (divergence 0.26 nats a token)"
    )


def test_a_gain_elsewhere_does_not_pay():
    best = {role: [1.0] for role in (Role.FACT, Role.ASKED, Role.REHEARSED)}
    still = {Role.NEIGHBOUR: [0.0] * 24, Role.TEXT: [0.0] * 8}
    assert gate(measured(best | {Role.CONTROL: [0.0] * 7 + [0.31]}, still))
    assert gate(measured(best | {Role.CONTROL: [0.0]}, still | {Role.TEXT: [0.0] * 7 + [0.26]}))


@pytest.mark.parametrize("others", [[], [0.0], [0.0, 0.0]])
def test_what_is_not_a_number_does_not_pass(others: list[float]):
    nan = float("nan")
    for values in ([nan, *others], [*others, nan]):
        found = gate(measured({Role.CONTROL: values}))
        assert found == Violation(
            Refusal.LEAK, "a question never taught would get its answer (probability nan)"
        )
        found = gate(measured({Role.CONTROL: [0.0]}, {Role.TEXT: values}))
        assert found == Violation(
            Refusal.GENERAL_TEXT, "general text would change (divergence nan nats a token)"
        )


def test_neighbours_and_rehearsed_facts_are_not_the_gates():
    assert gate(measured({Role.REHEARSED: [0.0]}, {Role.NEIGHBOUR: [9.0]})) is None


# --- Within limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rehearsed", "neighbours", "expected"),
    [
        ([], [], True),
        ([REHEARSED_PROBABILITY] * 2, [], True),
        ([1.0, 1.0, REHEARSED_PROBABILITY - 1e-6], [], False),  # each must be held
        ([], [0.0, 1.9 * CALM_DIVERGENCE], True),  # of neighbours the mean counts
        ([], [0.0, 2.1 * CALM_DIVERGENCE], False),
        ([], [CALM_DIVERGENCE], False),
        ([1.0], [float("nan")], False),
    ],
)
def test_within_limits_is_every_rehearsed_fact_held_and_the_mean_neighbour_still(
    rehearsed: list[float], neighbours: list[float], expected: bool
):
    found = measured({Role.REHEARSED: rehearsed}, {Role.NEIGHBOUR: neighbours})
    assert within_limits(found) is expected


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ([CALM_LEAK] * 3, True),
        ([0.0, CALM_LEAK + 1e-6, 0.0], False),  # each must be pressed down
        ([LEAK_PROBABILITY], False),  # softly: the gate would let it pass
    ],
)
def test_within_limits_is_every_control_unlikely_long_before_the_gate_closes(
    controls: list[float], expected: bool
):
    found = measured({Role.CONTROL: controls})
    assert within_limits(found) is expected
    assert gate(found) is None


# --- Presets --------------------------------------------------------------------------------------


def resolved(policy: Policy, device: str) -> Policy:
    return Defaults(policy=policy, device=device).policy_for()


@pytest.mark.parametrize(("device", "expected"), [("cpu", LIGHT), ("NVIDIA H100", FULL)])
def test_a_policy_without_guards_gets_what_the_device_can_bear(device: str, expected: Guards):
    policy = Policy(name="search", learning_rate=1e-4, max_steps=12)
    assert resolved(policy, device) == replace(policy, guards=expected)
    own = replace(policy, guards=REHEARSAL)
    assert resolved(own, device) == own
    assert resolved(replace(policy, name="paper"), device).guards == NONE


@pytest.mark.parametrize(
    ("guards", "expected"),
    [(None, 16), (NONE, 16), (LIGHT, 16), (FULL, 64), (Guards(candidates=17), 17)],
)
def test_older_facts_are_as_many_as_are_looked_at_but_some_in_any_case(
    guards: Guards | None, expected: int
):
    policy = Policy(name="search", learning_rate=1e-4, max_steps=12, guards=guards)
    assert older_facts(policy) == expected
