-- The statements that every database takes as they stand.
--
-- ":name" is a parameter; {now} is the database's own clock in seconds since 1970, so that the hosts'
-- clocks need not agree. A "queue" is the prefix of the layer, a colon, and a channel's name, or for a
-- process-local channel the name up to its "!"; every key of another kind has the same prefix.

-- name: room
-- How many messages wait on a queue (counted up to :limit), whether it is a live gateway's inbox, and
-- the number of the first that waits. Numbers up to :mark are known to be gone.
SELECT
    (SELECT count(*) FROM (
        SELECT 1 FROM channels_database_message
        WHERE queue = :queue AND id > :mark AND expires > {now} LIMIT :limit
    ) AS waiting),
    (SELECT count(*) FROM channels_database_process WHERE name = :queue),
    (SELECT min(id) FROM channels_database_message
        WHERE queue = :queue AND id > :mark AND expires > {now});

-- name: insert
-- Put messages on their queues. {rows} is "insert_row" for each, in their order.
INSERT INTO channels_database_message (queue, channel, body, expires) VALUES {rows};

-- name: insert_row
(:queue, :channel, :body, {now} + :expiry);

-- name: requeue
-- Put a message back under the number it had: at the head of its queue.
INSERT INTO channels_database_message (id, queue, channel, body, expires, losses)
VALUES (:id, :queue, :channel, :body, {now} + :expiry, :losses) ON CONFLICT DO NOTHING;

-- name: peek
-- One queue, if anything waits there; repeated with UNION ALL for several.
SELECT :queue AS queue WHERE EXISTS (
    SELECT 1 FROM channels_database_message WHERE queue = :queue AND expires > {now});

-- name: inbox
-- The first :limit messages of one gateway's inbox. They stay until "drop_many".
SELECT id, channel, body FROM channels_database_message
WHERE queue = :queue AND expires > {now} ORDER BY id LIMIT :limit;

-- name: drop_many
-- Remove messages of one queue. {rows} is "number" for each.
DELETE FROM channels_database_message WHERE queue = :queue AND id IN ({rows});

-- name: number
:id;

-- name: claim_of
-- The message that a consumer has claimed.
SELECT id, queue, channel, body, losses FROM channels_database_claim
WHERE consumer = :consumer AND id <> 0;

-- name: acknowledge
-- Forget what a consumer got with one turn. Its row stays, so that a claim that arrives late finds the turn.
UPDATE channels_database_claim SET id = 0, body = '' WHERE consumer = :consumer AND turn = :turn;

-- name: release
-- Forget what a consumer has claimed.
UPDATE channels_database_claim SET id = 0, body = '' WHERE consumer = :consumer;

-- name: fence
-- Give the row of a consumer a new turn: a claim with an earlier one that arrives late takes nothing. A gateway
-- has such a row as long as it has a lease; what it writes passes only with a later turn.
INSERT INTO channels_database_claim (consumer, process, id, queue, channel, body, losses, turn)
VALUES (:consumer, :process, 0, :queue, '', '', 0, :turn)
ON CONFLICT (consumer) DO UPDATE SET turn = excluded.turn;

-- name: pass_fence
-- No row: the gateway's lease has ended, or this arrived late.
UPDATE channels_database_claim SET turn = :turn WHERE consumer = :gateway AND turn < :turn;

-- name: lock_fence
-- A row: no batch of the gateway is on its way.
SELECT turn FROM channels_database_claim WHERE consumer = :gateway;

-- name: has_fence
SELECT turn FROM channels_database_claim WHERE consumer = :gateway;

-- name: set_claim
-- What was taken becomes the claim of the consumer, in place of one with an earlier turn. No row: this claim
-- arrived late.
INSERT INTO channels_database_claim (consumer, process, id, queue, channel, body, losses, turn)
VALUES (:consumer, :process, :id, :queue, :channel, :body, :losses, :turn)
ON CONFLICT (consumer) DO UPDATE SET process = excluded.process, id = excluded.id, queue = excluded.queue,
    channel = excluded.channel, body = excluded.body, losses = excluded.losses, turn = excluded.turn
WHERE channels_database_claim.turn < excluded.turn;

-- name: forget_claims
DELETE FROM channels_database_claim WHERE process = :process;

-- name: sweep_claims
-- Remove the empty rows of consumers whose process is gone.
DELETE FROM channels_database_claim WHERE id = 0 AND queue >= :low AND queue < :high
AND process NOT IN (SELECT name FROM channels_database_process);

