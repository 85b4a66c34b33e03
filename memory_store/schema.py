"""The tables, as named migrations that are applied in order, all of them or none.

What keeps every hot path independent of the number of facts:

- counts: one row a state in `state_counts`, kept by triggers, so nothing is ever counted;
- claim, lists by state: `facts_by_state` ends in the position, so the first rows are the answer;
- the newest live fact of a question: `facts_live_by_question` holds live facts only, so that ten
  thousand superseded answers to one question cost nothing;
- samples of older facts: `facts_sampled` holds the candidates only, in the order of a hash;
- the next fact to be reviewed: `facts_due_by_updates` and `facts_due_by_time` begin with it;
- the rest reads a range of a primary key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from memory_store import schema_copies
from memory_store.connection import Connection, in_our_words
from memory_store.errors import StoreUnusableError
from memory_store.vocabulary import FactState

# Written out in the queries too: SQLite uses a partial index only where it sees the same term.
LIVE = "state IN ('queued', 'learning', 'learned', 'known')"
SAMPLED = "state IN ('learned', 'known')"
SERVED = "kind <> 'relearn'"
FORK = "parent_version <> model_version - 1"

_FIRST_TABLES = (
    """CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE facts (
  position INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  question TEXT NOT NULL,
  answer TEXT NOT NULL,
  question_key TEXT NOT NULL,
  answer_key TEXT NOT NULL,
  correlated TEXT NOT NULL,
  policy TEXT,
  state TEXT NOT NULL CHECK (state IN ('queued', 'learning', 'learned', 'known', 'resisted',
    'quarantined', 'superseded', 'forgotten')),
  accepted_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  failed_attempts INTEGER NOT NULL DEFAULT 0 CHECK (failed_attempts >= 0),
  reason TEXT NOT NULL DEFAULT '',
  superseded_by TEXT NOT NULL DEFAULT '',
  learning TEXT,
  sample_key INTEGER NOT NULL CHECK (sample_key >= 0)
) STRICT""",
    "CREATE INDEX facts_by_state ON facts (state, position)",
    "CREATE INDEX facts_by_question ON facts (question_key, position)",
    f"CREATE INDEX facts_live_by_question ON facts (question_key, position) WHERE {LIVE}",
    f"CREATE INDEX facts_sampled ON facts (sample_key, id, question_key) WHERE {SAMPLED}",
    """CREATE TABLE state_counts (
  state TEXT PRIMARY KEY,
  count INTEGER NOT NULL CHECK (count >= 0)
) STRICT, WITHOUT ROWID""",
    """CREATE TRIGGER count_new_fact AFTER INSERT ON facts BEGIN
  UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END""",
    """CREATE TRIGGER count_changed_fact AFTER UPDATE OF state ON facts BEGIN
  UPDATE state_counts SET count = count - 1 WHERE state = OLD.state;
  UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END""",
    """CREATE TRIGGER keep_facts BEFORE DELETE ON facts BEGIN
  SELECT RAISE(ABORT, 'facts are never deleted');
END""",
    """CREATE TABLE requests (
  request_id TEXT PRIMARY KEY,
  payload_hash TEXT NOT NULL,
  fact_id TEXT NOT NULL REFERENCES facts (id),
  created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE updates (
  model_version INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('teach', 'relearn', 'forget', 'rollback', 'drift')),
  parent_version INTEGER NOT NULL CHECK (parent_version BETWEEN 0 AND model_version - 1),
  fact_id TEXT REFERENCES facts (id),
  policy TEXT,
  steps TEXT NOT NULL,
  digest_before TEXT NOT NULL,
  digest_after TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  environment TEXT NOT NULL,
  seconds REAL NOT NULL,
  applied_at TEXT NOT NULL
) STRICT""",
    "CREATE INDEX updates_by_fact ON updates (fact_id, model_version)",
    # A branch that is still being built is not served: the head is the newest row off it.
    f"CREATE INDEX updates_served ON updates (model_version) WHERE {SERVED}",
    """CREATE TRIGGER ledger_has_no_gaps BEFORE INSERT ON updates
WHEN NEW.model_version <> (SELECT coalesce(max(model_version), 0) + 1 FROM updates) BEGIN
  SELECT RAISE(ABORT, 'the ledger grows by one row at its end');
