"""Validates facts while the server starts, by what is known of the model so far.

Facts are accepted from the start. Tokens are counted once the tokenizer was read from the model's
files. Facts that were accepted before are checked by the learner when their turn comes.
"""

from __future__ import annotations

import asyncio
import logging

from agent.errors import LearnerUnavailableError
from agent.models.catalog import ModelEntry
from agent.models.token_budget import MAX_FACT_TOKENS
from agent.models.tokenizer_files import read_tokenizer
from agent.teaching.limits import TeachingLimits
from agent.teaching.types import LearnerDescription
from agent.wire.validation import FactRules
from memory_store.vocabulary import Policy

logger = logging.getLogger(__name__)


class ProvisionalChecks:
    """Holds the current rules for facts. Belongs to one asyncio loop.

    Args:
        model: the model that is being loaded.
        policy: the default values for the policy of a fact.
        limits: the policies, rates and steps that a fact may ask for.
        belongs_to: the model that the memory is bound to, if its name differs, else empty. Then
            no fact is accepted until the learner has shown that the weights are the same.
    """

    def __init__(
        self, model: ModelEntry, policy: Policy, limits: TeachingLimits, belongs_to: str = ""
    ) -> None:
        self._model = model
        self._checks = (policy, limits)
        self._belongs_to = belongs_to
        self._description: LearnerDescription | None = None
        self._rules = FactRules(None, MAX_FACT_TOKENS, *self._checks)
        self._counting = False  # whether tokens are counted, by the model's files

    @property
    def is_open(self) -> bool:
        """Whether facts are accepted now."""
        return not self._belongs_to or self._description is not None

    def rules(self) -> FactRules:
        """Returns the current rules.

        Raises:
            LearnerUnavailableError: the memory may belong to another model.
        """
        if not self.is_open:
            raise LearnerUnavailableError(
                f"this memory belongs to the model {self._belongs_to}; facts are accepted once"
                f" {self._model.name} is loaded and has turned out to be the same: try again in a"
                " moment"
            )
        return self._rules

    async def read_files(self) -> None:
        """Reads the tokenizer from the model's files, if they are on this machine."""
        if self._counting:
            return
        rules = await asyncio.to_thread(self._from_files)
        if rules is not None and self._description is None:
            self._rules, self._counting = rules, True

    async def loaded(self, description: LearnerDescription) -> None:
        """Takes tokenizer and context from a learner that has loaded the memory's model."""
        if self._description is None:
            self._rules = await asyncio.to_thread(
                FactRules, description.tokenizer or None, description.max_tokens, *self._checks
            )
            self._description = description

    def _from_files(self) -> FactRules | None:
        try:
            source = read_tokenizer(self._model)
            if source is None:
                return None
            return FactRules(source.tokenizer, source.max_tokens, *self._checks)
        except Exception as error:  # noqa: BLE001 - the tokenizers library raises nothing narrower
            # Loading the model fails in the same way, and reports it in full.
            logger.warning("the tokenizer of %s cannot be read: %s", self._model.name, error)
            return None
