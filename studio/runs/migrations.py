"""The schema of a workspace's database, as a list of small numbered steps.

Step *n* brings a database at version *n* (SQLite's ``user_version``) to version *n + 1*. Steps are
only ever appended: a workspace made by an older Studio opens in a newer one.
"""

STEPS: list[str] = [
    # 1: runs, their event log, and every model's score on a task's split
    """
    CREATE TABLE runs (
        id       TEXT PRIMARY KEY,
        name     TEXT NOT NULL,
        recipe   TEXT NOT NULL,             -- YAML, every default written out
        created  REAL NOT NULL,             -- seconds since the epoch, UTC
        status   TEXT NOT NULL,             -- queued | running | stopped | finished | failed
        stop     INTEGER NOT NULL DEFAULT 0,-- somebody asked it to stop
        message  TEXT NOT NULL DEFAULT '',  -- why it failed, in a sentence
        version  INTEGER NOT NULL DEFAULT 0,-- grows with every write, for those who poll
        seconds  REAL NOT NULL DEFAULT 0    -- worked so far, over all sessions
    );
    CREATE TABLE events (                   -- the truth: what was asked and told, in order
        run      TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
        seq      INTEGER NOT NULL,
        at       REAL NOT NULL,
        kind     TEXT NOT NULL,             -- session|inputs|phase|start|ask|tell|front|
                                            -- favorite|winner|halving|batch|enough
        payload  TEXT NOT NULL,             -- JSON; floats as float.hex, so exact
        PRIMARY KEY (run, seq)
    ) WITHOUT ROWID;
    CREATE TABLE candidates (
        run        TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
        id         INTEGER NOT NULL,
        stage      TEXT NOT NULL,           -- cma | random
        generation INTEGER NOT NULL,
        genome     BLOB NOT NULL,           -- little-endian float64
        PRIMARY KEY (run, id)
    ) WITHOUT ROWID;
    CREATE TABLE evaluations (
        run      TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
        subject  TEXT NOT NULL,             -- 'candidate:12' | 'model:bonsai-ja'
        task     TEXT NOT NULL,
        split    TEXT NOT NULL,             -- dev | selection | test
        at       REAL NOT NULL,
        score    REAL NOT NULL,             -- mean over the examples
        examples INTEGER NOT NULL,
        tokens   INTEGER NOT NULL,          -- generated
        seconds  REAL NOT NULL,
        broken   TEXT NOT NULL DEFAULT '',  -- why a broken candidate scored 0
        outcomes BLOB NOT NULL,             -- zlib of JSON, one list per Outcome
        PRIMARY KEY (run, subject, task, split)
    );
    """,
    # 2: whose a run is, who may read it, and where it stands in the queue
    """
    ALTER TABLE runs ADD COLUMN owner TEXT NOT NULL DEFAULT '';  -- '': nobody's, so everybody's
    ALTER TABLE runs ADD COLUMN share TEXT;    -- the token of its read-only link, once there is one
    ALTER TABLE runs ADD COLUMN queued REAL;   -- when it was put in the queue, if it ever was
    ALTER TABLE runs ADD COLUMN expected REAL; -- seconds that it was estimated to take
    CREATE UNIQUE INDEX runs_by_share ON runs (share);
    """,
    # 3: where a run is worked on, which no copy of it takes along
    """
    CREATE TABLE places (
        run      TEXT PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
        place    TEXT NOT NULL              -- JSON of studio.evolve.placing.Place
    );
    """,
]
