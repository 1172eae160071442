-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Half the lexemes: of scripts without spaces every two neighbours, and of each run the last character alone. A search for one character
-- asks for lexemes that begin with it, so it finds both. Entries made before hold more than that, so no index is built anew.
CREATE OR REPLACE FUNCTION search_lexemes(folded text) RETURNS text []
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
        found := found || characters[cardinality(characters)];
        FOR i IN 1 .. cardinality(characters) - 1 LOOP
            found := found || (characters[i] || characters[i + 1]);
        END LOOP;
    END LOOP;
    RETURN found;
END $$;

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
