"""The checks for facts while a server starts: as strict as what is known of its model allows.

A fact is accepted from the first moment. What needs the tokenizer is checked as soon as that has
been read from the model's files; what was accepted before, the learner judges when its turn comes.
"""

from __future__ import annotations

import asyncio
import logging

from agent.errors import LearnerUnavailableError
from agent.learning.catalog import ModelEntry
from agent.learning.limits import TeachingLimits
from agent.learning.records import LearnerDescription
from agent.learning.room import MAX_FACT_TOKENS
from agent.learning.tokenizer_files import read_tokenizer
from agent.service.validation import FactRules
from memory_store.vocabulary import Policy

logger = logging.getLogger(__name__)


class Accepting:
    """Has the checks of the moment. For one asyncio loop.

    Args:
        model: that is being loaded.
        policy: what a fact's own policy is completed with.
        limits: what it may ask for.
        belongs_to: the model that the memory is bound to, if it has another name: then nothing is
            accepted until the learner has shown that the weights are the same. Else empty.
    """

    def __init__(
        self, model: ModelEntry, policy: Policy, limits: TeachingLimits, belongs_to: str = ""
    ) -> None:
        self._model = model
        self._checks = (policy, limits)
        self._belongs_to = belongs_to
        self._description: LearnerDescription | None = None
        self._rules = FactRules(None, MAX_FACT_TOKENS, *self._checks)
        self._counting = False  # tokens, with what the files say

    @property
    def is_open(self) -> bool:
        """Whether facts are accepted now."""
        return not self._belongs_to or self._description is not None

    def rules(self) -> FactRules:
        """The checks for a fact that arrives now.

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
        """Takes the tokenizer from the model's files, if they are on this machine."""
        if self._counting:
            return
        rules = await asyncio.to_thread(self._from_files)
        if rules is not None and self._description is None:
            self._rules, self._counting = rules, True

    async def loaded(self, description: LearnerDescription) -> None:
        """Takes over what a learner reports of the model, which this memory is bound to."""
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
            # Loading the model meets the same, and reports it in full.
            logger.warning("the tokenizer of %s cannot be read: %s", self._model.name, error)
            return None
