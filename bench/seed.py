"""Users, groups, members and their tokens, in bulk and without the API: this is not what is measured."""

import random
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg

from app.ids import EPOCH_MS
from app.modules.accounts.tokens import Tokens
from app.protocol.endpoint import Principal
from bench.plan import Member, Shape

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Written: TypeAlias = tuple[int, int, int, int, str, int]
"""A message: group, seq, id, sender, body, ts in ms."""
TOKEN_TTL = timedelta(hours=4)
"""Longer than any bounded run."""
NO_PASSWORD = "!"  # noqa: S105 - matches no bcrypt hash: nobody can log in as these users


def layout(users: Sequence[int], groups: Sequence[int], shape: Shape, seed: int) -> dict[int, list[int]]:
    """User → groups. Each user is in `groups_per_user` groups of `group_size` members (the last of a layer may be smaller).

    The first layer takes neighbours together, every further one other companions; `more_groups` follow. `groups` needs
    `group_count(shape)` ids.
    """
    chance = random.Random(seed)
    member_of: dict[int, list[int]] = {user: [] for user in users}
    order = list(users)
    free = iter(groups)
    for layer in range(shape.groups_per_user):
        if layer:
            chance.shuffle(order)
        for start in range(0, len(order), shape.group_size):
            group = next(free)
            for user in order[start : start + shape.group_size]:
                member_of[user].append(group)
    for size in shape.more_groups:
        group = next(free)
        for user in chance.sample(order, size):
            member_of[user].append(group)
    return member_of


def group_count(shape: Shape) -> int:
    """Groups that `layout` fills."""
    return shape.groups_per_user * -(-shape.users // shape.group_size) + len(shape.more_groups)


async def seed(dsn: str, secret: str, shape: Shape, random_seed: int) -> list[Member]:
    """Write the population of `shape` and return it. Every call makes new users and groups, so that histories begin at seq 1."""
    # Ids are Snowflakes elsewhere. These lie below every one stamped since 2026-01-06, and differ from run to run.
    base = time.time_ns() // 1_000_000 * 1000
    users = range(base, base + shape.users)
    groups = range(base, base + group_count(shape))
    member_of = layout(users, groups, shape, random_seed)
    expires_at = datetime.now(UTC) + TOKEN_TTL
    ends_at = int(expires_at.timestamp())
    sessions = {user: Principal(user, uuid.uuid4(), ends_at) for user in users}
    tokens = Tokens(secret)
    owned: set[int] = set()
    members = []
    for user, joined in member_of.items():
        for group in joined:
            members.append((group, user, "member" if group in owned else "owner", 0))
            owned.add(group)
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await _copy(
                connection,
                "users",
                ("user_id", "username", "display_name", "password_hash"),
                [(user, f"b{user}", f"Bench {user - base}", NO_PASSWORD) for user in users],
            )
            await _copy(
                connection,
                "sessions",
                ("sid", "user_id", "expires_at"),
                [(session.sid, user, expires_at) for user, session in sessions.items()],
            )
            await _copy(
                connection,
                "groups",
                ("group_id", "name", "visibility"),
                [(group, f"bench {group - base}", "open") for group in sorted(owned)],
            )
            await _copy(connection, "group_seq", ("group_id",), [(group,) for group in sorted(owned)])
            await _copy(connection, "group_members", ("group_id", "user_id", "role", "joined_seq"), members)
        # As the daemon would do a minute later; without it the first plans are for empty tables.
        await connection.execute("ANALYZE users, sessions, groups, group_seq, group_members")
    finally:
        await connection.close()
    chosen = random.Random(random_seed).sample(users, shape.senders + shape.slow)
    senders, slow = set(chosen[: shape.senders]), set(chosen[shape.senders :])
    return [Member(user, tokens.sign(sessions[user]), member_of[user], user in senders, user in slow) for user in users]


async def write_messages(connection: Connection, messages: Iterable[Written]) -> None:
    """Some messages; `end_histories` must follow the last of them."""
    columns = ("group_id", "seq", "message_id", "sender_id", "client_msg_id", "kind", "body", "content_hash", "ts")
    records = [
        (group, seq, message_id, sender, uuid.UUID(int=message_id), "text", body, bytes(32), ts)
        for group, seq, message_id, sender, body, ts in messages
    ]
    await _copy(connection, "messages", columns, records)


async def end_histories(connection: Connection, last_seqs: Mapping[int, int]) -> None:
    """Group → the seq of its newest message."""
    await connection.executemany("UPDATE group_seq SET last_seq = $2 WHERE group_id = $1", list(last_seqs.items()))
    await connection.execute("ANALYZE messages, group_seq")


def message_id(ts: int, number: int) -> int:
    """An id of that moment; `number` distinguishes it from others of the same one."""
    return (ts - EPOCH_MS) << 22 | number & 0x3FFFFF


async def _copy(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[Sequence[object]],
) -> None:
    await connection.copy_records_to_table(table, columns=columns, records=rows)
