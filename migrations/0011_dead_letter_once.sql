-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- SHA-256 of what makes a send the same one when its sender tries again; NULL for what is no send, and for rows of releases before.
ALTER TABLE dead_letters ADD COLUMN send bytea;

-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX dead_letters_send_key ON dead_letters (send); -- the table is next to empty

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
