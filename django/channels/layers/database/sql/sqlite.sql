-- SQLite 3.35 or newer. Everything that writes runs between BEGIN IMMEDIATE and COMMIT.

-- name: tables
-- Messages lie in the order in which they are taken, in one tree: to put one in or to take one out is to
-- write one page. (With an index and AUTOINCREMENT it was three, and two.)
CREATE TABLE IF NOT EXISTS channels_database_message (
    queue text NOT NULL,
    id integer NOT NULL,
    channel text NOT NULL,
    body text NOT NULL,
    expires real NOT NULL,
    losses integer NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels_database_claim (
    consumer text NOT NULL PRIMARY KEY,
    process text NOT NULL,
    id integer NOT NULL,
    queue text NOT NULL,
    channel text NOT NULL,
    body text NOT NULL,
    losses integer NOT NULL,
    turn integer NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels_database_sent (
    id text NOT NULL PRIMARY KEY,
    attempt integer NOT NULL,
    expires real NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels_database_process (
    name text NOT NULL PRIMARY KEY,
    expires real NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels_database_will (
    channel text NOT NULL PRIMARY KEY,
    gateway text NOT NULL,
    queue text NOT NULL,
    body text NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS channels_database_will_gateway ON channels_database_will (gateway);
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
CREATE TABLE IF NOT EXISTS channels_database_counter (
    name text NOT NULL PRIMARY KEY,
    value integer NOT NULL
) WITHOUT ROWID;

-- name: insert_one
-- Put a message at the end of its queue. Its number is the time in microseconds, so that no message that was
-- taken, and may be put back under its own, had the same; and greater than the last one's, whatever the
-- clock does. A damaged row may have a number that leaves none above it.
INSERT INTO channels_database_message (queue, id, channel, body, expires)
VALUES (
    :queue,
    max(CAST({now} * 1000000 AS integer),
        coalesce((SELECT max(id) + 1 FROM channels_database_message WHERE queue = :queue
            AND id < 9000000000000000000), 0)),
    :channel, :body, {now} + :expiry);

-- name: add_dead
-- SQLite's own next number is refused after a damaged row that leaves none above it.
INSERT INTO channels_database_dead (id, queue, channel, body, losses, reason, died)
VALUES (
    1 + coalesce(
        (SELECT seq FROM sqlite_sequence
            WHERE name = 'channels_database_dead' AND seq < 9000000000000000000),
        (SELECT max(id) FROM channels_database_dead WHERE id < 9000000000000000000), 0),
    :queue, :channel, :body, :losses, :reason, {now});

-- name: requeue
-- Put a message back under the number it had. If the clock was set back and another message has that
-- number now, it goes to the head of the queue.
INSERT INTO channels_database_message (queue, id, channel, body, expires, losses)
VALUES (
    :queue,
    (SELECT CASE WHEN count(CASE id WHEN :id THEN 1 END) THEN min(id) - 1 ELSE :id END
     FROM channels_database_message WHERE queue = :queue AND id <= :id),
    :channel, :body, {now} + :expiry, :losses);

-- name: take
-- The next message of one queue. A wanted channel other than '' is one name of a shared queue.
DELETE FROM channels_database_message WHERE queue = :queue AND id = (
    SELECT id FROM channels_database_message
    WHERE queue = :queue AND expires > {now} AND (:channel = '' OR channel = :channel)
    ORDER BY id LIMIT 1)
RETURNING id, queue, channel, body, losses;

-- name: register
REPLACE INTO channels_database_process (name, expires) VALUES (:name, {now} + :lease);

-- name: group_add
INSERT INTO channels_database_group (grp, gateway, channel) VALUES (:grp, :gateway, :channel)
ON CONFLICT DO NOTHING;
