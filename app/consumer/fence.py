"""The fence: `partition_owner(broker, partition, epoch, judged)` in PostgreSQL. Taking a partition raises its epoch; whoever holds an
older one can commit nothing more, however long it slept. `judged` is how far committed batches have decided.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import asyncpg
import structlog

from app.brokers.base import Broker
from app.errors import ConfigError
from app.storage.postgres import Connection, Postgres

log = structlog.get_logger(__name__)

PATIENCE_S = 1.0
"""A batch in work holds its partitions for milliseconds; after so long it is looked for those who sleep in one."""


class StaleOwner(Exception):
    """Another consumer took a partition of this batch: drop the batch, answer nothing."""


class Fence:
    """The epochs of the partitions this process owns. An OwnershipListener for the broker."""

    def __init__(self, postgres: Postgres, broker_name: str, owner: str) -> None:
        self._postgres = postgres
        self._broker = broker_name
        self._owner = owner
        self._epochs: dict[int, int] = {}
        self._judged: dict[int, int] = {}

    @property
    def partitions(self) -> Collection[int]:
        """Those owned now, as far as this process knows."""
        return self._epochs.keys()

    async def on_assigned(self, partitions: Sequence[int], fresh: Collection[int]) -> None:
        """Raise the epochs in one statement, rows in rising order. Who sleeps in a batch of theirs is ended. Raises Busy when PostgreSQL
        is away.
        """
        taking = asyncio.create_task(self._take(partitions, fresh))
        try:
            while not (await asyncio.wait({taking}, timeout=PATIENCE_S))[0]:
                await self._postgres.end_sleepers()
            rows = taking.result()
        finally:
            taking.cancel()
        self._epochs |= {row[0]: row[1] for row in rows}
        self._judged |= {row[0]: row[2] for row in rows}
        log.info("partitions_taken", broker=self._broker, partitions=sorted(partitions))

    async def _take(self, partitions: Sequence[int], fresh: Collection[int]) -> Sequence[asyncpg.Record]:
        return await self._postgres.execute(
            """INSERT INTO partition_owner AS o (broker, partition, epoch, owner)
               SELECT $1, partition, 1, $3 FROM unnest($2::int[]) AS p (partition) ORDER BY partition
               ON CONFLICT (broker, partition)
               DO UPDATE SET epoch = o.epoch + 1, owner = excluded.owner, taken_at = now(),
                   judged = CASE WHEN o.partition = ANY($4::int[]) THEN -1 ELSE o.judged END
               RETURNING partition, epoch, judged""",
            self._broker,
            list(partitions),
            self._owner,
            list(fresh),
        )

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Forget the epochs: a batch in work for them fails its check."""
        for partition in partitions:
            self._epochs.pop(partition, None)
        log.info("partitions_gone", broker=self._broker, partitions=sorted(partitions))

    def judged(self, partition: int, offset: int) -> bool:
        """Whether this record was decided about before its partition became ours: what is not stored of it was refused."""
        return offset <= self._judged.get(partition, -1)

    async def advance(self, connection: Connection, positions: Mapping[int, int]) -> None:
        """Inside the batch's transaction: everything up to these offsets, by partition, is judged.

        Raises StaleOwner unless every epoch is still ours. The rows stay locked until the commit, so a successor waits for this
        batch and judges nothing twice.
        """
        partitions = sorted(positions)
        rows = await connection.fetch(
            """UPDATE partition_owner AS o SET judged = greatest(o.judged, mine.judged)
               FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS mine (partition, epoch, judged)
               WHERE o.broker = $1 AND o.partition = mine.partition AND o.epoch = mine.epoch
               RETURNING o.partition""",
            self._broker,
            partitions,
            [self._epochs.get(partition, 0) for partition in partitions],
            [positions[partition] for partition in partitions],
        )
        if len(rows) != len(partitions):
            raise StaleOwner(f"partitions {partitions} of {self._broker} have a new owner")


async def check_partitions(postgres: Postgres, broker: Broker) -> None:
    """Store the partition count at first use; raises ConfigError when the configured one differs from it later."""
    stored = await postgres.fetchval(
        """INSERT INTO broker_partitions AS b (broker, partitions) VALUES ($1, $2)
           ON CONFLICT (broker) DO UPDATE SET partitions = b.partitions RETURNING partitions""",
        broker.name,
        broker.partitions,
    )
    if stored != broker.partitions:
        raise ConfigError(
            f"broker.partitions is {broker.partitions}, but this database was used with {stored}; set it back, or drain the broker "
            f"and update broker_partitions for {broker.name!r}."
        )


async def owners(postgres: Postgres, broker_name: str) -> dict[int, str]:
    """Who took each partition last, by partition; it may have ended since. Raises Busy."""
    rows = await postgres.fetch("SELECT partition, owner FROM partition_owner WHERE broker = $1", broker_name)
    return {row[0]: row[1] for row in rows}
