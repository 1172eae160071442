-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Blocks of messages have a Bloom filter each instead of words in an index: see docs/adr/0015-search-by-signatures.md.
-- squawk-ignore ban-drop-table
DROP TABLE message_search;
-- squawk-ignore ban-drop-function
DROP FUNCTION search_query;
-- squawk-ignore ban-drop-function
DROP FUNCTION search_vector;
-- squawk-ignore ban-drop-function
DROP FUNCTION search_lexemes;

-- The messages of a group from first_seq to last_seq. Blocks follow each other without holes up to search_progress.indexed_seq; only the
-- last one grows.
CREATE TABLE search_block (
    group_id bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    -- The least and the greatest message_id inside; ids are stamped before the commit and need not rise with seq.
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    -- How many words were set, those of several messages several times.
    words int NOT NULL,
    signature bit(8192) NOT NULL,
    PRIMARY KEY (group_id, first_seq)
-- The last block of a group is written again and again, beside its old version.
) WITH (fillfactor = 70);

-- A filter cannot be compressed, and a search looks at single bits of it.
ALTER TABLE search_block ALTER COLUMN signature SET STORAGE PLAIN;

-- Everything is indexed anew.
TRUNCATE search_progress;

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
