"""What a client may hand in: every rule that a fact must meet before it is stored.

Nothing is stored that the learner could not learn: the tokenizer runs here too, on the
`tokenizers` library alone, so that teaching works while the learner is being restarted.
"""

from __future__ import annotations

import re
import unicodedata

from tokenizers import Tokenizer

from agent.errors import InvalidFactError
from agent.learning import prompts, rates
from agent.service import codec
from continual.v1 import memory_pb2 as pb
from memory_store.records import NewFact, Policy

MAX_QUESTION_CHARACTERS = 4000
MAX_ANSWER_CHARACTERS = 1000
MAX_CORRELATED_QUESTIONS = 32
MAX_REQUEST_ID_CHARACTERS = 128
# Prompt, answer and terminator. Far below a model's context: memory grows with it.
MAX_FACT_TOKENS = 512
FACT_ID = re.compile(r"[a-z][a-z0-9-]{3,62}")


class FactRules:
    """Checks facts for one model.

    Args:
        tokenizer: the text of its `tokenizer.json`.
        max_tokens: its context.
        policy: what a fact's own policy is completed with.
    """

    def __init__(
        self, tokenizer: str, max_tokens: int, policy: Policy = rates.DEFAULT_POLICY
    ) -> None:
        self._default = policy
        self._tokenizer = Tokenizer.from_str(tokenizer)
        # As in `encoding.Encoder`: text from outside never becomes a control token.
        self._tokenizer.encode_special_tokens = True
        self._max_tokens = min(max_tokens, MAX_FACT_TOKENS)
        # What is left of an answer whose characters the tokenizer drops.
        self._prefix = self._tokenizer.encode(prompts.ANSWER_PREFIX, add_special_tokens=False).ids

    def new_fact(self, request: pb.TeachRequest) -> NewFact:
        """A valid fact from a request.

        Raises:
            InvalidFactError: names the field and what is wrong with it.
        """
        check_text("question", request.question, MAX_QUESTION_CHARACTERS)
        check_answer("answer", request.answer)
        self._check_tokens("question", request.question, request.answer)
        if len(request.correlated_questions) > MAX_CORRELATED_QUESTIONS:
            raise InvalidFactError(
                "correlated_questions",
                f"{len(request.correlated_questions)} are too many: at most"
                f" {MAX_CORRELATED_QUESTIONS}",
            )
        for index, question in enumerate(request.correlated_questions):
            field = f"correlated_questions[{index}]"
            check_text(field, question, MAX_QUESTION_CHARACTERS)
            self._check_tokens(field, question, request.answer)
        if len(request.request_id) > MAX_REQUEST_ID_CHARACTERS:
            raise InvalidFactError(
                "request_id", f"must have at most {MAX_REQUEST_ID_CHARACTERS} characters"
            )
        if request.fact_id and not FACT_ID.fullmatch(request.fact_id):
            raise InvalidFactError(
                "fact_id", "must be 4 to 63 of a-z, 0-9 and '-', beginning with a letter"
            )
        return NewFact(
            question=request.question,
            answer=request.answer,
            correlated_questions=tuple(request.correlated_questions),
            policy=_policy(request, self._default),
            request_id=request.request_id or None,
            fact_id=request.fact_id or None,
        )

    def _check_tokens(self, field: str, question: str, answer: str) -> None:
        asked = self._tokenizer.encode(prompts.prompt(question), add_special_tokens=False)
        answered = self._tokenizer.encode(prompts.answer_text(answer), add_special_tokens=False)
        if answered.ids in ([], self._prefix):
            raise InvalidFactError(
                "answer", "the model's tokenizer turns it into nothing: use other characters"
            )
        total = len(asked.ids) + len(answered.ids) + 1
        if total > self._max_tokens:
            raise InvalidFactError(
                field,
                f"with its answer it has {total} tokens, but this model learns at most"
                f" {self._max_tokens}: shorten it or split the fact",
            )


def check_question(question: str) -> None:
    """For asking: the length alone.

    Raises:
        InvalidFactError: it is empty or too long.
    """
    check_text("question", question, MAX_QUESTION_CHARACTERS)


def check_answer(field: str, answer: str) -> None:
    """An answer is one line, since the end of the line ends an answer that is generated.

    Raises:
        InvalidFactError: it is empty, too long, or has control characters.
    """
    check_text(field, answer, MAX_ANSWER_CHARACTERS)
    if any(unicodedata.category(character) == "Cc" for character in answer.strip()):
        raise InvalidFactError(field, "must be one line without tabs or other control characters")


def check_text(field: str, text: str, limit: int) -> None:
    """Neither empty nor longer than `limit` characters.

    Raises:
        InvalidFactError: it is.
    """
    if not text.strip():
        raise InvalidFactError(field, "must not be empty")
    if len(text) > limit:
        raise InvalidFactError(field, f"has {len(text)} characters: at most {limit}")


def check_policy(field: str, policy: Policy) -> None:
    """Rate and steps are within their ranges.

    Raises:
        InvalidFactError: one is not.
    """
    # Written so that NaN fails too.
    if not rates.MIN_LEARNING_RATE <= policy.learning_rate <= rates.MAX_LEARNING_RATE:
        raise InvalidFactError(
            f"{field}.{'largest_' if policy.name in rates.COMPARING else ''}learning_rate",
            f"{policy.learning_rate:g} is out of range:"
            f" {rates.MIN_LEARNING_RATE:g} to {rates.MAX_LEARNING_RATE:g}",
        )
    if not 1 <= policy.max_steps <= rates.MAX_STEPS:
        raise InvalidFactError(
            f"{field}.{'steps' if policy.name in (rates.FIXED, rates.PAPER) else 'max_steps'}",
            f"{policy.max_steps} is out of range: 1 to {rates.MAX_STEPS}",
        )


def _policy(request: pb.TeachRequest, default: Policy) -> Policy | None:
    if not request.HasField("learning_rate_policy"):
        return None
    if request.learning_rate_policy.WhichOneof("policy") is None:
        raise InvalidFactError(
            "learning_rate_policy",
            "unknown policy: set one of fixed, until_known, search, paper, predicted",
        )
    policy = codec.decode_policy(request.learning_rate_policy, default)
    check_policy(f"learning_rate_policy.{policy.name.replace('-', '_')}", policy)
    return policy
