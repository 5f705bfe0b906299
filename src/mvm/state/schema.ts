/**
 * @module mvm/state/schema
 *
 * The tables of the state database. A schema change is a new element of {@link MIGRATIONS}; elements already
 * released are never edited. `user_version` counts the elements applied.
 */

/** "MVM1": tells our file from any other program's. */
export const APPLICATION_ID = 0x4d564d31

export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE vm (
    uuid            TEXT PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE,
    kind            TEXT NOT NULL,
    config          TEXT NOT NULL,
    attestation_key BLOB NOT NULL,
    identity_key    BLOB NOT NULL,
    sealing_key     BLOB NOT NULL,
    names           TEXT NOT NULL,
    auths           BLOB NOT NULL,
    tags            TEXT NOT NULL,
    created_ms      INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE tombstone (
    uuid       TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    removed_ms INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE clock (
    uuid          TEXT PRIMARY KEY REFERENCES vm (uuid) ON DELETE CASCADE,
    reset_count   INTEGER NOT NULL,
    restart_count INTEGER NOT NULL,
    clock         INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE trust (
    uuid     TEXT PRIMARY KEY REFERENCES vm (uuid) ON DELETE CASCADE,
    verdict  TEXT NOT NULL,
    boot_id  TEXT NOT NULL,
    reason   TEXT NOT NULL,
    details  TEXT NOT NULL,
    since_ms INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE launch (
    id      INTEGER PRIMARY KEY,
    uuid    TEXT NOT NULL REFERENCES vm (uuid) ON DELETE CASCADE,
    digests TEXT NOT NULL,
    time_ms INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX launch_of_vm ON launch (uuid, id);

  CREATE TABLE reference (
    scope    TEXT NOT NULL,
    path     TEXT NOT NULL,
    digest   BLOB NOT NULL,
    source   TEXT NOT NULL,
    reason   TEXT NOT NULL,
    required INTEGER NOT NULL,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, path, digest)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE reference_pcr (
    scope    TEXT NOT NULL,
    pcr      INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    source   TEXT NOT NULL,
    reason   TEXT NOT NULL,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, pcr, digest)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE audit (
    sequence  INTEGER PRIMARY KEY,
    time_ms   INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL,
    hash      BLOB NOT NULL,
    signature BLOB NOT NULL
  ) STRICT;
  `,
  `
  CREATE TABLE reference_exclude (
    scope    TEXT NOT NULL,
    glob     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, glob)
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE channel (
    key  TEXT PRIMARY KEY,
    body TEXT NOT NULL
  ) STRICT;
  `,
  `
  CREATE TABLE deposit (
    key        TEXT PRIMARY KEY,
    source     TEXT NOT NULL,
    target     TEXT NOT NULL,
    service    TEXT NOT NULL,
    state      TEXT NOT NULL,
    memory     TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    sealed_key BLOB NOT NULL,
    statement  BLOB NOT NULL,
    signature  BLOB NOT NULL
  ) STRICT;
  CREATE INDEX deposit_of_target ON deposit (target, created_ms);
  CREATE INDEX deposit_of_source ON deposit (source);
  `,
]
