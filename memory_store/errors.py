"""Errors of the store. Each message says what is wrong, and what to do about it."""

from __future__ import annotations


class MemoryStoreError(Exception):
    """Base of all errors that the store raises on purpose."""


class FactNotFoundError(MemoryStoreError):
    """No fact has this id."""


class FactExistsError(MemoryStoreError):
    """The chosen fact id already belongs to a different fact."""


class RequestIdUsedError(FactExistsError):
    """The request id was used before, with other content."""


class QueueFullError(MemoryStoreError):
    """Too many facts wait to be learned; nothing was stored."""


class WrongStateError(MemoryStoreError):
    """The fact is not in a state that permits this transition."""


class OperationEndedError(WrongStateError):
    """The operation has ended, so nothing can be added to its branch."""


class LedgerConflictError(MemoryStoreError):
    """An update was based on another ledger position than the newest one."""


class OtherModelError(MemoryStoreError):
    """The data folder belongs to another model."""


class OtherTokenizerError(OtherModelError):
    """The data folder was taught with another tokenizer than the model has now."""


class StoreUnusableError(MemoryStoreError):
    """The database is damaged, from a newer release, or cannot be written."""


class InvalidPageTokenError(MemoryStoreError):
    """A page token was not made by this store, or for this listing."""


class StoreFailedError(StoreUnusableError):
    """The disk or the database failed in use. The process must stop using it, and exit.

    SQLite itself may continue after a failed fsync, although what it wrote is then uncertain.
    """


class StoreClosedError(MemoryStoreError):
    """The store was closed before this operation, which did nothing."""
