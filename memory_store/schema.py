"""Creates the tables of a new database, and migrates those of an older release.

A database records the names of its migrations. The first one creates the tables; each later release
appends its own to `IN_ORDER`. All missing ones are applied in one transaction, after the database
was copied (see `memory_store.schema_copies`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from memory_store import schema_copies, tables
from memory_store.connection import Connection, in_our_words
from memory_store.errors import StoreUnusableError
from memory_store.vocabulary import FactState

Migration = tuple[str, Callable[[Database], None]]


def _create_tables(database: Database) -> None:
    for statement in tables.statements():
        database.execute(statement)
    for state in FactState:
        database.execute("INSERT INTO state_counts (state, count) VALUES (?, 0)", [state.value])
    database.execute(
        "INSERT INTO meta (key, value) VALUES ('page_token_secret', ?)", [secrets.token_hex(32)]
    )


FIRST = "0100_tables"
# Never changed once released. A later one gets a greater number.
IN_ORDER: tuple[Migration, ...] = ((FIRST, _create_tables),)


def migrations() -> Migrations:
    """All migrations of this release."""
    found = Migrations("continual.memory_store")
    for name, function in IN_ORDER:
        found(name=name)(function)
    return found


def lacking_migrations(connection: Connection) -> list[str]:
    """Names of this release's migrations that a database lacks, in order."""
    return [migration.name for migration in migrations().pending(connection.database)]


def foreign_migrations(connection: Connection) -> list[str]:
    """Names of migrations of a database that this release does not know."""
    applied = {migration.name for migration in migrations().applied(connection.database)}
    return sorted(applied - {name for name, _ in IN_ORDER})


def was_never_released(connection: Connection) -> bool:
    """Whether a database was made by a version from before the first release."""
    applied = {migration.name for migration in migrations().applied(connection.database)}
    return bool(applied) and FIRST not in applied


def prepare(connection: Connection) -> None:
    """Migrates the database to this release's schema; only checks a read-only one.

    An existing database is copied first; see `memory_store.schema_copies`.

    Raises:
        StoreUnusableError: the schema is newer than this release, or was never released; or it is
            another program's database; or it is older than this release and the connection is
            read-only; or it is damaged; or there is no room for the copy. Nothing was changed.
    """
    # sqlite-utils runs its own statements, past `Connection.execute`.
    with in_our_words(connection.path):
        lacking = lacking_migrations(connection)
        foreign = foreign_migrations(connection)
        existing = len(lacking) < len(IN_ORDER)
        if lacking and existing and not foreign and not connection.read_only:
            schema_copies.keep_copy(connection, before=lacking[0])
    with in_our_words(connection.path), connection.transaction():
        _require_usable(connection)
        if lacking_migrations(connection):
            # Inside our transaction, each migration is a savepoint: all of them, or none.
            migrations().apply(connection.database)


def _require_usable(connection: Connection) -> None:
    """Refuses a database that this release can neither use nor bring up to date.

    Raises:
        StoreUnusableError: see `prepare`.
    """
    path = connection.path
    if was_never_released(connection):
        raise StoreUnusableError(
            f"The database {path} was made by a version from before the first release, which no"
            " release can read. Nothing was changed. Use another data folder and teach the facts"
            " again: the version that made it lists them with 'agent facts list --json'."
        )
    if newer := foreign_migrations(connection):
        raise StoreUnusableError(
            f"The database {path} was made by a newer release (its schema has {', '.join(newer)})."
            " Upgrade this program, or use another data folder."
        )
    lacking = lacking_migrations(connection)
    if len(lacking) == len(IN_ORDER) and connection.database.table_names():
        raise StoreUnusableError(
            f"{path} is a database of another program. Use another data folder."
        )
    if lacking and connection.read_only:
        raise StoreUnusableError(
            f"The database {path} is from an older release (it lacks {', '.join(lacking)}). Start"
            " the server once: it brings it up to date."
        )
