-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- When a user was last online, to the minute. Written behind, when somebody comes online or goes; room for updates in the page.
CREATE TABLE last_seen (
    user_id bigint PRIMARY KEY,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 70);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
