"""A consumer that sleeps amid a batch, wherever that is, must not keep others from its partitions."""

import asyncio
import hashlib
import uuid
from urllib.parse import parse_qs, urlsplit

import pytest

from app.consumer.fence import Fence
from app.consumer.store import BatchStore
from app.lifecycle import CrashPoint
from app.modules.messages.models import Draft, from_envelope, to_envelope
from app.parts import Parts
from app.protocol.magpie_pb2 import Origin
from app.roles import PARTS
from app.storage.postgres import Postgres
from tests.cable import Cable, cable_to
from tests.running import serving, settings_for

IDLE_S = 0.2
"""After which PostgreSQL ends who sleeps in a transaction."""
TAKEN_S = 10.0
"""A busy machine is no defect; what would hang hangs for good."""
STEPS_MIN, STEPS_MAX = 12, 40
"""Pieces that a batch says to PostgreSQL: BEGIN, fence, locks, repeats, verdicts, COPY, its rows, heads, COMMIT; and what prepares each
statement. After half of them the server waits amid a statement, which is no idle transaction to it."""


async def test_whenever_a_batch_falls_asleep_its_partitions_can_be_taken(
    dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.consumer.fence.PATIENCE_S", IDLE_S)
    async with (
        serving(settings_for(dsn, redis_url, postgres={"idle_in_transaction_s": IDLE_S})) as server,
        cable_to(_socket_of(dsn)) as cable,
    ):
        ann = await server.user()
        group = int(await ann.group())
        parts = server.app[PARTS]
        postgres = Postgres(
            urlsplit(dsn)._replace(netloc=f"{urlsplit(dsn).username}@127.0.0.1:{cable.port}", query="").geturl(),
            pool_min=1,
            pool_max=1,
            connect_timeout_s=60,
            command_timeout_s=60,
            acquire_timeout_s=60,
            idle_in_transaction_s=IDLE_S,
        )
        await postgres.start()
        for awake in range(STEPS_MAX):
            if await _asleep_after(awake, parts, postgres, cable, group, int(ann.id)):
                break
        await postgres.stop()
        assert STEPS_MIN <= awake < STEPS_MAX
        assert [m["body"] for m in await ann.history(str(group))] == [f"after {awake}"]


async def _asleep_after(awake: int, parts: Parts, postgres: Postgres, cable: Cable, group: int, sender: int) -> bool:
    """Whether the batch was stored all the same: it had said everything. It is prepared anew each time, so that it always says as much."""
    fence = Fence(parts.postgres, "a log of this test", "sleeper")
    await fence.on_assigned([0], [0])
    store = BatchStore(
        postgres, parts.messages.repository, parts.groups.states, parts.consumer._store._proposer, parts.words, parts.ids, fence,
        CrashPoint(""), parts.metrics,
    )  # fmt: skip
    body = f"after {awake}"
    digest = hashlib.sha256(b"text\0" + body.encode()).digest()
    send = from_envelope(to_envelope(Draft(group, sender, uuid.uuid4(), "text", body, digest), Origin()), judged=False)
    cable.cut_after(awake)
    storing = asyncio.ensure_future(store.store([send], {0: 0}))
    await asyncio.wait({storing}, timeout=2 * IDLE_S)
    async with asyncio.timeout(TAKEN_S):
        await Fence(parts.postgres, "a log of this test", "successor").on_assigned([0], [])
    cable.mend()
    await asyncio.wait({storing}, timeout=TAKEN_S)
    return storing.exception() is None


def _socket_of(dsn: str) -> str:
    (folder,) = parse_qs(urlsplit(dsn).query)["host"]
    return f"{folder}/.s.PGSQL.{parse_qs(urlsplit(dsn).query).get('port', ['5432'])[0]}"
