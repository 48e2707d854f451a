-- MariaDB 10.6 or newer, and MySQL 8.

-- name: tables
-- Names are ASCII and compared byte by byte; rows of a queue lie together, in their order.
CREATE TABLE channels_database_message (
    id bigint NOT NULL AUTO_INCREMENT UNIQUE,
    queue varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    channel varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body longtext CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    expires double NOT NULL,
    losses smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, id)
) ENGINE=InnoDB;
CREATE TABLE channels_database_claim (
    consumer varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    process varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    id bigint NOT NULL,
    queue varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    channel varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body longtext CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    losses smallint NOT NULL,
    turn bigint NOT NULL,
    KEY channels_database_claim_process (process)
) ENGINE=InnoDB;
CREATE TABLE channels_database_sent (
    id varchar(250) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    attempt bigint NOT NULL,
    expires double NOT NULL
) ENGINE=InnoDB;
CREATE TABLE channels_database_process (
    name varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    expires double NOT NULL
) ENGINE=InnoDB;
CREATE TABLE channels_database_will (
    channel varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    gateway varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    queue varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body longtext CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    KEY channels_database_will_gateway (gateway)
) ENGINE=InnoDB;
CREATE TABLE channels_database_group (
    grp varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gateway varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    channel varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (grp, gateway, channel),
    KEY channels_database_group_gateway (gateway)
) ENGINE=InnoDB;
CREATE TABLE channels_database_delayed (
    id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    queue varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    channel varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body longtext CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    due double NOT NULL,
    KEY channels_database_delayed_due (due)
) ENGINE=InnoDB;
CREATE TABLE channels_database_dead (
    id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    queue varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    channel varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body longtext CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    losses smallint NOT NULL,
    reason varchar(200) NOT NULL,
    died double NOT NULL
) ENGINE=InnoDB;
CREATE TABLE channels_database_counter (
    name varchar(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    value bigint NOT NULL
) ENGINE=InnoDB;

-- name: take
-- The next message of one queue, in one statement (MariaDB). A second reader waits for the first.
DELETE FROM channels_database_message
WHERE queue = :queue AND expires > {now} AND (:channel = '' OR channel = :channel)
ORDER BY id LIMIT 1
RETURNING id, queue, channel, body, losses;

-- name: next
-- The next message of one queue, locked past what others have locked; "drop" follows in the transaction.
SELECT id, queue, channel, body, losses FROM channels_database_message
WHERE queue = :queue AND expires > {now} AND (:channel = '' OR channel = :channel)
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: claim_of
-- Locked, so that a transaction of this consumer whose reply got lost ends first.
SELECT id, queue, channel, body, losses FROM channels_database_claim
WHERE consumer = :consumer AND id <> 0 FOR UPDATE;

-- name: set_claim
-- What was taken becomes the claim of the consumer, in place of one with an earlier turn. No row: this claim
-- arrived late, or it is the first one ("add_claim").
UPDATE channels_database_claim SET process = :process, id = :id, queue = :queue, channel = :channel,
    body = :body, losses = :losses, turn = :turn
WHERE consumer = :consumer AND turn < :turn;

-- name: add_claim
INSERT IGNORE INTO channels_database_claim (consumer, process, id, queue, channel, body, losses, turn)
VALUES (:consumer, :process, :id, :queue, :channel, :body, :losses, :turn);

-- name: fence
INSERT INTO channels_database_claim (consumer, process, id, queue, channel, body, losses, turn)
VALUES (:consumer, :process, 0, :queue, '', '', 0, :turn) ON DUPLICATE KEY UPDATE turn = VALUES(turn);

-- name: add_missing_leases
INSERT IGNORE INTO channels_database_process (name, expires)
SELECT DISTINCT process, {now} + :lease FROM channels_database_claim
WHERE id <> 0 AND queue >= :low AND queue < :high
AND process NOT IN (SELECT name FROM channels_database_process);

-- name: requeue
INSERT IGNORE INTO channels_database_message (id, queue, channel, body, expires, losses)
VALUES (:id, :queue, :channel, :body, {now} + :expiry, :losses);

-- name: remember
INSERT IGNORE INTO channels_database_sent (id, attempt, expires) VALUES {rows};

-- name: peek
SELECT :queue AS queue FROM DUAL WHERE EXISTS (
    SELECT 1 FROM channels_database_message WHERE queue = :queue AND expires > {now});

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
REPLACE INTO channels_database_process (name, expires) VALUES (:name, {now} + :lease);

-- name: set_wills
INSERT INTO channels_database_will (channel, gateway, queue, body) VALUES {rows}
ON DUPLICATE KEY UPDATE body = VALUES(body);

-- name: add_counters
INSERT INTO channels_database_counter (name, value) VALUES {rows}
ON DUPLICATE KEY UPDATE value = value + VALUES(value);

-- name: group_add
INSERT IGNORE INTO channels_database_group (grp, gateway, channel) VALUES (:grp, :gateway, :channel);

-- name: version
SELECT version();
