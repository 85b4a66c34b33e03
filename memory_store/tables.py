"""The tables of a new database, and the conditions of its partial indexes.

What keeps every frequent query independent of the number of facts:

- counts: one row a state in `state_counts`, kept by triggers;
- claims and lists by state: `facts_by_state` ends in the position, so its first rows are read;
- the newest live fact of a question: `facts_live_by_question` holds live facts only;
- companions: `facts_sampled` holds held facts only, in the order of a hash;
- the next review: `facts_due_by_updates` and `facts_due_by_time` begin with it;
- everything else reads a range of a primary key.

A change of this script needs a migration in `memory_store.schema` too, once it was released.
"""

from __future__ import annotations

# Written out in the queries too: SQLite uses a partial index only where it sees the same term.
LIVE = "state IN ('queued', 'learning', 'learned', 'known')"
SAMPLED = "state IN ('learned', 'known')"
SERVED = "kind <> 'relearn'"
FORK = "parent_version <> model_version - 1"
# Phases of operations (see `Operation.phase`): not over; requested or building; switched.
OPEN = "operations.state IN ('pending', 'running')"
NOT_SERVED = f"{OPEN} AND operations.proof IS NULL"
SWITCHED = f"{OPEN} AND operations.proof IS NOT NULL"

SCRIPT = """
-- Settings and bindings of the memory.
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Facts are never deleted. policy: what the fact brought; tried_policy: of the last attempt.
-- sample_key: its place on the circle of companions. held_since, times_held, due_*: its reviews.
CREATE TABLE facts (
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
  sample_key INTEGER NOT NULL CHECK (sample_key >= 0),
  tried_policy TEXT,
  times_held INTEGER NOT NULL DEFAULT 0,
  held_since INTEGER,
  due_depth INTEGER,
  due_at TEXT
) STRICT;

CREATE INDEX facts_by_state ON facts (state, position);

CREATE INDEX facts_by_question ON facts (question_key, position);

-- The newest live fact of a question: ten thousand superseded answers cost nothing.
CREATE INDEX facts_live_by_question ON facts (question_key, position)
  WHERE state IN ('queued', 'learning', 'learned', 'known');

-- Companions, in the order of a hash.
CREATE INDEX facts_sampled ON facts (sample_key, id, question_key)
  WHERE state IN ('learned', 'known');

-- Facts in each state, kept by triggers, so that nothing is ever counted.
CREATE TABLE state_counts (
  state TEXT PRIMARY KEY,
  count INTEGER NOT NULL CHECK (count >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER count_new_fact AFTER INSERT ON facts BEGIN
  UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END;

CREATE TRIGGER count_changed_fact AFTER UPDATE OF state ON facts BEGIN
  UPDATE state_counts SET count = count - 1 WHERE state = OLD.state;
  UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END;

CREATE TRIGGER keep_facts BEFORE DELETE ON facts BEGIN
  SELECT RAISE(ABORT, 'facts are never deleted');
END;

-- Requests and their first answers: a repeated request gets the same answer again.
CREATE TABLE requests (
  request_id TEXT PRIMARY KEY,
  payload_hash TEXT NOT NULL,
  fact_id TEXT NOT NULL REFERENCES facts (id),
  created_at TEXT NOT NULL,
  created INTEGER NOT NULL DEFAULT 1 CHECK (created IN (0, 1)),
  event_sequence INTEGER NOT NULL DEFAULT 0,
  replaces TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

-- The ledger. It only grows, without gaps. depth: number of updates on the lineage of the row.
CREATE TABLE updates (
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
  applied_at TEXT NOT NULL,
  depth INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX updates_by_fact ON updates (fact_id, model_version);

-- A branch that is being built is not served: the head is the newest row off it.
CREATE INDEX updates_served ON updates (model_version) WHERE kind <> 'relearn';

CREATE TRIGGER ledger_has_no_gaps BEFORE INSERT ON updates
WHEN NEW.model_version <> (SELECT coalesce(max(model_version), 0) + 1 FROM updates) BEGIN
  SELECT RAISE(ABORT, 'the ledger grows by one row at its end');
END;

CREATE TRIGGER ledger_is_never_cut BEFORE DELETE ON updates BEGIN
  SELECT RAISE(ABORT, 'rows of the ledger are never deleted');
END;

-- Questions put to the model, and its answers.
CREATE TABLE probes (
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
  probed_at TEXT NOT NULL,
  samples INTEGER NOT NULL DEFAULT 0,
  correct_samples INTEGER NOT NULL DEFAULT 0 CHECK (correct_samples BETWEEN 0 AND samples)
) STRICT;

CREATE INDEX probes_by_fact ON probes (fact_id, id);

-- Events for watchers. learning 'null' refers to the findings of the fact.
CREATE TABLE events (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  fact_id TEXT NOT NULL DEFAULT '',
  model_version INTEGER NOT NULL,
  message TEXT NOT NULL DEFAULT '',
  learning TEXT,
  at TEXT NOT NULL
) STRICT;

CREATE INDEX events_by_fact ON events (fact_id, sequence);

-- Forget and rollback. cancelled: a failed operation that somebody gave up.
-- after_event: the last event before the request. first_position, first_review: what is repeated
-- on the branch. base_version: where it grew from.
CREATE TABLE operations (
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
  finished_at TEXT,
  cancelled INTEGER NOT NULL DEFAULT 0 CHECK (cancelled IN (0, 1)),
  after_event INTEGER NOT NULL DEFAULT 0,
  first_position INTEGER,
  never_saw REAL,
  done INTEGER NOT NULL DEFAULT 0,
  total INTEGER NOT NULL DEFAULT 0,
  first_review INTEGER NOT NULL DEFAULT 0,
  base_version INTEGER
) STRICT;

CREATE INDEX operations_open ON operations (id) WHERE state IN ('pending', 'running');

CREATE INDEX operations_by_fact ON operations (fact_id, id);

-- Backups and exports outside the data folder.
CREATE TABLE places (
  kind TEXT NOT NULL CHECK (kind IN ('backup', 'export')),
  path TEXT NOT NULL,
  model_version INTEGER NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (kind, path)
) STRICT, WITHOUT ROWID;

-- What became of each fact on a branch. There are no findings where learning it failed.
CREATE TABLE relearned (
  operation_id INTEGER NOT NULL REFERENCES operations (id),
  position INTEGER NOT NULL REFERENCES facts (position),
  verdict TEXT NOT NULL CHECK (verdict IN ('learned', 'known', 'resisted', 'quarantined')),
  reason TEXT NOT NULL,
  learning TEXT CHECK (learning IS NOT NULL OR verdict = 'quarantined'),
  model_version INTEGER NOT NULL,
  PRIMARY KEY (operation_id, position)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_is_never_changed BEFORE UPDATE ON updates BEGIN
  SELECT RAISE(ABORT, 'rows of the ledger are never changed');
END;

-- The next fact to be reviewed is the first entry of one of these two.
CREATE INDEX facts_due_by_updates ON facts (due_depth, position)
  WHERE state IN ('learned', 'known');

CREATE INDEX facts_due_by_time ON facts (due_at, position) WHERE state IN ('learned', 'known');

-- Reviews of held facts, each with its place in the history. policy: '@' and an id is as there.
CREATE TABLE reviews (
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
  reviewed_at TEXT NOT NULL,
  policy TEXT
) STRICT;

CREATE INDEX reviews_by_fact ON reviews (fact_id, id);

CREATE INDEX reviews_by_place ON reviews (after_position, id);

CREATE INDEX reviews_retaught ON reviews (retaught_version) WHERE outcome = 'retaught';

-- Reviews that were repeated on a branch.
CREATE TABLE reviewed_again (
  operation_id INTEGER NOT NULL REFERENCES operations (id),
  review_id INTEGER NOT NULL REFERENCES reviews (id),
  outcome TEXT NOT NULL
    CHECK (outcome IN ('held', 'retaught', 'resisted', 'failed', 'skipped')),
  reason TEXT NOT NULL DEFAULT '',
  learning TEXT CHECK (learning IS NOT NULL OR outcome <> 'retaught'),
  model_version INTEGER NOT NULL,
  PRIMARY KEY (operation_id, review_id)
) STRICT, WITHOUT ROWID;

-- The trace that a fact was taught in; only where tracing is on.
CREATE TABLE traces (
  position INTEGER PRIMARY KEY REFERENCES facts (position),
  traceparent TEXT NOT NULL
) STRICT;

-- Retention by age is read from this index alone, in its order.
CREATE INDEX reviews_by_age ON reviews (age, outcome, probability)
  WHERE probability IS NOT NULL;

-- Where a line does not continue from the row before it: few rows, so a line is read as ranges.
CREATE INDEX updates_forks ON updates (model_version, parent_version)
  WHERE parent_version <> model_version - 1;

-- Before a fact gets the findings of another attempt, events that refer to the old ones get a
-- copy. An erase, which only blanks text, is not another attempt.
CREATE TRIGGER keep_findings BEFORE UPDATE OF learning ON facts
WHEN NEW.learning <> OLD.learning AND (
  json_extract(NEW.learning, '$.model_version')
    IS NOT json_extract(OLD.learning, '$.model_version')
  OR json_extract(NEW.learning, '$.learning_rates')
    IS NOT json_extract(OLD.learning, '$.learning_rates')
  OR json_extract(NEW.learning, '$.probability_before')
    IS NOT json_extract(OLD.learning, '$.probability_before')
  OR json_extract(NEW.learning, '$.probability_after')
    IS NOT json_extract(OLD.learning, '$.probability_after')
) BEGIN
  UPDATE events SET learning = OLD.learning WHERE fact_id = OLD.id AND learning = 'null';
END;

CREATE INDEX reviewed_again_by_version ON reviewed_again (model_version);

CREATE INDEX updates_drifted ON updates (model_version) WHERE kind = 'drift';

-- The states of facts after a rollback, written before the head moves.
CREATE TABLE restated (
  operation_id INTEGER NOT NULL REFERENCES operations (id),
  position INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (operation_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX reviewed_again_retaught ON reviewed_again (review_id) WHERE outcome = 'retaught';

-- What a fact had superseded counts again when that fact is forgotten.
CREATE INDEX facts_superseded ON facts (superseded_by, question_key) WHERE superseded_by <> '';
"""


def statements() -> list[str]:
    """The statements of the script, one for each table, index and trigger."""
    return SCRIPT.strip().split("\n\n")
