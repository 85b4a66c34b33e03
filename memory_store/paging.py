"""Page tokens: the start of the next page of a list, opaque to clients, and checked for changes."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence

from memory_store import facts, meta
from memory_store.errors import InvalidPageTokenError
from memory_store.store import MemoryStore
from memory_store.vocabulary import Fact, FactState

# Identifies the order of a list, in addition to the states of its facts.
NEWEST_FIRST = "newest first"

# The most facts of a page to read at once.
PAGE_PART = 64

_POSITION_BYTES = 8
_CHECKSUM_BYTES = 16  # 24 in all: a multiple of three, so base64 needs no padding


def page(
    store: MemoryStore,
    page_size: int,
    page_token: str = "",
    states: Sequence[FactState] = (),
    *,
    newest_first: bool = False,
    fits: Callable[[Fact], bool] = lambda fact: True,
) -> tuple[list[Fact], str]:
    """A page of facts, and the token of the next one (empty on the last page).

    Args:
        store: of the facts.
        page_size: at least 1; limits are the caller's.
        page_token: of the page before; empty for the first.
        states: must not change between pages; empty means all.
        newest_first: the order; must not change either.
        fits: called for each fact; the page ends before one that does not fit, but has at least
            one.

    Raises:
        InvalidPageTokenError: the token is not of this store, or of another list.
    """
    listed = (*states, NEWEST_FIRST) if newest_first else tuple(states)
    with store.transaction():
        secret = meta.page_token_secret(store.connection)
        place = decode_page_token(page_token, listed, secret) if page_token else 0
        found: list[Fact] = []
        while True:
            # In parts, because few large facts may fill a page.
            limit = min(PAGE_PART, page_size - len(found) + 1)
            part = facts.listing(store.connection, place, limit, states, newest_first=newest_first)
            for fact in part:
                if len(found) == page_size or (not fits(fact) and found):
                    return found, encode_page_token(found[-1].position, listed, secret)
                found.append(fact)
            if len(part) < limit:
                return found, ""
            place = found[-1].position


def encode_page_token(position: int, listed: Sequence[str], secret: bytes) -> str:
    """A url-safe token for the page after `position` of a list."""
    place = position.to_bytes(_POSITION_BYTES, "big")
    return base64.urlsafe_b64encode(place + _checksum(place, listed, secret)).decode("ascii")


def decode_page_token(token: str, listed: Sequence[str], secret: bytes) -> int:
    """The position in a token that `encode_page_token` made for the same list.

    Raises:
        InvalidPageTokenError: it was made elsewhere, for another list, or is no token at all.
    """
    try:
        content = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:  # other characters, or a length that base64 cannot have
        content = b""
    place, checksum = content[:_POSITION_BYTES], content[_POSITION_BYTES:]
    if not hmac.compare_digest(checksum, _checksum(place, listed, secret)):
        raise InvalidPageTokenError(
            "The page token does not belong to this list. Send the token of the previous answer "
            "with the same filter, or no token to begin again."
        )
    return int.from_bytes(place, "big")


def _checksum(place: bytes, listed: Sequence[str], secret: bytes) -> bytes:
    # Order and repetition of the states do not change the list.
    message = place + ",".join(sorted(set(listed))).encode()
    return hmac.digest(secret, message, hashlib.sha256)[:_CHECKSUM_BYTES]
