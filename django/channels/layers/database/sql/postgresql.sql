-- PostgreSQL 13 or newer.

-- name: tables
-- What lives for seconds is UNLOGGED: no write waits for the disk, and a crash of the server (not a
-- restart) empties it, which gateways notice by their missing leases. Delayed messages, dead
-- letters and counters survive. Names are compared byte by byte. Vacuum comes early, as rows come and go.
CREATE UNLOGGED TABLE channels_database_message (
    id bigserial NOT NULL,
    queue varchar(200) COLLATE "C" NOT NULL,
    channel varchar(100) COLLATE "C" NOT NULL,
    body text NOT NULL,
    expires double precision NOT NULL,
    losses smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE UNLOGGED TABLE channels_database_claim (
    consumer varchar(200) COLLATE "C" NOT NULL PRIMARY KEY,
    process varchar(200) COLLATE "C" NOT NULL,
    id bigint NOT NULL,
    queue varchar(200) COLLATE "C" NOT NULL,
    channel varchar(100) COLLATE "C" NOT NULL,
    body text NOT NULL,
    losses smallint NOT NULL,
    turn bigint NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE UNLOGGED TABLE channels_database_sent (
    id varchar(250) COLLATE "C" NOT NULL PRIMARY KEY,
    attempt bigint NOT NULL,
    expires double precision NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX channels_database_claim_process ON channels_database_claim (process);
CREATE UNLOGGED TABLE channels_database_process (
    name varchar(200) COLLATE "C" NOT NULL PRIMARY KEY,
    expires double precision NOT NULL
);
CREATE UNLOGGED TABLE channels_database_will (
    channel varchar(200) COLLATE "C" NOT NULL PRIMARY KEY,
    gateway varchar(200) COLLATE "C" NOT NULL,
    queue varchar(200) COLLATE "C" NOT NULL,
    body text NOT NULL
);
CREATE INDEX channels_database_will_gateway ON channels_database_will (gateway);
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
CREATE TABLE channels_database_counter (
    name varchar(200) COLLATE "C" NOT NULL PRIMARY KEY,
    value bigint NOT NULL
) WITH (fillfactor = 20);

-- name: function_take
-- The next message of the wanted queues, looked at in the order given: found past what others have
-- locked, and deleted. With a consumer, it becomes the claim of the consumer, in place of one with an
-- earlier turn; if there is a later one, this call arrived late, and does nothing. A floor spares
-- the index entries of what is gone, which an open transaction elsewhere keeps from being cleared. A
-- name other than '' is one name of a queue that names share. All null: there is nothing. A
-- function, since its plans are made once a session; and always on the index, as what the tables hold
-- changes faster than the planner's statistics.
CREATE FUNCTION channels_database_take(
    queues text[], names text[], floors bigint[], new_consumer text, new_process text, new_turn bigint,
    OUT found_id bigint, OUT found_queue text, OUT found_channel text, OUT found_body text,
    OUT found_losses smallint
) LANGUAGE plpgsql SET enable_seqscan TO off SET enable_bitmapscan TO off AS $$
BEGIN
    FOR i IN 1 .. cardinality(queues) LOOP
        SELECT m.id INTO found_id FROM channels_database_message AS m
        WHERE m.queue = queues[i] AND m.id > floors[i] AND m.expires > {now}
        AND (names[i] = '' OR m.channel = names[i])
        ORDER BY m.id LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF found_id IS NOT NULL THEN
            DELETE FROM channels_database_message AS m
            WHERE m.queue = queues[i] AND m.id = found_id
            RETURNING m.queue, m.channel, m.body, m.losses
            INTO found_queue, found_channel, found_body, found_losses;
            IF new_consumer <> '' THEN
                INSERT INTO channels_database_claim AS h
                    (consumer, process, id, queue, channel, body, losses, turn)
                VALUES (new_consumer, new_process, found_id, found_queue, found_channel, found_body,
                    found_losses, new_turn)
                ON CONFLICT (consumer) DO UPDATE SET process = excluded.process, id = excluded.id,
                    queue = excluded.queue, channel = excluded.channel, body = excluded.body,
                    losses = excluded.losses, turn = excluded.turn
                WHERE h.turn < excluded.turn;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'this claim arrived late' USING ERRCODE = 'connection_exception';
                END IF;
            END IF;
            RETURN;
        END IF;
    END LOOP;
END
$$;

-- name: function_inbox
-- Remove messages of one gateway's inbox by their numbers, and return the first of the others, in order.
CREATE FUNCTION channels_database_inbox(inbox text, floor bigint, most integer, acked bigint[])
RETURNS TABLE (found_id bigint, found_channel text, found_body text)
LANGUAGE plpgsql SET enable_seqscan TO off SET enable_bitmapscan TO off AS $$
BEGIN
    IF cardinality(acked) > 0 THEN
        DELETE FROM channels_database_message AS m WHERE m.queue = inbox AND m.id = ANY (acked);
    END IF;
    RETURN QUERY SELECT m.id, m.channel::text, m.body FROM channels_database_message AS m
        WHERE m.queue = inbox AND m.id > floor AND m.expires > {now}
        ORDER BY m.id LIMIT most;
END
$$;

-- name: function_room
-- How many messages wait on a queue (counted up to a limit), whether it is a live gateway's inbox, and the
-- number of the first that waits.
CREATE FUNCTION channels_database_room(
    of_queue text, floor bigint, most integer,
    OUT waiting bigint, OUT gateways bigint, OUT first bigint
) LANGUAGE plpgsql SET enable_seqscan TO off SET enable_bitmapscan TO off AS $$
BEGIN
    SELECT count(*), min(id) INTO waiting, first FROM (
        SELECT m.id FROM channels_database_message AS m
        WHERE m.queue = of_queue AND m.id > floor AND m.expires > {now}
        ORDER BY m.id LIMIT most
    ) AS found;
    SELECT count(*) INTO gateways FROM channels_database_process WHERE name = of_queue;
END
$$;

-- name: take
SELECT * FROM channels_database_take(:queues, :names, :marks, '', '', 0);

-- name: claim
SELECT * FROM channels_database_take(:queues, :names, :marks, :consumer, :process, :turn);

-- name: claim_of
-- Locked, so that a transaction of this consumer whose reply got lost ends first.
SELECT id, queue, channel, body, losses FROM channels_database_claim
WHERE consumer = :consumer AND id <> 0 FOR UPDATE;

-- name: inbox
SELECT * FROM channels_database_inbox(:queue, :mark, :limit, CAST(:acked AS bigint[]));

-- name: room
SELECT * FROM channels_database_room(:queue, :mark, :limit);

-- name: insert_and_notify
-- "insert", and those who listen are told with the commit. {rows} are the rows.
WITH sent AS (
    INSERT INTO channels_database_message (queue, channel, body, expires) VALUES {rows} RETURNING id
)
SELECT pg_notify(topic, '') FROM unnest(:topics::text[]) AS topics (topic);

-- name: insert_once
-- "insert_and_notify", unless the id :sent is remembered. No row: a gateway sends it, and "pass_fence" would
-- not let it pass.
WITH open AS (
    SELECT 1 WHERE :gateway = '' OR EXISTS (
        SELECT 1 FROM channels_database_claim WHERE consumer = :gateway AND turn < :turn)
), fresh AS (
    INSERT INTO channels_database_sent (id, attempt, expires)
    SELECT :sent, 0, {now} + :seconds FROM open
    ON CONFLICT DO NOTHING RETURNING id
), sent AS (
    INSERT INTO channels_database_message (queue, channel, body, expires)
    SELECT * FROM (VALUES {rows}) AS found (queue, channel, body, expires)
    WHERE EXISTS (SELECT 1 FROM fresh)
    RETURNING id
)
SELECT (SELECT count(pg_notify(topic, '')) FROM unnest(:topics::text[]) AS topics (topic)) FROM open;

-- name: notify
-- The text of a notification is empty, so that PostgreSQL folds those of one transaction into one.
SELECT pg_notify(topic, '') FROM unnest(:topics::text[]) AS topics (topic);

-- name: lost
SELECT name FROM channels_database_process
WHERE (expires < {now} OR expires > 1e12) AND name >= :low AND name < :high LIMIT 10 FOR UPDATE SKIP LOCKED;

-- name: lock_fence
SELECT turn FROM channels_database_claim WHERE consumer = :gateway FOR UPDATE SKIP LOCKED;

-- name: due
SELECT id, channel, body, due FROM channels_database_delayed
WHERE (due <= {now} OR due > 1e12) AND queue >= :low AND queue < :high
ORDER BY due, id LIMIT 100 FOR UPDATE SKIP LOCKED;

-- name: expired
SELECT id, queue, channel, body FROM channels_database_message
WHERE queue IN ({rows}) AND expires <= {now} LIMIT 100 FOR UPDATE SKIP LOCKED;

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
    WHERE expires <= {now} AND queue >= :low AND queue < :high AND queue NOT IN ({rows})
    FOR UPDATE SKIP LOCKED);

-- name: version
-- "130004" for 13.4.
SHOW server_version_num;
