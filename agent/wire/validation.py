"""Validates facts beyond the rules in memory.proto: token counts, and the operator's limits.

The server counts tokens itself, with the `tokenizers` library. So a fact that is too long is
refused at once, without waiting for the learner.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any

from tokenizers import Tokenizer

from agent.models.token_budget import MAX_FACT_TOKENS, TokenBudget
from agent.teaching import prompts, rates
from agent.teaching.limits import UNLIMITED, TeachingLimits
from agent.wire import codec
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import NewFact, Policy

# Bytes that the prompt adds to a question and its answer.
BYTES_AROUND = len(prompts.prompt("") + prompts.answer_text(""))
# The factor by which NFC normalization may lengthen a text, in bytes.
NFC_EXPANSION = 3


class FactRules:
    """Validates facts for one model.

    Args:
        tokenizer: the content of its `tokenizer.json`; None to count no tokens.
        max_tokens: the length of its context, in tokens.
        policy: the default values for the policy of a fact.
        limits: the policies, rates and steps that a fact may ask for.
    """

    def __init__(
        self,
        tokenizer: str | None,
        max_tokens: int = MAX_FACT_TOKENS,
        policy: Policy = rates.DEFAULT_POLICY,
        limits: TeachingLimits = UNLIMITED,
    ) -> None:
        self._default = policy
        self._limits = limits
        self._room: TokenBudget | None = None
        self._tokens_per_byte: int | None = None
        if tokenizer is not None:
            self._room = _room(tokenizer, max_tokens)
            self._tokens_per_byte = _tokens_per_byte(json.loads(tokenizer))

    def new_fact(self, request: pb.TeachRequest) -> NewFact:
        """Makes a valid fact of a request that has passed `check_rules`.

        Raises:
            InvalidFactError: a field is invalid; the error names it and the problem.
        """
        work = self.checking(request)
        while True:
            try:
                next(work)
            except StopIteration as end:
                new: NewFact = end.value
                return new

    def is_quick(self, request: pb.TeachRequest) -> bool:
        """Whether its length in bytes shows that it fits, so that nothing need be tokenized."""
        answer = request.answer
        return self._room is None or (
            self._is_short(request.question, answer)
            and all(self._is_short(question, answer) for question in request.correlated_questions)
        )

    def checking(self, request: pb.TeachRequest) -> Generator[None, None, NewFact]:
        """Does the work of `new_fact`, but yields before each text."""
        asked, policy = self._policies(request)
        self._check_tokens("question", request.question, request.answer)
        for index, question in enumerate(request.correlated_questions):
            yield
            self._check_tokens(f"correlated_questions[{index}]", question, request.answer)
        return NewFact(
            question=request.question,
            answer=request.answer,
            correlated_questions=tuple(request.correlated_questions),
            policy=policy,
            asked_policy=asked,
            request_id=request.request_id or None,
            fact_id=request.fact_id or None,
        )

    def _policies(self, request: pb.TeachRequest) -> tuple[Policy | None, Policy | None]:
        """Returns the policy of a request as sent and with defaults filled in; None without one.

        Raises:
            InvalidFactError: the operator does not allow the policy.
        """
        if not request.HasField("learning_rate_policy"):
            return None, None
        asked = codec.decode_policy(request.learning_rate_policy, LEFT_TO_THE_SERVER)
        completed = codec.decode_policy(request.learning_rate_policy, self._default)
        completed = self._limits.complete(asked, completed)
        self._limits.check(completed)
        return asked, completed

    def _check_tokens(self, field: str, question: str, answer: str) -> None:
        if self._room is None:
            return  # the learner checks it before learning it
        if not self._is_short(question, answer):
            self._room.require(question, answer, field)

    def _is_short(self, question: str, answer: str) -> bool:
        """Whether the text fits however it is tokenized. True of most facts."""
        if self._tokens_per_byte is None or self._room is None:
            return False
        size = len(question.encode()) + len(answer.encode()) + BYTES_AROUND
        return self._tokens_per_byte * size < self._room.max_tokens


def _room(tokenizer: str, max_tokens: int) -> TokenBudget:
    parsed = Tokenizer.from_str(tokenizer)
    # As in `encoding.Encoder`: text from clients never becomes a control token.
    parsed.encode_special_tokens = True

    def encode(text: str) -> list[int]:
        ids: list[int] = parsed.encode(text, add_special_tokens=False).ids
        return ids

    return TokenBudget(encode, max_tokens)


def _tokens_per_byte(tokenizer: Mapping[str, Any]) -> int | None:
    """Returns the most tokens that one byte of text can make; None if that is unknown.

    A byte-level tokenizer drops no text, and each of its tokens has at least one byte.
    """
    pre_tokenizer = tokenizer.get("pre_tokenizer") or {}
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = {part.get("type") for part in parts}
    if "ByteLevel" not in kinds or kinds - {"ByteLevel", "Digits"}:
        return None
    match tokenizer.get("normalizer"):
        case None:
            return 1
        case {"type": "NFC"}:
            return NFC_EXPANSION
    return None


# Fills in nothing: zeros stay zeros.
LEFT_TO_THE_SERVER = Policy(name=rates.SEARCH, learning_rate=0.0, max_steps=0)
