"""One SQLite connection: opening, transactions, and errors as ours.

Always `pysqlite3`, never the module of the standard library: the machine's SQLite may have the
WAL-reset bug, and two copies of SQLite on one file in one process can corrupt it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pysqlite3
from sqlite_utils import Database

from memory_store.errors import StoreFailedError, StoreUnusableError

MINIMUM_SQLITE = (3, 51, 3)  # before: the WAL-reset bug, https://sqlite.org/wal.html#walresetbug
BUSY_TIMEOUT_MS = 5_000
WAL_SIZE_LIMIT = 64 * 2**20  # bytes; a WAL that grew under a long reader shrinks to this again

# Used as a path: the database is in memory, and gone when it is closed.
IN_MEMORY = Path(":memory:")

Row = Mapping[str, Any]
SqlValue = str | int | float | None


class Connection:
    """A connection to one database file, for one thread.

    Attributes:
        path: the database file, for messages.
        read_only: whether SQLite refuses every write on this connection.
        database: the same connection in sqlite-utils, for migrations.
    """

    def __init__(self, path: Path, *, read_only: bool = False, must_exist: bool = False) -> None:
        """Opens the file (or `IN_MEMORY`), making it unless it is `read_only` or `must_exist`.

        Raises:
            StoreUnusableError: SQLite is too old; or the file is missing, damaged or locked.
        """
        require_safe_sqlite(pysqlite3.sqlite_version_info)
        self.path = path
        self.read_only = read_only
        mode = "ro" if read_only else "rw" if must_exist else "rwc"
        with in_our_words(path):
            connection = pysqlite3.connect(
                "file::memory:" if path == IN_MEMORY else f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=BUSY_TIMEOUT_MS / 1000,
                isolation_level=None,  # `transaction` begins them, not the driver
            )
        connection.row_factory = pysqlite3.Row
        # Plugins that happen to be installed must not touch this database.
        self.database = Database(connection, execute_plugins=False)
        try:
            self._configure()
        except StoreUnusableError:
            self.close()
            raise
        self._files = [path, path.with_name(f"{path.name}-wal")]
        self._identities: list[tuple[int, int] | None] = [_file_identity(path), None]

    def _configure(self) -> None:
        pragmas = [f"busy_timeout = {BUSY_TIMEOUT_MS}", "foreign_keys = ON"]
        if self.read_only:
            pragmas += ["query_only = ON"]
        else:
            pragmas += [
                # For new and rewritten files: free pages can be returned to the disk.
                "auto_vacuum = INCREMENTAL",
                "journal_mode = WAL",
                "synchronous = FULL",  # fsync at every commit: "accepted" survives a power loss
                "secure_delete = ON",  # what is removed is overwritten, not just unlinked
                f"journal_size_limit = {WAL_SIZE_LIMIT}",
                # SQLite's own checkpoints do not report a failed sync: see `shorten_log`.
                "wal_autocheckpoint = 0",
            ]
        for pragma in pragmas:
            self.execute(f"PRAGMA {pragma}")

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open. Some errors, such as a full disk, end it."""
        return self.database.conn.in_transaction

    def execute(self, sql: str, parameters: Sequence[SqlValue] = ()) -> list[Row]:
        """Runs one statement to its end and returns all its rows.

        Raises:
            StoreUnusableError: the disk is full, or another process holds the lock.
            StoreFailedError: reading, writing or syncing failed, or the file is damaged.
        """
        try:
            # Not through sqlite-utils, which doubles the time.
            rows: list[Row] = self.database.conn.execute(sql, parameters).fetchall()
        except pysqlite3.DatabaseError as error:
            _raise_in_our_words(self.path, error)
        return rows

    def first(self, sql: str, parameters: Sequence[SqlValue] = ()) -> Row | None:
        """Runs a statement and returns its first row; None if it has none. Raises as `execute`."""
        rows = self.execute(sql, parameters)
        return rows[0] if rows else None

    def number(self, sql: str, parameters: Sequence[SqlValue] = ()) -> int:
        """Runs a query and returns the number in its first row; 0 if it is missing or NULL."""
        row: Any = self.first(sql, parameters)
        return int(row[0] or 0) if row else 0

    def insert(self, table: str, values: Mapping[str, SqlValue]) -> None:
        """Adds a row, given by the names of its columns. Raises as `execute`."""
        places = ", ".join("?" * len(values))
        self.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", list(values.values())
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing for the statements inside; a savepoint if one is already open.

        IMMEDIATE, because a deferred transaction that reads and then writes fails with
        SQLITE_BUSY at once, whatever the timeout.

        Raises:
            StoreUnusableError: as `execute`; nothing of the transaction was stored.
        """
        if self.in_transaction:
            # ROLLBACK TO and RELEASE mean the innermost savepoint of that name.
            begin, commit = "SAVEPOINT nested", "RELEASE nested"
            undo = ["ROLLBACK TO nested", "RELEASE nested"]
        else:
            begin, commit = ("BEGIN" if self.read_only else "BEGIN IMMEDIATE"), "COMMIT"
            undo = ["ROLLBACK"]
        self.execute(begin)
        try:
            yield
            self.execute(commit)
        except BaseException:
            if self.in_transaction:
                for statement in undo:
                    self.execute(statement)
            raise

    def backup(self, target: Path) -> None:
        """Copies the database to a new file, page by page, consistent while it is written to."""
        with in_our_words(target):
            copy = pysqlite3.connect(target)
            try:
                self.database.conn.backup(copy)
            finally:
                copy.close()

    def copy_to(self, other: Connection) -> None:
        """Replaces the content of another open database by a copy of this one."""
        with in_our_words(other.path):
            self.database.conn.backup(other.database.conn)

    @property
    def file_identity(self) -> tuple[int, int] | None:
        """Device and inode of the database file when it was opened; None if it is in memory."""
        return self._identities[0]

    def require_in_place(self) -> None:
        """Checks that the database and its write-ahead log are still the files at their paths.

        SQLite continues to write into a file that was deleted, moved or replaced, and what is
        accepted would be lost. The check takes two system calls, so every commit can afford it.

        Raises:
            StoreFailedError: one of them is not.
        """
        if self.path == IN_MEMORY:
            return
        for number, file in enumerate(self._files):
            found = _file_identity(file)
            expected = self._identities[number] or found  # the log appears with the first commit
            if found is None or found != expected:
                raise not_in_place(file)
            self._identities[number] = found

    def checkpoint(self) -> bool:
        """Moves the write-ahead log into the database file and empties it.

        Returns:
            False if a reader prevented it; then the log stays, and nothing is lost.
        """
        return not self.execute("PRAGMA wal_checkpoint(TRUNCATE)")[0]["busy"]

    def shorten_log(self, pages: int) -> None:
        """Moves the log into the database file if at least `pages` pages of it wait.

        What a reader still needs stays in the log, until a later call. Not inside a transaction.

        Raises:
            StoreFailedError: a write or a sync failed.
            StoreUnusableError: the disk is full; the log keeps everything.
        """
        log = self.execute("PRAGMA wal_checkpoint(NOOP)")[0]  # looks, moves nothing
        if log["log"] - log["checkpointed"] >= pages:
            self.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Closes the file. What was committed stays; an open transaction is rolled back."""
        self.database.close()