END""",
    """CREATE TRIGGER ledger_is_never_changed BEFORE UPDATE ON updates BEGIN
  SELECT RAISE(ABORT, 'rows of the ledger are never changed');
END""",
    """CREATE TRIGGER ledger_is_never_cut BEFORE DELETE ON updates BEGIN
  SELECT RAISE(ABORT, 'rows of the ledger are never deleted');
END""",
    """CREATE TABLE probes (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  fact_id TEXT NOT NULL REFERENCES facts (id),
  question TEXT NOT NULL,
  expected_answer TEXT NOT NULL,
  answer TEXT NOT NULL,
  correct INTEGER NOT NULL CHECK (correct IN (0, 1)),
  log_probability REAL NOT NULL,
  model_version INTEGER NOT NULL,
  cause_fact_id TEXT NOT NULL DEFAULT '',
  probed_at TEXT NOT NULL
) STRICT""",
    "CREATE INDEX probes_by_fact ON probes (fact_id, id)",
    """CREATE TABLE events (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  fact_id TEXT NOT NULL DEFAULT '',
  model_version INTEGER NOT NULL,
  message TEXT NOT NULL DEFAULT '',
  learning TEXT,
  at TEXT NOT NULL
) STRICT""",
    "CREATE INDEX events_by_fact ON events (fact_id, sequence)",
    """CREATE TABLE operations (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('forget', 'rollback')),
  state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'done', 'failed')),
  fact_id TEXT REFERENCES facts (id),
  erase INTEGER NOT NULL CHECK (erase IN (0, 1)),
  to_version INTEGER NOT NULL,
  branch_version INTEGER,
  position INTEGER NOT NULL,
  message TEXT NOT NULL DEFAULT '',
  proof TEXT,
  requested_at TEXT NOT NULL,
  finished_at TEXT
) STRICT""",
    "CREATE INDEX operations_open ON operations (id) WHERE state IN ('pending', 'running')",
    "CREATE INDEX operations_by_fact ON operations (fact_id, id)",
    """CREATE TABLE relearned (
  operation_id INTEGER NOT NULL REFERENCES operations (id),
  position INTEGER NOT NULL REFERENCES facts (position),
  verdict TEXT NOT NULL CHECK (verdict IN ('learned', 'known', 'resisted')),
  reason TEXT NOT NULL,
  learning TEXT NOT NULL,
  PRIMARY KEY (operation_id, position)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE places (
  kind TEXT NOT NULL CHECK (kind IN ('backup', 'export')),
  path TEXT NOT NULL,
  model_version INTEGER NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (kind, path)
) STRICT, WITHOUT ROWID""",
)


def _create_first_tables(database: Database) -> None:
    for statement in _FIRST_TABLES:
        database.execute(statement)
    for state in FactState:
        database.execute("INSERT INTO state_counts (state, count) VALUES (?, 0)", [state.value])
    database.execute(
        "INSERT INTO meta (key, value) VALUES ('page_token_secret', ?)", [secrets.token_hex(32)]
    )


def _let_branches_quarantine(database: Database) -> None:
    """A fact can fail on a branch too: it is quarantined there, and there are no findings then.

    Also, the version of the branch at which each fact was tried.
    """
    for statement in (
        "ALTER TABLE relearned RENAME TO relearned_before",
        """CREATE TABLE relearned (
  operation_id INTEGER NOT NULL REFERENCES operations (id),
  position INTEGER NOT NULL REFERENCES facts (position),
  verdict TEXT NOT NULL CHECK (verdict IN ('learned', 'known', 'resisted', 'quarantined')),
  reason TEXT NOT NULL,
  learning TEXT CHECK (learning IS NOT NULL OR verdict = 'quarantined'),
  model_version INTEGER NOT NULL,
  PRIMARY KEY (operation_id, position)
) STRICT, WITHOUT ROWID""",
        # The version was written down for learned facts only: the others were tried on the newest.
        "INSERT INTO relearned SELECT operation_id, position, verdict, reason, learning,"
        " max(json_extract(learning, '$.model_version'))"
        " OVER (PARTITION BY operation_id ORDER BY position) FROM relearned_before",
        "DROP TABLE relearned_before",
    ):
        database.execute(statement)


def _record_policies(database: Database) -> None:
    """The ledger has the policy of what was learned only."""
    database.execute("ALTER TABLE facts ADD COLUMN tried_policy TEXT")


def _count_updates(database: Database) -> None:
    """The depth of each row of the ledger: how many updates are on its lineage."""
    database.execute("ALTER TABLE updates ADD COLUMN depth INTEGER NOT NULL DEFAULT 0")
    depths = {0: 0}
    for version, parent, kind in database.execute(
        "SELECT model_version, parent_version, kind FROM updates ORDER BY model_version"
    ).fetchall():
        depths[version] = depths[parent] + (kind in ("teach", "relearn"))
    # Rows are never changed, but these have just got the column.
    database.execute("DROP TRIGGER ledger_is_never_changed")
    database.conn.executemany(
        "UPDATE updates SET depth = ? WHERE model_version = ?",
        [(depth, version) for version, depth in depths.items()],
    )
    database.execute("""CREATE TRIGGER ledger_is_never_changed BEFORE UPDATE ON updates BEGIN
  SELECT RAISE(ABORT, 'rows of the ledger are never changed');
END""")


def _review_on_a_schedule(database: Database) -> None:
    """When each held fact is to be reviewed, and what reviews came to.

    Facts of before are due at once, those that were last changed longest ago first.
    """
    _count_updates(database)
    for statement in (
        "ALTER TABLE facts ADD COLUMN times_held INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE facts ADD COLUMN held_since INTEGER",
        "ALTER TABLE facts ADD COLUMN due_depth INTEGER",
        "ALTER TABLE facts ADD COLUMN due_at TEXT",
        f"CREATE INDEX facts_due_by_updates ON facts (due_depth, position) WHERE {SAMPLED}",
        f"CREATE INDEX facts_due_by_time ON facts (due_at, position) WHERE {SAMPLED}",
        "UPDATE facts SET due_at = updated_at, held_since = coalesce((SELECT depth FROM updates"
        " WHERE model_version = json_extract(learning, '$.model_version')), 0),"
        f" due_depth = 8 + coalesce((SELECT depth FROM updates WHERE {SERVED}"
        f" ORDER BY model_version DESC LIMIT 1), 0) WHERE {SAMPLED}",
        """CREATE TABLE reviews (
  id INTEGER PRIMARY KEY,
  fact_id TEXT NOT NULL REFERENCES facts (id),
  after_position INTEGER NOT NULL,
  model_version INTEGER NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('held', 'retaught', 'resisted', 'failed')),
  reason TEXT NOT NULL DEFAULT '',
  retaught_version INTEGER REFERENCES updates (model_version)
    CHECK ((retaught_version IS NOT NULL) = (outcome = 'retaught')),
  probability REAL,
  age INTEGER NOT NULL CHECK (age >= 0),
  reviewed_at TEXT NOT NULL
) STRICT""",
        "CREATE INDEX reviews_by_fact ON reviews (fact_id, id)",
        "CREATE INDEX reviews_by_place ON reviews (after_position, id)",
        "CREATE INDEX reviews_retaught ON reviews (retaught_version) WHERE outcome = 'retaught'",
        """CREATE TABLE reviewed_again (
  operation_id INTEGER NOT NULL REFERENCES operations (id),
  review_id INTEGER NOT NULL REFERENCES reviews (id),
  outcome TEXT NOT NULL
    CHECK (outcome IN ('held', 'retaught', 'resisted', 'failed', 'skipped')),
  reason TEXT NOT NULL DEFAULT '',
  learning TEXT CHECK (learning IS NOT NULL OR outcome <> 'retaught'),
  model_version INTEGER NOT NULL,
  PRIMARY KEY (operation_id, review_id)
) STRICT, WITHOUT ROWID""",
    ):
        database.execute(statement)


def _count_samples(database: Database) -> None:
    """Of a question that was also sampled: how many texts, and how many of them right."""
    for statement in (
        "ALTER TABLE probes ADD COLUMN samples INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE probes ADD COLUMN correct_samples INTEGER NOT NULL DEFAULT 0"
        " CHECK (correct_samples BETWEEN 0 AND samples)",
    ):
        database.execute(statement)


def _keep_first_answers(database: Database) -> None:
    """What a request was answered: the same again, if it is sent again."""
    for statement in (
        "ALTER TABLE requests ADD COLUMN created INTEGER NOT NULL DEFAULT 1"
        " CHECK (created IN (0, 1))",
        "ALTER TABLE requests ADD COLUMN event_sequence INTEGER NOT NULL DEFAULT 0",
        # A fact has the time of the request that made it, and its first event is its acceptance.
        "UPDATE requests SET created = (SELECT accepted_at = requests.created_at FROM facts"
        " WHERE id = requests.fact_id), event_sequence = coalesce((SELECT min(sequence) - 1"
        " FROM events WHERE events.fact_id = requests.fact_id), 0)",
    ):
        database.execute(statement)


def _keep_replaced(database: Database) -> None:
    """A repeated request is told again which fact its own took the place of."""
    database.execute("ALTER TABLE requests ADD COLUMN replaces TEXT NOT NULL DEFAULT ''")


def _keep_traces(database: Database) -> None:
    """The trace that a fact was taught in; only where tracing is on."""
    database.execute("""CREATE TABLE traces (
  position INTEGER PRIMARY KEY REFERENCES facts (position),
  traceparent TEXT NOT NULL
) STRICT""")


def _count_reviews_by_age(database: Database) -> None:
    """Retention by age is told every few seconds: from an index alone, and in its order."""
    database.execute(
        "CREATE INDEX reviews_by_age ON reviews (age, outcome, probability)"
        " WHERE probability IS NOT NULL"
    )


def _scale_operations(database: Database) -> None:
    """What operations need to be cancelled and resumed, and to keep what is taught meanwhile."""
    for statement in (
        # An operation that was cancelled is a failed one that nobody has to look into.
        "ALTER TABLE operations ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0"
        " CHECK (cancelled IN (0, 1))",
        # The last event before the request: what was learned later is no part of what it undoes.
        "ALTER TABLE operations ADD COLUMN after_event INTEGER NOT NULL DEFAULT 0",
        "UPDATE operations SET after_event = (SELECT coalesce(max(sequence), 0) FROM events)",
        # Everything from this position on is repeated on the branch; null until it begins.
        "ALTER TABLE operations ADD COLUMN first_position INTEGER",
        "UPDATE operations SET first_position ="
        " (SELECT facts.position FROM facts WHERE facts.id = operations.fact_id)"
        " WHERE branch_version IS NOT NULL",
        "ALTER TABLE operations ADD COLUMN never_saw REAL",
        "ALTER TABLE operations ADD COLUMN done INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE operations ADD COLUMN total INTEGER NOT NULL DEFAULT 0",
        # Where a line of the ledger does not go on from the row before: few, so a line is read as
        # ranges.
        "CREATE INDEX updates_forks ON updates (model_version, parent_version)"
        " WHERE parent_version <> model_version - 1",
    ):
        database.execute(statement)


def _refer_to_findings(database: Database) -> None:
    """Events refer to the findings of their fact, until it gets those of another attempt.

    An erase, which only blanks some of the text, is none.
    """
    findings = ("model_version", "learning_rates", "probability_before", "probability_after")
    other = " OR ".join(
        f"json_extract(NEW.learning, '$.{name}') IS NOT json_extract(OLD.learning, '$.{name}')"
        for name in findings
    )
    database.execute(f"""CREATE TRIGGER keep_findings BEFORE UPDATE OF learning ON facts
