-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Offset of the last record of the partition about which a committed batch has decided, moved in the batch's own transaction.
-- A record that comes again after a crash is not judged a second time: what was refused stays refused.
ALTER TABLE partition_owner ADD COLUMN judged bigint NOT NULL DEFAULT '-1';

-- Every batch moves it; room for updates in the page.
ALTER TABLE partition_owner SET (fillfactor = 50);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
