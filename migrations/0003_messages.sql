-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Keys start with group_id, so that the table can be distributed by it.
CREATE TABLE messages (
    group_id bigint NOT NULL,
    seq bigint NOT NULL,
    message_id bigint NOT NULL,
    sender_id bigint NOT NULL,
    client_msg_id uuid NOT NULL,
    kind text NOT NULL,
    body text NOT NULL,
    -- SHA-256 of kind and body as submitted, before the word filter masks anything.
    content_hash bytea NOT NULL,
    -- Milliseconds since 1970, from the message id.
    ts bigint NOT NULL,
    PRIMARY KEY (group_id, seq),
    CONSTRAINT messages_client_msg_id_key UNIQUE (group_id, sender_id, client_msg_id)
) PARTITION BY HASH (group_id);

CREATE TABLE messages_p0 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE messages_p1 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE messages_p2 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE messages_p3 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE messages_p4 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE messages_p5 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE messages_p6 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE messages_p7 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 7);

-- Unread counts ask for a member's own newest seq.
CREATE INDEX messages_sender_seq_idx ON messages (group_id, sender_id, seq);

-- Sends that could not be stored though the store was there; kept whole, so that they can be replayed.
CREATE TABLE dead_letters (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    broker text NOT NULL,
    partition integer NOT NULL,
    position text NOT NULL,
    envelope bytea NOT NULL,
    reason text NOT NULL
);

-- The fence: taking a partition raises its epoch; a batch of an older epoch is dropped.
CREATE TABLE partition_owner (
    broker text NOT NULL,
    partition integer NOT NULL,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (broker, partition)
);

-- The partition count is part of the data: with another count a group would move to another partition and lose its order.
CREATE TABLE broker_partitions (
    broker text PRIMARY KEY,
    partitions integer NOT NULL
);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