WHEN NEW.learning <> OLD.learning AND ({other}) BEGIN
  UPDATE events SET learning = OLD.learning WHERE fact_id = OLD.id AND learning = 'null';
END""")


def _begin_branches_anywhere(database: Database) -> None:
    """A branch can begin between two reviews; and the rows of branches are found by version."""
    for statement in (
        # Reviews from this id on are repeated on the branch, though their place comes before its
        # first position; 0 if there are none.
        "ALTER TABLE operations ADD COLUMN first_review INTEGER NOT NULL DEFAULT 0",
        # The version that the branch grew from.
        "ALTER TABLE operations ADD COLUMN base_version INTEGER",
        "CREATE INDEX reviewed_again_by_version ON reviewed_again (model_version)",
        "CREATE INDEX updates_drifted ON updates (model_version) WHERE kind = 'drift'",
    ):
        database.execute(statement)


def _switch_in_steps(database: Database) -> None:
    """What facts will be after a rollback, written down before the head moves."""
    for statement in (
        """CREATE TABLE restated (
  operation_id INTEGER NOT NULL REFERENCES operations (id),
  position INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (operation_id, position)
) STRICT, WITHOUT ROWID""",
        "CREATE INDEX reviewed_again_retaught ON reviewed_again (review_id)"
        " WHERE outcome = 'retaught'",
    ):
        database.execute(statement)


def _find_superseded(database: Database) -> None:
    """What a fact had superseded counts again when it is forgotten; few are superseded."""
    database.execute(
        "CREATE INDEX facts_superseded ON facts (superseded_by, question_key)"
        " WHERE superseded_by <> ''"
    )


_IN_ORDER: tuple[tuple[str, Callable[[Database], None]], ...] = (
    ("0001_first_tables", _create_first_tables),
    ("0002_branches_quarantine", _let_branches_quarantine),
    ("0003_policies_of_attempts", _record_policies),
    ("0004_reviews_on_a_schedule", _review_on_a_schedule),
    ("0005_samples_of_probes", _count_samples),
    ("0006_first_answers", _keep_first_answers),
    ("0007_traces", _keep_traces),
    ("0008_replaced", _keep_replaced),
    ("0009_reviews_by_age", _count_reviews_by_age),
    ("0010_operations_at_scale", _scale_operations),
    ("0011_findings_by_reference", _refer_to_findings),
    ("0012_branches_anywhere", _begin_branches_anywhere),
    ("0013_switch_in_steps", _switch_in_steps),
    ("0014_superseded", _find_superseded),
)
_MIGRATIONS = Migrations("continual.memory_store")
for _name, _function in _IN_ORDER:
    _MIGRATIONS(name=_name)(_function)


def lacking_migrations(connection: Connection) -> list[str]:
    """Names of this code's migrations that a database has not had yet, in order."""
    return [migration.name for migration in _MIGRATIONS.pending(connection.database)]


