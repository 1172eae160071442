"""The fence: `partition_owner(broker, partition, epoch)` in PostgreSQL. Taking a partition raises its epoch; whoever holds an older
one can commit nothing more, however long it slept.
"""

from collections.abc import Iterable, Mapping, Sequence

import structlog

from app.brokers.base import Broker
from app.errors import ConfigError
from app.storage.postgres import Connection, Postgres

log = structlog.get_logger(__name__)


class StaleOwner(Exception):
    """Another consumer took a partition of this batch: drop the batch, answer nothing."""


class Fence:
    """The epochs of the partitions this process owns. An OwnershipListener for the broker."""

    def __init__(self, postgres: Postgres, broker_name: str, owner: str) -> None:
        self._postgres = postgres
        self._broker = broker_name
        self._owner = owner
        self._epochs: dict[int, int] = {}

    async def on_assigned(self, partitions: Sequence[int]) -> None:
        """Raise the epochs in one statement, rows in rising order. Raises Busy when PostgreSQL is away."""
        rows = await self._postgres.execute(
            """INSERT INTO partition_owner AS o (broker, partition, epoch, owner)
               SELECT $1, partition, 1, $3 FROM unnest($2::int[]) AS p (partition) ORDER BY partition
               ON CONFLICT (broker, partition)
               DO UPDATE SET epoch = o.epoch + 1, owner = excluded.owner, taken_at = now()
               RETURNING partition, epoch""",
            self._broker,
            list(partitions),
            self._owner,
        )
        self._epochs |= {row[0]: row[1] for row in rows}
        log.info("partitions_taken", broker=self._broker, partitions=len(rows))

    async def on_revoked(self, partitions: Sequence[int]) -> None:
        """Forget the epochs: a batch in work for them fails its check."""
        for partition in partitions:
            self._epochs.pop(partition, None)

    async def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Inside the batch's transaction: raises StaleOwner unless every epoch is still ours.

        FOR SHARE makes a successor wait until this batch is committed, so nothing is judged twice.
        """
        mine: Mapping[int, int] = {p: self._epochs.get(p, 0) for p in partitions}
        rows = await connection.fetch(
            """SELECT partition, epoch FROM partition_owner WHERE broker = $1 AND partition = ANY($2::int[])
               ORDER BY partition FOR SHARE""",
            self._broker,
            list(mine),
        )
        if {row[0]: row[1] for row in rows} != mine:
            raise StaleOwner(f"partitions {sorted(mine)} of {self._broker} have a new owner")


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
