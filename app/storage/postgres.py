"""PostgreSQL through asyncpg: one pool per process, bounded waits, driver errors turned into `Busy`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import structlog

from app.errors import Busy, Outcome

log = structlog.get_logger(__name__)
NAME = "magpie"
"""Of our connections in `pg_stat_activity`."""

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

UNAVAILABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # The driver lost track of a connection, as when the server dies in the midst of an answer.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    # Shut down, starting, cancelled; disk or memory full, too many connections; a failing disk.
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    # A standby after a failover; a process that slept; deadlocks; locks; a schema that changed under a prepared statement.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)
"""The store is away or asks to try again; the data are not at fault."""
DATA_CLASSES = frozenset({"22", "23", "54"})
"""SQLSTATE classes of what lies in the data: values, constraints, limits of size."""


def blames_data(error: BaseException) -> bool:
    """Whether PostgreSQL refuses these data and would take others.

    False for what must be mended in the database, such as a missing right or table or a broken index: whatever is stored fails then.
    """
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in DATA_CLASSES


class Postgres:
    """A pool of connections.

    `connection()` and `transaction()` raise `Busy` when no connection can be had in time or the server is away. Errors about the
    data (constraint violations and the like) pass through as asyncpg raises them.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_min: int,
        pool_max: int,
        connect_timeout_s: float,
        command_timeout_s: float,
        acquire_timeout_s: float,
        idle_in_transaction_s: float = 5.0,
    ) -> None:
        self._dsn = dsn
        self._pool_min = pool_min
        self._pool_max = pool_max
        self._connect_timeout_s = connect_timeout_s
        self._command_timeout_s = command_timeout_s
        self._acquire_timeout_s = acquire_timeout_s
        self._idle_in_transaction_s = idle_in_transaction_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def start(self) -> None:
        """Open the pool. Raises Busy when the server cannot be reached or lets nobody in."""
        pool = asyncpg.create_pool(
            self._dsn,
            min_size=min(self._pool_min, self._pool_max),
            max_size=self._pool_max,
            timeout=self._connect_timeout_s,
            command_timeout=self._command_timeout_s,
            server_settings={
                "application_name": NAME,
                # JIT costs more than it saves on short queries; the plan of a generic statement must not flip under load.
                "jit": "off",
                # Who sleeps or vanishes in a transaction holds its locks: the fence's too, so nobody could take its partitions.
                "idle_in_transaction_session_timeout": str(round(self._idle_in_transaction_s * 1000)),
            },
            reset=_nothing_to_reset,
        )
        try:
            self._pool = await pool
        except UNAVAILABLE as error:
            raise Busy("the database is not available; try again", retry_after_ms=1000) from error

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Close the pool, at the latest after `timeout_s`."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(timeout_s):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def end_sleepers(self) -> None:
        """End transactions of ours whose process has said nothing for `idle_in_transaction_s` amid a statement: in a COPY, before the rest
        of a message. PostgreSQL itself ends only those between two statements. Raises Busy.
        """
        ended = await self.execute(
            """SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = current_user AND application_name = $1 AND xact_start IS NOT NULL
                   AND wait_event = 'ClientRead' AND state_change < now() - make_interval(secs => $2)""",
            NAME,
            self._idle_in_transaction_s,
        )
        if ended:
            log.warning("sleepers_ended", backends=[row[0] for row in ended])

    @asynccontextmanager
    async def connection(self, *, commits: bool = False) -> AsyncIterator[Connection]:
        """A connection in autocommit mode; `commits`: its statement changes something, so a lost answer leaves that unknown."""
        if self._pool is None:
            raise Busy("the server is starting or stopping", retry_after_ms=1000)
        outcome: Outcome = "none"
        try:
            async with self._pool.acquire(timeout=self._acquire_timeout_s) as connection:
                outcome = "unknown" if commits else "none"
                try:
                    yield connection
                except asyncpg.InternalClientError:
                    # Not for the next one.
                    connection.terminate()
                    raise
        except UNAVAILABLE as error:
            if isinstance(error, ValueError):
                # asyncpg's client-side DataError is an InterfaceError too, but the data are at fault.
                raise
            log.warning("postgres_unavailable", error=type(error).__name__, detail=str(error))
            raise Busy("the database is not available; try again", retry_after_ms=1000, outcome=outcome) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside one READ COMMITTED transaction; commits on leaving, rolls back on an exception.

        Raises Busy with outcome `unknown` when the connection is lost during the commit.
        """
        committing = False
        async with self.connection() as connection:
            try:
                async with connection.transaction():
                    yield connection
                    committing = True
            except UNAVAILABLE as error:
                if not committing:
                    raise
                log.warning("commit_unknown", error=type(error).__name__, detail=str(error))
                raise Busy(
                    "the database went away while it stored this; look whether it did",
                    retry_after_ms=1000,
                    outcome="unknown",
                ) from error

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """All rows of one statement."""
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        """The first row of one statement."""
        async with self.connection() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first column of the first row of one statement."""
        async with self.connection() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement that changes something and commits by itself; the rows it returns."""
        async with self.connection(commits=True) as connection:
            return await connection.fetch(query, *args)


async def _nothing_to_reset(_connection: Connection) -> None:
    """No statement of ours leaves anything in a session, so the round trip that cleans it is saved. asyncpg has rolled back already."""