def _file_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at a path now; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def require_safe_sqlite(version: tuple[int, ...]) -> None:
    """Refuses an SQLite that can corrupt a database in WAL mode.

    Raises:
        StoreUnusableError: `version` is older than `MINIMUM_SQLITE`.
    """
    if version < MINIMUM_SQLITE:
        found, needed = (".".join(map(str, v)) for v in (version, MINIMUM_SQLITE))
        raise StoreUnusableError(
            f"SQLite {found} can corrupt its write-ahead log; {needed} or newer is needed. "
            "Install it with: pip install 'pysqlite3>=0.6.1'"
        )


def damaged(path: Path, why: str) -> StoreFailedError:
    """The error for a database file that cannot be trusted any more."""
    return StoreFailedError(
        f"The database {path} is damaged ({why}). Stop the server, restore a backup of the data "
        f"folder {path.parent}, and start again; keep the damaged files for a closer look."
    )


def not_in_place(file: Path) -> StoreFailedError:
    """The error for a file that is not at its path any more while it is open."""
    return StoreFailedError(
        f"The file {file} was deleted, moved or replaced while the server used it. Nothing more is"
        " accepted. Stop the server before you move or restore its data folder; if the folder is"
        " gone, restore a backup."
    )


@contextmanager
def in_our_words(path: Path) -> Iterator[None]:
    """Turns SQLite's errors about disk and file into `StoreUnusableError`."""
    try:
        yield
    except pysqlite3.DatabaseError as error:
        _raise_in_our_words(path, error)


def _raise_in_our_words(path: Path, error: pysqlite3.DatabaseError) -> NoReturn:
    # Extended codes carry the primary one in the lowest byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (pysqlite3.SQLITE_CORRUPT, pysqlite3.SQLITE_NOTADB):
        raise damaged(path, str(error)) from error
    if code == pysqlite3.SQLITE_IOERR:
        raise StoreFailedError(
            f"Reading or writing {path} failed ({error}). Check the disk, then start the "
            "server again: all that was accepted is kept, and this request was not."
        ) from error
    if code == pysqlite3.SQLITE_FULL:
        raise StoreUnusableError(
            f"No space is left for {path}. Free some, then repeat the request: nothing of it "
            "was stored."
        ) from error
    if code in (pysqlite3.SQLITE_CANTOPEN, pysqlite3.SQLITE_READONLY, pysqlite3.SQLITE_PERM):
        raise StoreUnusableError(
            f"Cannot open or write {path} ({error}). Check that the folder {path.parent} "
            "exists and that this user may write to it."
        ) from error
    if code in (pysqlite3.SQLITE_BUSY, pysqlite3.SQLITE_LOCKED):
        raise StoreUnusableError(
            f"{path} is locked by another process ({error}). Stop that process, or use "
            "another data folder."
        ) from error
    raise error
