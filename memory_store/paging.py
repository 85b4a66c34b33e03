"""Page tokens: where the next page of a list begins, opaque to clients and useless if altered."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from memory_store.errors import InvalidPageTokenError

# Beside the states of its facts, what a list may be told by.
NEWEST_FIRST = "newest first"

_POSITION_BYTES = 8
_CHECKSUM_BYTES = 16  # 24 in all: a multiple of three, so base64 needs no padding


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
