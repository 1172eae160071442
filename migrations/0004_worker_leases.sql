-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Worker numbers of Snowflake ids. The holder never stamps beyond not_after; a successor waits until its clock has passed it.
CREATE TABLE worker_leases (
    worker_id smallint PRIMARY KEY CHECK (worker_id BETWEEN 0 AND 1023),
    holder text NOT NULL,
    not_after timestamptz NOT NULL
);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
