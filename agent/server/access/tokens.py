"""Bearer tokens in a file: create, list, revoke and verify them.

The file holds the SHA-256 of each secret, not the secret. A fast hash is enough: a secret has 256
random bits, so nobody can guess it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from agent.durable_files import flush
from agent.errors import ConfigError
from agent.wire.methods import Role

logger = logging.getLogger(__name__)

# Identifies such a string for people and for secret scanners.
PREFIX = "agent"
MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token, without its secret.

    Attributes:
        id: its id, which is part of what the client sends.
        name: the owner's name, for people.
        role: the calls that it permits.
        sha256: the hash of the secret, in hexadecimal.
        created_at: the time of creation, UTC, ISO 8601.
    """

    id: str
    name: str
    role: Role
    sha256: str
    created_at: str

    def is_proved_by(self, secret: str) -> bool:
        """Compares a secret in constant time."""
        return hmac.compare_digest(self.sha256, _hash(secret))


# Stands for an unknown token, so that checking it takes as long as checking a known one.
_NOBODY = Token(id="", name="", role=Role.READ, sha256="0" * 64, created_at="")


class TokenFile:
    """Manages the tokens of a server.

    Args:
        path: the file; `create` makes it if needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Token]:
        """Returns all tokens, oldest first.

        Raises:
            ConfigError: the file is missing, open to others, or not a token file.
        """
        try:
            # Checked on the open file, so that the same file is checked and read.
            with self.path.open(encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise ConfigError(
                        f"the token file {self.path} is open to other users: chmod 600 {self.path}"
                    )
                content = json.load(file, object_pairs_hook=_without_repeats)
            return _tokens(content)
        except OSError as error:
            raise ConfigError(
                f"cannot read the token file {self.path} ({error.strerror}): make one with"
                " 'agent tokens create NAME --role ROLE --tokens FILE'"
            ) from error
        except ValueError as error:
            said = "no JSON" if isinstance(error, json.JSONDecodeError | UnicodeError) else error
            raise ConfigError(
                f"{self.path} is not a token file ({said}): correct it, or remove it and make new"
                " tokens"
            ) from error

    def create(self, name: str, role: Role, now: datetime | None = None) -> tuple[Token, str]:
        """Adds a token.

        Returns:
            The token, and the string that the client sends, which is not stored.

        Raises:
            ConfigError: the name is not printable or too long, or the file cannot be used.
        """
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise ConfigError(
                f"a token's name must be 1 to {MAX_NAME_CHARACTERS} printable characters"
            )
        id_, secret = secrets.token_hex(4), secrets.token_hex(32)
        token = Token(
            id=id_,
            name=name,
            role=role,
            sha256=_hash(secret),
            created_at=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        )
        with self._locked():
            self._write([*(self.read() if self.path.exists() else ()), token])
        return token, f"{PREFIX}_{id_}_{secret}"

    def revoke(self, token_id: str) -> Token:
        """Removes a token. A running server refuses it from the next call on.

        Raises:
            ConfigError: no token has this id, or the file cannot be used.
        """
        with self._locked():
            tokens = self.read()
            for token in tokens:
                if token.id == token_id:
                    self._write(other for other in tokens if other is not token)
                    return token
        raise ConfigError(f"{self.path} has no token {token_id}: 'agent tokens list' shows all")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks the file, so that concurrent changes are not lost."""
        lock = FileLock(self.path.with_name(f"{self.path.name}.lock"), mode=0o600)
        try:
            lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _write(self, tokens: Iterable[Token]) -> None:
        """Replaces the file atomically, so that a server reads the old or the new one."""
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        content = json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=1)
        try:
            temporary.unlink(missing_ok=True)
            # Created with private permissions.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content + "\n")
            flush(temporary)
            temporary.replace(self.path)
            flush(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot write the token file {self.path}: {error.strerror}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds a JSON object; refuses repeated keys, which readers may resolve differently."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _tokens(content: Any) -> list[Token]:
    """Parses the content of a token file strictly.

    Raises:
        ValueError: something is invalid. The message names the token, and never shows a hash.
    """
    if not isinstance(content, dict) or not isinstance(content.get("tokens"), list):
        raise ValueError("it has no list 'tokens'")
    if others := content.keys() - {"tokens"}:
        raise ValueError(f"unknown key {min(others)!r}")
    tokens = [_token(row, number) for number, row in enumerate(content["tokens"], 1)]
    ids = Counter(token.id for token in tokens)
    if repeated := [id_ for id_, count in ids.items() if count > 1]:
        raise ValueError(f"two tokens have the id {repeated[0]!r}")
    return tokens


def _token(row: Any, number: int) -> Token:
    names = [field.name for field in fields(Token)]
    if not isinstance(row, dict):
        raise ValueError(f"token {number} is not an object")
    for key, value in row.items():
        if key not in names:
            raise ValueError(f"token {number} has the unknown field {key!r}")
        if not isinstance(value, str):
            raise ValueError(f"token {number}: {key} must be a string")
    for name in names:
        if name not in row:
            raise ValueError(f"token {number} has no {name}")
    if row["role"] not in list(Role):
        raise ValueError(
            f"token {number} has the unknown role {row['role']!r}: use one of {', '.join(Role)}"
        )
    if re.fullmatch("[0-9a-f]{64}", row["sha256"]) is None:
        raise ValueError(f"token {number}: sha256 must be 64 hexadecimal digits")
    return Token(**{**row, "role": Role(row["role"])})


class KnownTokens:
    """Verifies the tokens of clients. Follows the file, so that a revocation needs no restart.

    Args:
        file: the tokens; must be readable now.

    Raises:
        ConfigError: the file cannot be read.
    """

    def __init__(self, file: TokenFile) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        file.read()

    def find(self, presented: str) -> Token | None:
        """Returns the token of a presented string; None if it is not valid."""
        self._follow()
        prefix, _, rest = presented.partition("_")
        id_, _, secret = rest.partition("_")
        token = self._tokens.get(id_, _NOBODY)
        proved = token.is_proved_by(secret)
        return token if proved and prefix == PREFIX else None

    def current(self, token: Token) -> Token | None:
        """Returns the current state of a token; None if it was revoked."""
        self._follow()
        now = self._tokens.get(token.id)
        return now if now is not None and now.sha256 == token.sha256 else None

    def _follow(self) -> None:
        """Reads the file again if it has changed. If it cannot be read, nobody is admitted."""
        stamp = self._stamp_of(self._file.path)
        if stamp is not None and stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._tokens = {token.id: token for token in self._file.read()}
        except ConfigError as error:
            logger.error("nobody is admitted: %s", error)
            self._tokens = {}

    @staticmethod
    def _stamp_of(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns, found.st_size  # ctime: chmod changes it too


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
