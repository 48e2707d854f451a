-- PostgreSQL 13 or newer.

-- name: tables
-- What lives for seconds is UNLOGGED: no write waits for the disk, and a crash of the server (not a
-- restart) empties it, which gateways notice by their missing leases. Delayed messages and dead
-- letters survive. Names are compared byte by byte. Vacuum comes early, as rows come and go.
CREATE UNLOGGED TABLE channels_database_message (
    id bigserial NOT NULL,
    queue varchar(200) COLLATE "C" NOT NULL,
    channel varchar(100) COLLATE "C" NOT NULL,
    body text NOT NULL,
    expires double precision NOT NULL,
    losses smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE UNLOGGED TABLE channels_database_held (
    slot varchar(200) COLLATE "C" NOT NULL PRIMARY KEY,
    process varchar(200) COLLATE "C" NOT NULL,
    id bigint NOT NULL,
    queue varchar(200) COLLATE "C" NOT NULL,
    channel varchar(100) COLLATE "C" NOT NULL,
    body text NOT NULL,
    losses smallint NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX channels_database_held_process ON channels_database_held (process);
CREATE UNLOGGED TABLE channels_database_process (
    name varchar(200) COLLATE "C" NOT NULL PRIMARY KEY,
    expires double precision NOT NULL
);
CREATE UNLOGGED TABLE channels_database_farewell (
    channel varchar(200) COLLATE "C" NOT NULL PRIMARY KEY,
    gateway varchar(200) COLLATE "C" NOT NULL,
    queue varchar(200) COLLATE "C" NOT NULL,
    body text NOT NULL
);
CREATE INDEX channels_database_farewell_gateway ON channels_database_farewell (gateway);
CREATE UNLOGGED TABLE channels_database_group (
    grp varchar(200) COLLATE "C" NOT NULL,
    gateway varchar(200) COLLATE "C" NOT NULL,
    channel varchar(100) COLLATE "C" NOT NULL,
    PRIMARY KEY (grp, gateway, channel)
);
CREATE INDEX channels_database_group_gateway ON channels_database_group (gateway);
CREATE TABLE channels_database_delayed (
    id bigserial NOT NULL PRIMARY KEY,
    queue varchar(200) COLLATE "C" NOT NULL,
    channel varchar(100) COLLATE "C" NOT NULL,
    body text NOT NULL,
    due double precision NOT NULL
);
CREATE INDEX channels_database_delayed_due ON channels_database_delayed (due);
CREATE TABLE channels_database_dead (
    id bigserial NOT NULL PRIMARY KEY,
    queue varchar(200) COLLATE "C" NOT NULL,
    channel varchar(100) COLLATE "C" NOT NULL,
    body text NOT NULL,
    losses smallint NOT NULL,
    reason varchar(200) NOT NULL,
    died double precision NOT NULL
);

-- name: take
-- The next message of the wanted queues, looked at in the order given: found, locked past what others
-- have locked, and deleted, in one statement. Of LATERAL no more is run than LIMIT asks for, so one row
-- is locked. A row's floor spares the index entries of what is gone, which an open transaction
-- elsewhere keeps from being cleared. A wanted channel other than '' is one name of a shared queue.
WITH next AS MATERIALIZED (
    SELECT found.queue, found.id
    FROM unnest(:queues::text[], :channels::text[], :floors::bigint[]) AS wanted (queue, channel, floor),
    LATERAL (
        SELECT m.queue, m.id FROM channels_database_message AS m
        WHERE m.queue = wanted.queue AND m.id > wanted.floor AND m.expires > {now}
        AND (wanted.channel = '' OR m.channel = wanted.channel)
        ORDER BY m.id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS found
    LIMIT 1
)
DELETE FROM channels_database_message AS m USING next
WHERE m.queue = next.queue AND m.id = next.id
RETURNING m.id, m.queue, m.channel, m.body, m.losses;

-- name: claim
-- "take", and the message becomes the slot's, in place of what the slot held.
WITH next AS MATERIALIZED (
    SELECT found.queue, found.id
    FROM unnest(:queues::text[], :channels::text[], :floors::bigint[]) AS wanted (queue, channel, floor),
    LATERAL (
        SELECT m.queue, m.id FROM channels_database_message AS m
        WHERE m.queue = wanted.queue AND m.id > wanted.floor AND m.expires > {now}
        AND (wanted.channel = '' OR m.channel = wanted.channel)
        ORDER BY m.id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS found
    LIMIT 1
), taken AS (
    DELETE FROM channels_database_message AS m USING next
    WHERE m.queue = next.queue AND m.id = next.id
    RETURNING m.id, m.queue, m.channel, m.body, m.losses
)
INSERT INTO channels_database_held AS h (slot, process, id, queue, channel, body, losses)
SELECT :slot, :process, id, queue, channel, body, losses FROM taken
ON CONFLICT (slot) DO UPDATE SET process = excluded.process, id = excluded.id,
    queue = excluded.queue, channel = excluded.channel, body = excluded.body, losses = excluded.losses
RETURNING h.id, h.queue, h.channel, h.body, h.losses;

-- name: drain
-- Up to :limit messages of one gateway's inbox.
WITH next AS MATERIALIZED (
    SELECT id FROM channels_database_message
    WHERE queue = :queue AND id > :floor AND expires > {now}
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM channels_database_message AS m USING next
WHERE m.queue = :queue AND m.id = next.id
RETURNING m.id, m.channel, m.body;

-- name: insert_and_notify
-- "insert", and those who listen are told with the commit. {rows} are the rows.
WITH sent AS (
    INSERT INTO channels_database_message (queue, channel, body, expires) VALUES {rows} RETURNING id
)
SELECT pg_notify(topic, '') FROM unnest(:topics::text[]) AS topics (topic);

-- name: notify
-- The text of a notification is empty, so that PostgreSQL folds those of one transaction into one.
SELECT pg_notify(topic, '') FROM unnest(:topics::text[]) AS topics (topic);

-- name: lost
SELECT name FROM channels_database_process
WHERE expires < {now} AND name >= :low AND name < :high LIMIT 10 FOR UPDATE SKIP LOCKED;

-- name: due
SELECT id, queue, channel, body FROM channels_database_delayed
WHERE due <= {now} AND queue >= :low AND queue < :high
ORDER BY due, id LIMIT 100 FOR UPDATE SKIP LOCKED;

-- name: dead_one
SELECT id, queue, channel, body FROM channels_database_dead
WHERE id = :id AND queue >= :low AND queue < :high FOR UPDATE SKIP LOCKED;

-- name: register
INSERT INTO channels_database_process (name, expires) VALUES (:name, {now} + :lease)
ON CONFLICT (name) DO UPDATE SET expires = excluded.expires;

-- name: group_add
INSERT INTO channels_database_group (grp, gateway, channel) VALUES (:grp, :gateway, :channel)
ON CONFLICT DO NOTHING;

-- name: sweep
DELETE FROM channels_database_message WHERE (queue, id) IN (
    SELECT queue, id FROM channels_database_message
    WHERE expires <= {now} AND queue >= :low AND queue < :high FOR UPDATE SKIP LOCKED);

-- name: version
-- "130004" for 13.4.
SHOW server_version_num;
