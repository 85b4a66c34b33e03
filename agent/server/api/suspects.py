"""Questions that were being answered when a learner died, and may be the cause."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import DeadlyQuestionError

# A question is refused after this many deaths,
DEATHS = 2
# for this long. Then it may be asked once more, alone.
REFUSED_SECONDS = 600.0
# The most questions that are remembered. The oldest are dropped.
REMEMBERED = 1024


@dataclass(slots=True)
class _Suspect:
    deaths: int
    died_at: float


class Suspects:
    """Remembers questions by their hashes, until the server stops.

    Args:
        now: a clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._suspects: OrderedDict[bytes, _Suspect] = OrderedDict()
        self._key = secrets.token_bytes(16)

    def must_be_alone(self, *texts: str) -> bool:
        """Whether it must be asked alone.

        Raises:
            DeadlyQuestionError: two learners have died while they answered it.
        """
        suspect = self._suspects.get(self._hash(texts))
        if suspect is None:
            return False
        left = suspect.died_at + REFUSED_SECONDS - self._now()
        if suspect.deaths >= DEATHS and left > 0:
            raise DeadlyQuestionError(
                f"the learner died {suspect.deaths} times while it was answering this: it is"
                f" refused for {left / 60:.0f} minutes. The server's log says how it died"
            )
        return True

    def learner_died(self, *texts: str) -> None:
        """Records that a learner died while it was answering this."""
        key = self._hash(texts)
        known = self._suspects.pop(key, None)
        deaths = min(known.deaths, DEATHS) if known else 0
        self._suspects[key] = _Suspect(deaths + 1, self._now())
        if len(self._suspects) > REMEMBERED:
            self._suspects.popitem(last=False)

    def answered(self, *texts: str) -> None:
        """Clears a question that was answered."""
        self._suspects.pop(self._hash(texts), None)

    def _hash(self, texts: tuple[str, ...]) -> bytes:
        parts = "\0".join(texts).encode()
        return hashlib.blake2b(parts, digest_size=16, key=self._key).digest()
