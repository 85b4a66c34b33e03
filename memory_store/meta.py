"""Settings of a database: its model, its tokenizer, its secret for page tokens, paused learning."""

from __future__ import annotations

from collections.abc import Mapping

from memory_store.connection import Connection
from memory_store.errors import OtherModelError, OtherTokenizerError

_PAUSED = "learning_paused"
_FILE, _BEHAVIOR, _LIBRARY = "tokenizer_file", "tokenizer_behavior", "tokenizers_version"
_GENERAL_TEXT = "general_text"


def bind_model(connection: Connection, name: str, base_digest: str) -> None:
    """Binds the database to a model the first time, and checks it after that.

    Raises:
        OtherModelError: it belongs to a model of other weights.
    """
    with connection.transaction():
        bound = _values(connection)
        if "model_name" not in bound:
            for key, value in (("model_name", name), ("base_digest", base_digest)):
                note(connection, key, value)
            return
        # The weights count, not the name: a folder may have been moved.
        if bound["base_digest"] != base_digest:
            raise OtherModelError(
                f"The data folder {connection.path.parent} belongs to the model "
                f"{bound['model_name']!r} (weights {bound['base_digest'][:12]}), not to {name!r} "
                f"(weights {base_digest[:12]}). Start with that model, or give this one another "
                "folder with --data."
            )


def bind_tokenizer(
    connection: Connection, file: str, behavior: str, library: str, *, accept: bool = False
) -> None:
    """Binds the database to a tokenizer the first time, and checks it after that.

    Args:
        connection: of the store.
        file: digest of the tokenizer's file, as this library writes it.
        behavior: digest of its behavior on texts.
        library: version of the library that read it. Another version may write the same tokenizer
            differently. Then the behavior decides, and the new digest is stored.
        accept: bind the database to another tokenizer instead of raising.

    Raises:
        OtherTokenizerError: it is another one.
    """
    with connection.transaction():
        bound = _values(connection)
        now = {_FILE: file, _BEHAVIOR: behavior, _LIBRARY: library}
        if _FILE in bound:
            does_the_same = bound[_BEHAVIOR] == behavior
            written_anew = bound[_FILE] == file or bound[_LIBRARY] != library
            if not (does_the_same and written_anew) and not accept:
                raise OtherTokenizerError(
                    f"The data folder {connection.path.parent} was taught with another tokenizer"
                    f" ({bound[_FILE][:12]}, read by tokenizers {bound[_LIBRARY]}) than the model"
                    f" has now ({file[:12]}, tokenizers {library}): its weights would be asked in"
                    " other tokens than they learned. Restore the model's tokenizer.json (for a"
                    " model that was fetched: fetch its earlier revision), or install the earlier"
                    " tokenizers release; or accept the difference with --accept-drift."
                )
        if any(bound.get(key) != value for key, value in now.items()):
            for key, value in now.items():
                note(connection, key, value)


def bind_general_text(connection: Connection, digest: str) -> str:
    """Binds the database to a general text the first time; returns the digest of the bound one."""
    with connection.transaction():
        bound = noted(connection, _GENERAL_TEXT)
        if bound is None:
            note(connection, _GENERAL_TEXT, digest)
        return bound or digest


def bindings(connection: Connection) -> Mapping[str, str]:
    """The bindings of the database, for people: model, tokenizer, general text."""
    shown = ("model_name", "base_digest", _FILE, _BEHAVIOR, _LIBRARY, _GENERAL_TEXT)
    return {key: value for key, value in _values(connection).items() if key in shown}


def page_token_secret(connection: Connection) -> bytes:
    """The key of the checksums in page tokens, made with the database."""
    return bytes.fromhex(_values(connection)["page_token_secret"])


def pause_learning(connection: Connection, *, paused: bool) -> None:
    """Pauses or resumes learning."""
    with connection.transaction():
        if paused:
            note(connection, _PAUSED, "yes")
        else:
            drop(connection, _PAUSED)


def learning_paused(connection: Connection) -> bool:
    """Whether an operator paused learning."""
    return noted(connection, _PAUSED) is not None


def reached(connection: Connection, what: str) -> int:
    """The progress of work that is done in pieces; 0 if it has not begun."""
    return int(noted(connection, what) or 0)


def reach(connection: Connection, what: str, place: int) -> None:
    """Records the progress of such work."""
    note(connection, what, str(place))


def noted(connection: Connection, key: str) -> str | None:
    """The value of a key; None if it has none."""
    row = connection.first("SELECT value FROM meta WHERE key = ?", [key])
    return str(row["value"]) if row else None


def note(connection: Connection, key: str, value: str) -> None:
    """Sets the value of a key."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [key, value],
    )


def drop(connection: Connection, key: str) -> None:
    """Removes a key, if it exists."""
    connection.execute("DELETE FROM meta WHERE key = ?", [key])


def _values(connection: Connection) -> dict[str, str]:
    return {row["key"]: row["value"] for row in connection.execute("SELECT key, value FROM meta")}
