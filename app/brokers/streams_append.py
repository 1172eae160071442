"""The writing side of the log in Redis Streams: concurrent appends become one pipeline, one at a time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import NoScriptError, ResponseError

from app.brokers.streams_keys import stream_key
from app.errors import AppError, Busy, Internal
from app.lifecycle import Readiness
from app.storage.redis import ERRORS, Line, Redis, Script

FULL_RETRY_MS = 200
"""Asked to come back after about two batches' time."""
AWAY_RETRY_MS = 1000
PROBE_S = 0.2
"""Redis is away: asked again this often; a fifth of the time after which senders were told to come back."""

# The first entry of a new stream is marked `b` (it begins here), so that a reader of the one before it meets the mark. Identifiers
# are kept within what fits an offset: a clock that stands still (because it went back) would count `seq` up without end. An id of 20
# characters has a `seq` of six digits.
_APPEND = Script("""
local length = redis.call('XLEN', KEYS[1])
if length + #ARGV - 1 > tonumber(ARGV[1]) then return 0 end
local field, id = 'v', nil
if length == 0 and redis.call('EXISTS', KEYS[1]) == 0 then field = 'b' end
for i = 2, #ARGV do
    id = redis.call('XADD', KEYS[1], '*', field, ARGV[i])
    field = 'v'
end
if #id >= 20 then
    local ms, seq = string.match(id, '(%d+)-(%d+)')
    if tonumber(seq) >= 524288 then redis.call('XSETID', KEYS[1], string.format('%.0f-0', ms + 1)) end
end
return 1
""")


@dataclass(slots=True)
class _Append:
    partition: int
    values: Sequence[bytes]
    deadline: float
    done: asyncio.Future[None]

    def fail(self, error: AppError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Appender:
    """Appends in the order of the calls; a pipeline that failed is never repeated, because its records may be there.

    `on_lost` as Broker.on_lost: Redis may have been started again, with an empty log, whenever the connection is a new one.
    """

    def __init__(
        self, redis: Redis, readiness: Readiness, on_lost: Callable[[], bool], *, max_records: int, timeout_s: float
    ) -> None:
        self._line = Line(redis)
        self._readiness = readiness
        self._on_lost = on_lost
        self._max_records = max_records
        self._timeout_s = timeout_s
        self._waiting: list[_Append] = []
        self._waiting_records = 0
        self._wake_up = asyncio.Event()
        self._away = False

    def append(self, partition: int, values: Sequence[bytes]) -> asyncio.Future[None]:
        """As Broker.append; takes `timeout_s` at most."""
        loop = asyncio.get_running_loop()
        append = _Append(partition, values, loop.time() + self._timeout_s, loop.create_future())
        if not values:
            append.done.set_result(None)
        elif self._away:
            append.fail(_away())
        elif self._waiting_records + len(values) > self._max_records:
            append.fail(_full())
        else:
            self._waiting.append(append)
            self._waiting_records += len(values)
            self._wake_up.set()
        return append.done

    async def open(self) -> None:
        """Connect. Raises redis errors."""
        async with asyncio.timeout(self._timeout_s):
            await self._line.open()

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        try:
            while True:
                await self._wake_up.wait()
                self._wake_up.clear()
                if not self._waiting:
                    continue  # refused meanwhile
                batch, self._waiting, self._waiting_records = self._waiting, [], 0
                try:
                    await self._send(batch)
                except ERRORS as error:
                    await self._until_back(error)
        finally:
            self._refuse()
            await self._line.close()

    async def _send(self, batch: Sequence[_Append]) -> None:
        sent = False
        try:
            async with asyncio.timeout_at(batch[0].deadline):
                if await self._line.open() and self._on_lost():
                    # What came while the connection was made would go ahead of what was lost, too.
                    self._refuse()
                    return
                sent = True
                unknown = await self._run(batch, "EVALSHA", _APPEND.sha)
                # Redis started anew, or forgot its scripts: these were not run.
                await self._run(unknown, "EVAL", _APPEND.source)
        finally:
            for append in batch:
                append.fail(_unknown() if sent else _away())

    async def _run(self, batch: Sequence[_Append], command: str, script: str) -> list[_Append]:
        """Append in one pipeline; answers those for which Redis did not know the script."""
        await self._line.send(
            (command, script, 1, stream_key(append.partition), self._max_records, *append.values) for append in batch
        )
        return [append for append in batch if not await self._answered(append)]

    async def _answered(self, append: _Append) -> bool:
        try:
            appended = await self._line.reply()
        except NoScriptError:
            return False
        except ResponseError as error:
            # Refused before its first write: out of memory, read-only, a disk that is full.
            self._readiness.fail("log", "Redis refuses to append", error)
            append.fail(_away())
            return True
        self._readiness.clear("log")
        if not appended:
            append.fail(_full())
        elif not append.done.done():
            append.done.set_result(None)
        return True

    async def _until_back(self, error: BaseException) -> None:
        """Refuse everything until Redis answers."""
        self._away = True
        self._readiness.fail("log", "Redis does not answer", error)
        self._refuse()
        await self._line.close()
        while self._away:
            try:
                await self.open()
            except ERRORS:
                await self._line.close()
                await asyncio.sleep(PROBE_S)
            else:
                # In one step: whoever appends from here on knows what was lost.
                self._on_lost()
                self._away = False
        self._readiness.clear("log")

    def _refuse(self) -> None:
        for append in self._waiting:
            append.fail(_away())
        self._waiting, self._waiting_records = [], 0


def _full() -> Busy:
    return Busy("too many messages are waiting to be stored; try again shortly", retry_after_ms=FULL_RETRY_MS)


def _away() -> Busy:
    return Busy("the message log is not available; try again shortly", retry_after_ms=AWAY_RETRY_MS)


def _unknown() -> Internal:
    return Internal("the message log did not answer; send again with the same client_msg_id")