def foreign_migrations(connection: Connection) -> list[str]:
    """Names of migrations that a database had of a newer release."""
    applied = {migration.name for migration in _MIGRATIONS.applied(connection.database)}
    return sorted(applied - {name for name, _ in _IN_ORDER})


def prepare(connection: Connection) -> None:
    """Brings the database up to this code's schema; a read-only one is only checked.

    An existing database is copied first; see `memory_store.schema_copies`.

    Raises:
        StoreUnusableError: the schema is newer than this code; or it is another program's
            database; or it is older than this code and the connection is read-only; or it is
            damaged; or there is no room for the copy.
    """
    database = connection.database
    if not connection.read_only:
        with in_our_words(connection.path):
            lacking = lacking_migrations(connection)
            existing = len(lacking) < len(_IN_ORDER)
            if lacking and existing and not foreign_migrations(connection):
                schema_copies.keep_copy(connection, before=lacking[0])
    # sqlite-utils runs its own statements, past `Connection.execute`.
    with in_our_words(connection.path), connection.transaction():
        applied = {migration.name for migration in _MIGRATIONS.applied(database)}
        if newer := foreign_migrations(connection):
            raise StoreUnusableError(
                f"The database {connection.path} was made by a newer release (its schema has "
                f"{', '.join(newer)}). Upgrade this program, or use another data folder."
            )
        if not applied and database.table_names():
            raise StoreUnusableError(
                f"{connection.path} is a database of another program. Use another data folder."
            )
        pending = lacking_migrations(connection)
        if pending and connection.read_only:
            raise StoreUnusableError(
                f"The database {connection.path} is from an older release (it lacks "
                f"{', '.join(pending)}). Start the server once: it brings it up to date."
            )
        if pending:
            # Inside our transaction, each migration is a savepoint: all of them, or none.
            _MIGRATIONS.apply(database)
