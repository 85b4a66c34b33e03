"""Every rule that a fact must meet before it is stored."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers

from agent.errors import InvalidFactError
from agent.models.token_budget import MAX_FACT_TOKENS
from agent.teaching import prompts, rates
from agent.wire.rules import check_rules
from agent.wire.validation import FactRules
from continual.v1 import memory_pb2 as pb
from memory_store.requests import payload_hash
from memory_store.vocabulary import NewFact, Policy
from tests.server.serving import MAX_TOKENS, byte_tokenizer

# As memory.proto has them.
MAX_QUESTION_CHARACTERS, MAX_ANSWER_CHARACTERS, MAX_CORRELATED_QUESTIONS = 4000, 1000, 32
WIDE = FactRules(byte_tokenizer(), 100_000)
NARROW = FactRules(byte_tokenizer(), MAX_TOKENS)


def request(**changed: Any) -> pb.TeachRequest:
    fields: dict[str, Any] = {"question": "Who wrote Emma?", "answer": "Jane Austen"}
    return pb.TeachRequest(**fields | changed)


def fixed(learning_rate: float, steps: int = 1) -> pb.LearningRatePolicy:
    policy = pb.LearningRatePolicy.Fixed(learning_rate=learning_rate, steps=steps)
    return pb.LearningRatePolicy(fixed=policy)


def until_known(learning_rate: float, max_steps: int) -> pb.LearningRatePolicy:
    policy = pb.LearningRatePolicy.UntilKnown(learning_rate=learning_rate, max_steps=max_steps)
    return pb.LearningRatePolicy(until_known=policy)


def search(learning_rate: float, max_steps: int) -> pb.LearningRatePolicy:
    policy = pb.LearningRatePolicy.Search(largest_learning_rate=learning_rate, max_steps=max_steps)
    return pb.LearningRatePolicy(search=policy)


def paper(learning_rate: float, steps: int = 1) -> pb.LearningRatePolicy:
    policy = pb.LearningRatePolicy.Paper(learning_rate=learning_rate, steps=steps)
    return pb.LearningRatePolicy(paper=policy)


def new_fact(request: pb.TeachRequest, rules: FactRules = WIDE) -> NewFact:
    """As the server makes it of a request."""
    check_rules(request)
    return rules.new_fact(request)


def refusal(refused: pb.TeachRequest, rules: FactRules = WIDE) -> InvalidFactError:
    with pytest.raises(InvalidFactError) as caught:
        new_fact(refused, rules)
    assert str(caught.value).startswith(f"{caught.value.field}: ")
    return caught.value


BAD = {
    "empty question": ({"question": ""}, "question"),
    "blank question": ({"question": " \n\t"}, "question"),
    "overlong question": ({"question": "x" * (MAX_QUESTION_CHARACTERS + 1)}, "question"),
    "empty answer": ({"answer": ""}, "answer"),
    "blank answer": ({"answer": "   "}, "answer"),
    "overlong answer": ({"answer": "x" * (MAX_ANSWER_CHARACTERS + 1)}, "answer"),
    "two lines": ({"answer": "Jane\nAusten"}, "answer"),
    "carriage return": ({"answer": "Jane\rAusten"}, "answer"),
    "tab": ({"answer": "Jane\tAusten"}, "answer"),
    "zero byte": ({"answer": "Jane\0Austen"}, "answer"),
    "escape": ({"answer": "\x1b[31mJane"}, "answer"),
    "C1 control": ({"answer": "Jane\x85Austen"}, "answer"),
    "empty correlated question": (
        {"correlated_questions": ["Whose is Emma?", " "]},
        "correlated_questions[1]",
    ),
    "overlong correlated question": (
        {"correlated_questions": ["x" * (MAX_QUESTION_CHARACTERS + 1)]},
        "correlated_questions[0]",
    ),
    "too many correlated questions": (
        {"correlated_questions": ["Whose?"] * (MAX_CORRELATED_QUESTIONS + 1)},
        "correlated_questions",
    ),
    "overlong request id": ({"request_id": "r" * 129}, "request_id"),
    "short fact id": ({"fact_id": "abc"}, "fact_id"),
    "long fact id": ({"fact_id": "a" * 64}, "fact_id"),
    "fact id with a digit first": ({"fact_id": "1emma"}, "fact_id"),
    "fact id in capitals": ({"fact_id": "Emma"}, "fact_id"),
    "fact id with a line end": ({"fact_id": "emma\n"}, "fact_id"),
    "fact id that is a path": ({"fact_id": "../emma"}, "fact_id"),
    "no policy in the policy": (
        {"learning_rate_policy": pb.LearningRatePolicy()},
        "learning_rate_policy",
    ),
    "rate of zero": (
        {"learning_rate_policy": fixed(0)},
        "learning_rate_policy.fixed.learning_rate",
    ),
    "too many steps": (
        {"learning_rate_policy": fixed(1e-4, 1001)},
        "learning_rate_policy.fixed.steps",
    ),
    "too many steps until known": (
        {"learning_rate_policy": until_known(1e-4, 1001)},
        "learning_rate_policy.until_known.max_steps",
    ),
    "too many steps of a search": (
        {"learning_rate_policy": search(1e-4, 1001)},
        "learning_rate_policy.search.max_steps",
    ),
    "rate of zero in the paper's way": (
        {"learning_rate_policy": paper(0)},
        "learning_rate_policy.paper.learning_rate",
    ),
    "too many steps in the paper's way": (
        {"learning_rate_policy": paper(1e-4, 1001)},
        "learning_rate_policy.paper.steps",
    ),
}


@pytest.mark.parametrize(("changed", "field"), BAD.values(), ids=BAD)
def test_a_bad_fact_is_refused_by_the_name_of_its_field(changed, field: str) -> None:
    assert refusal(request(**changed)).field == field


@pytest.mark.parametrize("rate", [9.9e-9, 0.1000001, -1e-4, math.nan, math.inf, -math.inf])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    for policy, field in (
        (fixed(rate), "fixed.learning_rate"),
        (paper(rate), "paper.learning_rate"),
        (until_known(rate, 5), "until_known.learning_rate"),
        (search(rate, 5), "search.largest_learning_rate"),
    ):
        error = refusal(request(learning_rate_policy=policy))
        assert error.field == f"learning_rate_policy.{field}"
        assert "than or equal to 0.00000001 and less than or equal to 0.1" in str(error)


def test_the_limits_themselves_are_accepted() -> None:
    longest = "x" * 128
    for rate, steps in ((1e-8, 1), (1e-1, 1000)):
        new_fact(request(learning_rate_policy=fixed(rate, steps), request_id=longest))
    new_fact(request(correlated_questions=["Whose?"] * MAX_CORRELATED_QUESTIONS))
    new_fact(request(fact_id="a" * 63))
    new_fact(request(fact_id="a-12"))


def test_an_unknown_policy_names_the_known_ones() -> None:
    # Field 9 of the oneof is from a newer release: kept, but not understood.
    policy = pb.LearningRatePolicy.FromString(b"\x4a\x00")
    message = str(refusal(request(learning_rate_policy=policy)))
    assert "unknown policy" in message
    assert "fixed, until_known, search, paper" in message


def test_a_valid_fact_is_taken_over_word_for_word() -> None:
    new = new_fact(
        request(
            question=" Who wrote\nÉmma? ",
            answer="Jane  Austen\n",
            correlated_questions=["Whose is Emma?"],
            learning_rate_policy=until_known(1e-3, 7),
            request_id="r1",
            fact_id="emma",
        )
    )
    assert (new.question, new.answer) == (" Who wrote\nÉmma? ", "Jane  Austen\n")
    assert new.correlated_questions == ("Whose is Emma?",)
    assert new.policy == Policy(name="until-known", learning_rate=1e-3, max_steps=7)
    assert (new.request_id, new.fact_id) == ("r1", "emma")


def test_what_is_not_set_is_none() -> None:
    new = new_fact(request())
    assert (new.policy, new.request_id, new.fact_id) == (None, None, None)


STRIPPING = {
    "the whole text": normalizers.Replace(Regex(r"[\s\u200b]+"), ""),
    # As sentencepiece models do: the space before the answer stays.
    "all but the space": normalizers.Replace("\u200b", ""),
}


@pytest.mark.parametrize("normalizer", STRIPPING.values(), ids=STRIPPING)
def test_an_answer_that_the_tokenizer_turns_into_nothing_is_refused(normalizer: Any) -> None:
    rules = FactRules(byte_tokenizer(normalizer), 100_000)
    error = refusal(request(answer="\u200b\u200b"), rules)
    assert error.field == "answer"
    assert "tokenizer turns it into nothing" in str(error)
    rules.new_fact(request(answer="Jane\u200b"))


def _question_of(tokens: int, answer: str) -> str:
    """A question that makes exactly so many tokens with prompt, answer and terminator."""
    return "x" * (tokens - len(prompts.prompt("")) - len(prompts.answer_text(answer)) - 1)


def test_a_fact_longer_than_the_context_is_refused() -> None:
    NARROW.new_fact(request(question=_question_of(MAX_TOKENS, "ab"), answer="ab"))
    long = _question_of(MAX_TOKENS + 1, "ab")
    error = refusal(request(question=long, answer="ab"), NARROW)
    assert error.field == "question"
    assert f"{MAX_TOKENS + 1} tokens" in str(error)
    error = refusal(request(answer="ab", correlated_questions=["x", long]), NARROW)
    assert error.field == "correlated_questions[1]"


def test_a_large_context_is_not_used_up() -> None:
    error = refusal(request(question=_question_of(MAX_FACT_TOKENS + 1, "ab"), answer="ab"))
    assert str(MAX_FACT_TOKENS) in str(error)


def test_text_that_looks_like_a_special_token_counts_as_plain_text() -> None:
    special = "<|endoftext|>"
    assert len(Tokenizer.from_str(byte_tokenizer()).encode(special).ids) == 1
    # As one token each it would fit easily.
    question = special * (MAX_TOKENS // len(special))
    assert refusal(request(question=question), NARROW).field == "question"


def test_what_a_request_says_does_not_hang_on_the_settings_of_the_server() -> None:
    # The client leaves the rate to the server, which is restarted with another.
    asked = request(request_id="r")
    asked.learning_rate_policy.search.max_steps = 7
    first, then = (
        FactRules(
            byte_tokenizer(), MAX_TOKENS, replace(rates.DEFAULT_POLICY, learning_rate=rate)
        ).new_fact(asked)
        for rate in (1e-4, 2e-4)
    )
    assert first.policy != then.policy
    assert payload_hash(first) == payload_hash(then)
    assert payload_hash(first) != payload_hash(replace(then, answer="Tuba"))
