-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE users (
    user_id bigint PRIMARY KEY,
    username text NOT NULL,
    display_name text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Names are unique without regard to case; they are ASCII, so lower() depends on no locale.
CREATE UNIQUE INDEX users_username_key ON users (lower(username));

CREATE TABLE sessions (
    sid uuid PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users (user_id),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE INDEX sessions_user_id_idx ON sessions (user_id);

-- Who did what to whom: logins, role changes, kicks, bans, disbanding. Never message text.
CREATE TABLE audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor_id bigint,
    action text NOT NULL,
    group_id bigint,
    target_id bigint,
    details jsonb
);

CREATE INDEX audit_log_group_id_idx ON audit_log (group_id, audit_id);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
