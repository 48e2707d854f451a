-- SQLite 3.35 or newer. Everything that writes runs between BEGIN IMMEDIATE and COMMIT.

-- name: tables
-- AUTOINCREMENT: a number is used once, so that a message can be put back under its own.
CREATE TABLE IF NOT EXISTS channels_database_message (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    queue text NOT NULL,
    channel text NOT NULL,
    body text NOT NULL,
    expires real NOT NULL,
    losses integer NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS channels_database_message_queue ON channels_database_message (queue, id);
CREATE TABLE IF NOT EXISTS channels_database_held (
    slot text NOT NULL PRIMARY KEY,
    process text NOT NULL,
    id integer NOT NULL,
    queue text NOT NULL,
    channel text NOT NULL,
    body text NOT NULL,
    losses integer NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels_database_process (
    name text NOT NULL PRIMARY KEY,
    expires real NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels_database_farewell (
    channel text NOT NULL PRIMARY KEY,
    gateway text NOT NULL,
    queue text NOT NULL,
    body text NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS channels_database_farewell_gateway ON channels_database_farewell (gateway);
CREATE TABLE IF NOT EXISTS channels_database_group (
    grp text NOT NULL,
    gateway text NOT NULL,
    channel text NOT NULL,
    PRIMARY KEY (grp, gateway, channel)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS channels_database_group_gateway ON channels_database_group (gateway);
CREATE TABLE IF NOT EXISTS channels_database_delayed (
    id integer NOT NULL PRIMARY KEY,
    queue text NOT NULL,
    channel text NOT NULL,
    body text NOT NULL,
    due real NOT NULL
);
CREATE INDEX IF NOT EXISTS channels_database_delayed_due ON channels_database_delayed (due);
CREATE TABLE IF NOT EXISTS channels_database_dead (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    queue text NOT NULL,
    channel text NOT NULL,
    body text NOT NULL,
    losses integer NOT NULL,
    reason text NOT NULL,
    died real NOT NULL
);

-- name: take
-- The next message of one queue. A wanted channel other than '' is one name of a shared queue.
DELETE FROM channels_database_message WHERE id = (
    SELECT id FROM channels_database_message
    WHERE queue = :queue AND expires > {now} AND (:channel = '' OR channel = :channel)
    ORDER BY id LIMIT 1)
RETURNING id, queue, channel, body, losses;

-- name: hold
-- What was taken becomes the slot's, in place of what the slot held.
REPLACE INTO channels_database_held (slot, process, id, queue, channel, body, losses)
VALUES (:slot, :process, :id, :queue, :channel, :body, :losses);

-- name: drain
-- Up to :limit messages of one gateway's inbox.
DELETE FROM channels_database_message WHERE id IN (
    SELECT id FROM channels_database_message
    WHERE queue = :queue AND expires > {now} ORDER BY id LIMIT :limit)
RETURNING id, channel, body;

-- name: register
REPLACE INTO channels_database_process (name, expires) VALUES (:name, {now} + :lease);

-- name: group_add
INSERT INTO channels_database_group (grp, gateway, channel) VALUES (:grp, :gateway, :channel)
ON CONFLICT DO NOTHING;
