-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '10min';

-- Another order of the columns. With group_id and sender_id first there were two indexes that began alike, this one and the one for a
-- member's newest seq; PostgreSQL takes two conditions for as selective as three, and looked for a key by reading all that its sender
-- has ever said in the group. Now a look-up names group_id and client_msg_id, and no other index begins with these.
-- squawk-ignore ban-drop-constraint
ALTER TABLE messages DROP CONSTRAINT messages_client_msg_id_key;
-- squawk-ignore constraint-missing-not-valid, disallowed-unique-constraint
ALTER TABLE messages ADD CONSTRAINT messages_client_msg_id_key UNIQUE (group_id, client_msg_id, sender_id);

-- migrate:down
-- Forward only: see docs/operations.md, "Going back".
