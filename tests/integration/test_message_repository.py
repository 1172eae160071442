"""What the look-ups of messages cost, on a real database."""

from uuid import UUID

import pytest

from app.modules.messages.repository import MessageRepository, Row
from app.storage.postgres import Postgres

GROUP, SENDER, OTHER = 7, 1, 2
SAID = 500

READ = "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname LIKE 'messages_p%'"
"""Rows of the messages that this transaction has looked at."""


def said(sender: int, number: int) -> Row:
    seq = sender * SAID + number
    return (GROUP, seq, seq, sender, UUID(int=number), "text", "x", bytes(32), 0)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_repeat_is_found_without_reading_what_its_sender_has_said(postgres: Postgres, analyzed: bool) -> None:
    repository = MessageRepository(postgres)
    rows = [said(sender, number) for sender in (SENDER, OTHER) for number in range(SAID)]
    async with postgres.transaction() as connection:
        await repository.insert(connection, rows)
    if analyzed:
        await postgres.execute("ANALYZE messages")
    known = [(GROUP, SENDER, UUID(int=number)) for number in (0, SAID - 1)]
    unknown = [(GROUP, SENDER, UUID(int=SAID)), (GROUP, 3, UUID(int=0)), (GROUP + 1, SENDER, UUID(int=0))]
    async with postgres.transaction() as connection:
        found = await repository.find_repeats(connection, [*known, *unknown])
        read = await connection.fetchval(READ)
    assert {key: message.seq for key, message in found.items()} == {key: SAID + key[2].int for key in known}
    # Another member may have used the same id.
    assert len(known) <= read <= 2 * len(known) + 2
