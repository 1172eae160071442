-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The lexemes of a folded text; the index and every query get them from here. Every word, cut at 64 characters; of scripts that put no
-- spaces between words, and of symbols, every character and every two neighbours. The application folds (NFKC_Casefold); the ranges are
-- those of its folding.py, and collation C makes them independent of any locale.
CREATE FUNCTION search_lexemes(folded text) RETURNS text []
-- The cost keeps the planner from looking without the index, which would cut every message up again.
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000 AS $$
DECLARE
    words CONSTANT text := '[^\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05f3\u05f4\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u2000-\u206f\u3000-\u3004\u3008-\u3020\u3030\u303d\u30a0\u30fb\ufe10-\ufe1f\ufe30-\ufe6f\uff5f-\uff65\ufff0-\uffff\u0e00-\u0eff\u1000-\u11ff\u1780-\u17ff\u20a0-\u20cf\u2100-\u214f\u2190-\u2bff\u2e80-\u2fff\u3005-\u3007\u3021-\u302f\u3031-\u303c\u303e-\u309f\u30a1-\u30fa\u30fc-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U0001f000-\U0001fbff\U00020000-\U0003ffff]+';
    runs CONSTANT text := '[\u0e00-\u0eff\u1000-\u11ff\u1780-\u17ff\u20a0-\u20cf\u2100-\u214f\u2190-\u2bff\u2e80-\u2fff\u3005-\u3007\u3021-\u302f\u3031-\u303c\u303e-\u309f\u30a1-\u30fa\u30fc-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U0001f000-\U0001fbff\U00020000-\U0003ffff]+';
    found text[] := '{}';
    run text;
    characters text[];
BEGIN
    FOR run IN SELECT (regexp_matches(folded COLLATE "C", words, 'g'))[1] LOOP
        found := found || left(run, 64);
    END LOOP;
    FOR run IN SELECT (regexp_matches(folded COLLATE "C", runs, 'g'))[1] LOOP
        characters := string_to_array(run, NULL);
        found := found || characters;
        FOR i IN 1 .. cardinality(characters) - 1 LOOP
            found := found || (characters[i] || characters[i + 1]);
        END LOOP;
    END LOOP;
    RETURN found;
END $$;

-- What is indexed of a message.
CREATE FUNCTION search_vector(folded text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN array_to_tsvector(search_lexemes(folded));

-- All runs. A run is one word, of which `prefixes` says whether it may go on, or characters without a space between them.
CREATE FUNCTION search_query(runs text [], prefixes boolean []) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT string_agg('''' || l.lexeme || CASE WHEN r.prefix THEN ''':*' ELSE '''' END, '&')
    FROM unnest(runs, prefixes) AS r (run, prefix)
    CROSS JOIN LATERAL (SELECT search_lexemes(r.run) AS lexemes) AS f
    CROSS JOIN LATERAL unnest(f.lexemes) AS l (lexeme)
    -- Two neighbours say more than each alone.
    WHERE cardinality(f.lexemes) = 1 OR char_length(l.lexeme) = 2
)::tsquery;

CREATE TABLE message_search (
    group_id bigint NOT NULL,
    message_id bigint NOT NULL,
    seq bigint NOT NULL,
    folded text NOT NULL,
    PRIMARY KEY (group_id, message_id)
);

-- Entries wait in a list that every query reads as well; it is kept short.
CREATE INDEX message_search_vector_idx ON message_search USING gin (search_vector(folded))
WITH (gin_pending_list_limit = 512);

-- Up to where each group is indexed; written in the transaction that indexes. A group without a row is not indexed at all.
CREATE TABLE search_progress (
    group_id bigint PRIMARY KEY,
    indexed_seq bigint NOT NULL
) WITH (fillfactor = 50);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
