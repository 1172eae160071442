-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE groups (
    group_id bigint PRIMARY KEY,
    name text NOT NULL,
    announcement text NOT NULL DEFAULT '',
    visibility text NOT NULL CHECK (visibility IN ('open', 'invite')),
    created_at timestamptz NOT NULL DEFAULT now(),
    disbanded_at timestamptz
);

-- The narrow row that every send and every change of access locks: it orders them against each other.
-- fillfactor leaves room for in-page (HOT) updates, because last_seq moves with every batch.
CREATE TABLE group_seq (
    group_id bigint PRIMARY KEY,
    last_seq bigint NOT NULL DEFAULT 0,
    access_version bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 50);

CREATE TABLE group_members (
    group_id bigint NOT NULL,
    user_id bigint NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    muted_until timestamptz,
    joined_at timestamptz NOT NULL DEFAULT now(),
    joined_seq bigint NOT NULL,
    last_read_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (group_id, user_id)
);

CREATE INDEX group_members_user_id_idx ON group_members (user_id, group_id);
CREATE UNIQUE INDEX group_members_one_owner_key ON group_members (group_id) WHERE role = 'owner';

CREATE TABLE group_bans (
    group_id bigint NOT NULL,
    user_id bigint NOT NULL,
    banned_by bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_id, user_id)
);

CREATE TABLE group_invites (
    code text PRIMARY KEY,
    group_id bigint NOT NULL,
    created_by bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE INDEX group_invites_group_id_idx ON group_invites (group_id);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