-- name: add_missing_leases
-- Give a lease to processes that claimed something and have none: their claim arrived late.
INSERT INTO channels_database_process (name, expires)
SELECT DISTINCT process, {now} + :lease FROM channels_database_claim
WHERE id <> 0 AND queue >= :low AND queue < :high
AND process NOT IN (SELECT name FROM channels_database_process)
ON CONFLICT DO NOTHING;

-- name: remember
-- Remember the ids of messages. {rows} is "sent_row" for each. Those that were known stay as they are.
INSERT INTO channels_database_sent (id, attempt, expires) VALUES {rows} ON CONFLICT DO NOTHING;

-- name: sent_row
(:id, :attempt, {now} + :seconds);

-- name: remembered
-- Those of the ids in {rows} that this attempt has brought.
SELECT id FROM channels_database_sent WHERE attempt = :attempt AND id IN ({rows});

-- name: advance
-- Remember a number in place of a smaller one. No row: "remember" it, unless it is known.
UPDATE channels_database_sent SET attempt = :attempt, expires = {now} + :seconds
WHERE id = :id AND attempt < :attempt;

-- name: sweep_sent
DELETE FROM channels_database_sent WHERE expires <= {now} AND id >= :low AND id < :high;

-- name: renew
-- Renew a lease. No row: the lease had run out, and its holder was recovered.
UPDATE channels_database_process SET expires = {now} + :lease WHERE name = :name;

-- name: queue_name
:queue;

-- name: poll_events
-- For how many seconds the lease lasts that ends first; and whether a message expired on one of the queues
-- that {rows} names.
SELECT
    (SELECT min(CASE WHEN expires > 1e12 THEN 0 ELSE expires END) - {now} FROM channels_database_process
        WHERE name >= :low AND name < :high),
    EXISTS (SELECT 1 FROM channels_database_message WHERE queue IN ({rows}) AND expires <= {now});

-- name: shortest
-- For how many seconds the lease lasts that ends first.
SELECT min(CASE WHEN expires > 1e12 THEN 0 ELSE expires END) - {now} FROM channels_database_process
WHERE name >= :low AND name < :high;

-- name: extend_leases
-- Renew every lease.
UPDATE channels_database_process SET expires = {now} + :lease WHERE name >= :low AND name < :high;

-- name: register
INSERT INTO channels_database_process (name, expires) VALUES (:name, {now} + :lease);

-- name: unregister
DELETE FROM channels_database_process WHERE name = :name;

-- name: registered
SELECT count(*) FROM channels_database_process WHERE name = :name;

-- name: lost
-- The holders of leases that have run out; no row that somebody else is clearing up after.
SELECT name FROM channels_database_process
WHERE (expires < {now} OR expires > 1e12) AND name >= :low AND name < :high LIMIT 10;

-- name: claims_of
SELECT consumer, id, queue, channel, body, losses FROM channels_database_claim
WHERE process = :process AND id <> 0;

-- name: set_wills
-- What is sent to :queue if the gateway dies; the last will counts. {rows} is "will_row" for each.
INSERT INTO channels_database_will (channel, gateway, queue, body) VALUES {rows}
ON CONFLICT (channel) DO UPDATE SET body = excluded.body;

-- name: will_row
(:channel, :gateway, :queue, :body);

-- name: wills
SELECT channel, queue, body FROM channels_database_will WHERE gateway = :gateway;

-- name: clear_will
DELETE FROM channels_database_will WHERE channel = :channel;

-- name: clear_wills_of
DELETE FROM channels_database_will WHERE gateway = :gateway;

-- name: drop_queue
DELETE FROM channels_database_message WHERE queue = :queue;

-- name: group_discard
DELETE FROM channels_database_group
WHERE grp = :grp AND gateway = :gateway AND channel = :channel;

-- name: group_channels
SELECT channel FROM channels_database_group WHERE grp = :grp;

-- name: group_routes
-- The gateways with members of a group. Each is found by one index look-up, however many members it has.
-- The members that don't belong to a gateway are separate rows.
WITH RECURSIVE routes (gateway) AS (
    SELECT min(gateway) FROM channels_database_group WHERE grp = :grp
    UNION ALL
    SELECT (SELECT min(gateway) FROM channels_database_group
            WHERE grp = :grp AND gateway > routes.gateway)
    FROM routes WHERE gateway IS NOT NULL
)
SELECT gateway, '' FROM routes WHERE gateway <> ''
UNION ALL
SELECT '', channel FROM channels_database_group WHERE grp = :grp AND gateway = '';

-- name: group_members
SELECT count(*) FROM channels_database_group WHERE grp = :grp AND gateway = :gateway;

-- name: leave_groups
DELETE FROM channels_database_group WHERE gateway = :gateway;

