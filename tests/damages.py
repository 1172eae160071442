"""What may be wrong with data, done by hand to the sample of `examining.py`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """What is done: SQL and Redis commands, both with the sample's ids in braces; the check that must name it, and how.

    `also`: other checks that see it too. `left`: those that are still wrong after mending; by default all when it cannot be mended.
    """

    id: str
    check: str
    says: str
    sql: str = ""
    redis: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()


def damage(
    name: str, check: str, says: str, sql: str = "", redis: str | tuple[str, ...] = (), also: str = "", left: str = ""
) -> Damage:
    commands = (redis,) if isinstance(redis, str) else redis
    return Damage(name, check, says, sql, commands, frozenset(also.split()), frozenset(left.split()))


SEQ, HOT = "Group:{{{group}}}:Seq", "Group:{{{group}}}:Hot"

DAMAGES = [
    # Not to be mended by a program
    damage(
        "hole",
        "numbers",
        "group {group}: 1 missing, 3 to 3",
        "DELETE FROM messages WHERE {at} = 3",
        also="hot_caches",
        left="numbers",
    ),
    damage(
        "end cut off",
        "numbers",
        "group {group}: 1 missing, 6 to 6 at the end",
        "DELETE FROM messages WHERE {at} = 6",
        also="hot_caches unread",
        left="numbers unread",
    ),
    damage(
        "group lost",
        "unknown_groups",
        "group {group}: only in messages, group_seq, group_members, search_progress, search_block",
        "DELETE FROM groups WHERE group_id = {group}",
        left="unknown_groups",
    ),
    damage(
        "no owner",
        "owners",
        "group {group}: 0 owners, 3 members",
        "UPDATE group_members SET role = 'admin' WHERE group_id = {group} AND role = 'owner'",
        also="unread",
        left="owners unread",
    ),
    damage(
        "a member who is nobody",
        "members",
        "group {group}, user 42: no such user",
        "INSERT INTO group_members (group_id, user_id, role, joined_seq) VALUES ({group}, 42, 'member', 0)",
        left="members",
    ),
    damage(
        "a banned member",
        "members",
        "group {group}, user {cid}: banned",
        "INSERT INTO group_bans (group_id, user_id, banned_by) VALUES ({group}, {cid}, {ann})",
        left="members",
    ),
    damage(
        "members of a disbanded group",
        "members",
        "the group is disbanded",
        "UPDATE groups SET disbanded_at = now() WHERE group_id = {other}",
        left="members",
    ),
    damage(
        "a sender who is nobody",
        "senders",
        "group {group}: no user 42",
        "UPDATE messages SET sender_id = 42 WHERE {at} = 2",
        also="hot_caches",
        left="senders",
    ),
    damage(
        "a hash cut",
        "messages",
        "group {group}: 1, the first is 2 (content_hash of another length)",
        "UPDATE messages SET content_hash = '\\x00' WHERE {at} = 2",
        left="messages",
    ),
    damage(
        "a time that is not of the id",
        "messages",
        "(ts is not that of its message_id)",
        "UPDATE messages SET ts = ts + 1 WHERE {at} = 2",
        also="hot_caches",
        left="messages",
    ),
    damage(
        "from the future",
        "messages",
        "(from the future)",
        "UPDATE messages SET message_id = message_id + (1::bigint << 52), ts = ts + (1 << 30) WHERE {at} = 2",
        also="hot_caches search_index workers",
        left="messages workers",
    ),
    damage(
        "an id twice",
        "unique_ids",
        "2 times, in groups",
        "UPDATE messages SET (message_id, ts) = (SELECT message_id, ts FROM messages WHERE group_id = {other} AND seq = 1)"
        " WHERE {at} = 2",
        also="hot_caches search_index",
        left="unique_ids",
    ),
    damage(
        "stamped beyond the lease",
        "workers",
        "leased until 1000",
        "UPDATE worker_leases SET not_after = to_timestamp(1)",
        left="workers",
    ),
    damage(
        "a session that ends before it begins",
        "sessions",
        "user {ann}: 1, the first is",
        "UPDATE sessions SET expires_at = created_at - interval '1 hour' WHERE user_id = {ann}",
        left="sessions",
    ),
    damage(
        "another partition count",
        "partitions",
        "in the settings, 3 in use",
        "UPDATE broker_partitions SET partitions = 3",
        left="partitions",
    ),
    damage(
        "a dead letter",
        "dead_letters",
        "DataError: 1, the first is",
        "INSERT INTO dead_letters (broker, partition, position, envelope, reason) VALUES ('memory', 1, '7', 'x', 'DataError')",
        left="dead_letters",
    ),
    # To be mended
    damage(
        "no row of numbers",
        "group_rows",
        "group {group}: no row in group_seq",
        "DELETE FROM group_seq WHERE group_id = {group}",
        also="counters hot_caches numbers unknown_groups unread",
    ),
    damage(
        "last_seq back",
        "heads",
        "group {group}: last_seq is 2, but message 6 is stored",
        "UPDATE group_seq SET last_seq = 2 WHERE group_id = {group}",
        also="counters hot_caches read_marks search_progress unread",
    ),
    damage("counter back", "counters", "group {group}: Redis has 4, PostgreSQL 6", redis=f"SET {SEQ} 4"),
    damage("counter ahead", "counters", "group {group}: Redis has 9, PostgreSQL 6", redis=f"SET {SEQ} 9"),
    damage("counter no number", "counters", "group {group}: Redis has lots,", redis=f"SET {SEQ} lots"),
    damage("counter no text", "counters", "WRONGTYPE", redis=(f"DEL {SEQ}", f"LPUSH {SEQ} 1")),
    damage("hot: twice", "hot_caches", "group {group}: message 4 twice", redis=f"ZADD {HOT} 4 other"),
    damage("hot: hole", "hot_caches", "3 to 4 missing between others", redis=f"ZREMRANGEBYSCORE {HOT} 3 4"),
    damage(
        "hot: other bytes",
        "hot_caches",
        "message 4 is not what is stored",
        redis=(f"ZREMRANGEBYSCORE {HOT} 4 4", f"ZADD {HOT} 4 other"),
    ),
    damage("hot: beyond the head", "hot_caches", "message 7 beyond the head 6", redis=f"ZADD {HOT} 7 other"),
    damage("hot: no number", "hot_caches", "a score that is no number", redis=f"ZADD {HOT} 4.5 other"),
    damage("hot: no cache", "hot_caches", "not a sorted set", redis=f"SET {HOT} x"),
    damage(
        "read beyond the head",
        "read_marks",
        "group {group}, user {bob}: read 99, joined 0, but the last message is 6",
        "UPDATE group_members SET last_read_seq = 99 WHERE group_id = {group} AND user_id = {bob}",
    ),
    damage(
        "joined beyond the head",
        "read_marks",
        "joined 99",
        "UPDATE group_members SET joined_seq = 99 WHERE group_id = {group} AND user_id = {cid}",
    ),
    damage(
        "indexed beyond the head",
        "search_progress",
        "group {group}: indexed up to 99, but the last message is 6",
        "UPDATE search_progress SET indexed_seq = 99 WHERE group_id = {group}",
        also="search_index",
    ),
    damage(
        "not in the index",
        "search_index",
        "group {group}: indexed up to 6, but its blocks end at 0",
        "DELETE FROM search_block WHERE group_id = {group}",
    ),
    damage(
        "a hole in the index",
        "search_index",
        "group {group}: 1 blocks do not follow the one before, the first begins at 3",
        "UPDATE search_block SET first_seq = 3 WHERE group_id = {group}",
    ),
    damage(
        "in the index twice",
        "search_index",
        "group {group}: 1 blocks do not follow the one before, the first begins at 5",
        "INSERT INTO search_block SELECT group_id, 5, last_seq, first_id, last_id, words, signature"
        " FROM search_block WHERE group_id = {group}",
    ),
    damage(
        "a signature without its words",
        "search_index",
        "group {group}: 6 messages that their block does not know, the first is 1",
        "UPDATE search_block SET signature = 0::bit(8192) WHERE group_id = {group}",
    ),
    damage(
        "ids beyond those of the block",
        "search_index",
        "group {group}: 5 messages that their block does not know, the first is 2",
        "UPDATE search_block SET last_id = first_id WHERE group_id = {group}",
    ),
]