-- name: delay
INSERT INTO channels_database_delayed (queue, channel, body, due) VALUES (:queue, :channel, :body, {now} + :delay);

-- name: next_due
-- Seconds until the next delayed message is due; NULL where there is none.
SELECT min(CASE WHEN due > 1e12 THEN 0 ELSE due END) - {now} FROM channels_database_delayed
WHERE queue >= :low AND queue < :high;

-- name: due
SELECT id, channel, body, due FROM channels_database_delayed
WHERE (due <= {now} OR due > 1e12) AND queue >= :low AND queue < :high ORDER BY due, id LIMIT 100;

-- name: drop_delayed
DELETE FROM channels_database_delayed WHERE id = :id;

-- name: add_dead
INSERT INTO channels_database_dead (queue, channel, body, losses, reason, died)
VALUES (:queue, :channel, :body, :losses, :reason, {now});

-- name: dead
SELECT id, channel, body, reason, died FROM channels_database_dead
WHERE queue >= :low AND queue < :high ORDER BY id;

-- name: dead_one
SELECT id, queue, channel, body FROM channels_database_dead
WHERE id = :id AND queue >= :low AND queue < :high;

-- name: drop_dead
DELETE FROM channels_database_dead WHERE id = :id AND queue >= :low AND queue < :high;

-- name: trim_dead
-- Remove all but the :most newest dead letters. (MySQL wants the inner SELECT in another one.)
DELETE FROM channels_database_dead WHERE queue >= :low AND queue < :high AND id <= (
    SELECT id FROM (
        SELECT id FROM channels_database_dead WHERE queue >= :low AND queue < :high
        ORDER BY id DESC LIMIT 1 OFFSET :most
    ) AS last);

-- name: count_dead
SELECT count(*) FROM channels_database_dead WHERE queue >= :low AND queue < :high;

-- name: expired
-- Expired messages on the queues that {rows} names. Skips rows that another process has locked.
SELECT id, queue, channel, body FROM channels_database_message
WHERE queue IN ({rows}) AND expires <= {now} LIMIT 100;

-- name: drop
DELETE FROM channels_database_message WHERE queue = :queue AND id = :id;

-- name: stale
-- The channels of expired messages, and how many, without the queues that {rows} names.
SELECT channel, count(*) FROM channels_database_message
WHERE expires <= {now} AND queue >= :low AND queue < :high AND queue NOT IN ({rows})
GROUP BY channel;

-- name: sweep
-- Remove expired messages, but not on the queues that {rows} names: see "expired".
DELETE FROM channels_database_message
WHERE expires <= {now} AND queue >= :low AND queue < :high AND queue NOT IN ({rows});

-- name: sweep_groups
-- Remove memberships of gateways that are gone: one may have been added while its gateway was cleared up after.
DELETE FROM channels_database_group WHERE grp >= :low AND grp < :high AND gateway <> ''
AND gateway NOT IN (SELECT name FROM channels_database_process);

-- name: pending
-- For each queue: how many messages wait, and seconds until the first expires.
SELECT queue, count(*), min(expires) - {now} FROM channels_database_message
WHERE expires > {now} AND queue >= :low AND queue < :high GROUP BY queue;

-- name: count_claims
SELECT count(*) FROM channels_database_claim WHERE id <> 0 AND queue >= :low AND queue < :high;

-- name: add_counters
-- What a process counted, to what all have. {rows} is "counter_row" for each.
INSERT INTO channels_database_counter (name, value) VALUES {rows}
ON CONFLICT (name) DO UPDATE SET value = channels_database_counter.value + excluded.value;

-- name: counter_row
(:name, :value);

-- name: counters
SELECT name, value FROM channels_database_counter WHERE name >= :low AND name < :high;

-- name: flush_message
DELETE FROM channels_database_message WHERE queue >= :low AND queue < :high;

-- name: flush_claim
DELETE FROM channels_database_claim WHERE queue >= :low AND queue < :high;

-- name: flush_sent
DELETE FROM channels_database_sent WHERE id >= :low AND id < :high;

-- name: flush_group
DELETE FROM channels_database_group WHERE grp >= :low AND grp < :high;

-- name: flush_delayed
DELETE FROM channels_database_delayed WHERE queue >= :low AND queue < :high;

-- name: flush_dead
DELETE FROM channels_database_dead WHERE queue >= :low AND queue < :high;

-- name: flush_counter
DELETE FROM channels_database_counter WHERE name >= :low AND name < :high;

-- name: gateways
SELECT name FROM channels_database_process WHERE name >= :low AND name < :high AND name LIKE '%!';
