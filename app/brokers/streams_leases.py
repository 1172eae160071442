"""Who reads which partition of the log in Redis Streams.

A reader registers in one ZSET and renews that in the background. A partition belongs to the reader that stands in its owner key, for
as long as that reader is registered; so there is one thing to renew, and nothing of a dead reader outlives its registration, whatever
Redis' clock does. Everything here is advice to readers: correctness rests on the fence in PostgreSQL.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from app.brokers.shares import share
from app.brokers.streams_keys import GROUP, READERS, owner_key, stream_key, to_id, to_offset
from app.errors import Busy
from app.storage.redis import ERRORS, Redis, Script, run_scripts

RETRY_MS = 500

# A full Redis lets those pass that say `allow-oom`: only who reads makes room again.

# Scores beyond now + lease are of a clock that went back since; their readers come again with their next renewal.
_REGISTER = Script("""#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now + ARGV[2], '+inf')
local new = redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return {new, redis.call('ZRANGE', KEYS[1], 0, -1)}
""")
_UNREGISTER = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")
# A log without its group began anew, and whoever owned it does not any more.
_OWNER = Script("""
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] then
    local groups = redis.pcall('XINFO', 'GROUPS', KEYS[2])
    if groups.err or #groups == 0 then return false end
end
return owner
""")
# Free, mine, or of the reader that is known to be gone. Answers the position, '' without one.
_TAKE = Script("""#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] and owner ~= ARGV[2] then return false end
redis.call('SET', KEYS[1], ARGV[1])
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[2])
if groups.err or #groups == 0 then return '' end
for i = 1, #groups[1], 2 do
    if groups[1][i] == 'last-delivered-id' then return groups[1][i + 1] end
end
""")
_CONFIRM = Script(f"""#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then redis.pcall('XGROUP', 'CREATE', KEYS[2], '{GROUP}', '0', 'MKSTREAM') end
return 1
""")
_RELEASE = Script("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end")
_COMMIT = Script(f"""#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.pcall('XGROUP', 'SETID', KEYS[2], '{GROUP}', ARGV[2]).err then return 0 end
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[3])
return 1
""")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reader should do to have its share."""

    give_up: Sequence[int]
    take: Sequence[int]

    def __bool__(self) -> bool:
        return bool(self.give_up or self.take)


class Leases:
    """The registration of one reader, and what it knows about the others. All calls raise Busy while Redis is away."""

    def __init__(
        self,
        redis: Redis,
        partitions: int,
        name: str,
        on_renewed: Callable[[], None],
        *,
        lease_s: float,
        renew_s: float,
    ) -> None:
        self._redis = redis
        self._partitions = partitions
        self._name = name
        self._on_renewed = on_renewed
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._readers: Collection[str] = ()
        self._owners: dict[int, str | None] = {}
        self._expires = 0.0
        self._emptied = False
        # A look at the owners must not be older than what this reader changed itself.
        self._lock = asyncio.Lock()
        self.error: BaseException | None = None
        """Why the last renewal failed."""

    @property
    def lapsed(self) -> bool:
        """Others may have taken everything meanwhile."""
        return monotonic() >= self._expires

    def owns(self, partition: int) -> bool:
        """As of the last renewal."""
        return self._owners.get(partition) == self._name

    async def renew(self) -> None:
        """Register, and look who else is there and who owns what."""
        async with self._lock:
            asked, known = monotonic(), not self.lapsed
            (new, readers), *owners = await self._run(
                (_REGISTER, [READERS], [self._name, round(self._lease_s * 1000)]),
                *((_OWNER, _keys(partition), [self._name]) for partition in range(self._partitions)),
            )
            # Redis forgot a registration that should be there, so it was emptied: the others are about to come again.
            self._emptied = known and bool(new)
            self._readers = {reader.decode() for reader in readers}
            self._owners = {p: None if owner is None else owner.decode() for p, owner in enumerate(owners)}
            self._expires = asked + self._lease_s

    async def run(self) -> None:
        """Renew until cancelled; `on_renewed` is called after each attempt."""
        while True:
            await asyncio.sleep(self._renew_s)
            left_s = self._expires - monotonic()
            try:
                # An attempt ends when the registration does, so that this is noticed then.
                async with asyncio.timeout(left_s if left_s > 0 else self._lease_s):
                    await self.renew()
            except (Busy, TimeoutError) as error:
                self.error = error
            else:
                self.error = None
            self._on_renewed()

    def plan(self, owned: Sequence[int]) -> Plan:
        """Compare what is owned and handed out with the even share."""
        if self._name not in self._readers:
            return Plan([], [])
        size = share(self._partitions, self._readers, self._name)
        mine = [p for p, owner in self._owners.items() if owner == self._name and p not in owned]
        free = [p for p, owner in self._owners.items() if owner not in self._readers and p not in owned]
        take = [*mine, *([] if self._emptied else free)][: max(0, size - len(owned))]
        return Plan([*owned[size:], *(p for p in mine if p not in take)], take)

    async def take(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """Own these; answers the positions of those that others did not take first, None for a log that began anew."""
        async with self._lock:
            answers = await self._run(
                *((_TAKE, _keys(p), [self._name, self._owners.get(p) or self._name]) for p in partitions)
            )
            taken = {p: answer for p, answer in zip(partitions, answers, strict=True) if answer is not None}
            self._owners |= dict.fromkeys(taken, self._name)
        return {p: to_offset(position) if position else None for p, position in taken.items()}

    async def confirm(self, taken: Mapping[int, int | None]) -> list[int]:
        """After the listener was told: logs that began anew get their position. Answers those that are still owned."""
        answers = await self._run(
            *((_CONFIRM, _keys(p), [self._name, int(position is None)]) for p, position in taken.items())
        )
        return [p for p, owned in zip(taken, answers, strict=True) if owned]

    async def release(self, partitions: Collection[int]) -> None:
        """Let others have these at their next renewal."""
        async with self._lock:
            await self._run(*((_RELEASE, _keys(partition), [self._name]) for partition in partitions))
            self._owners |= dict.fromkeys(partitions, None)

    async def leave(self) -> None:
        """Release everything and be a reader no more."""
        await self.release(range(self._partitions))
        await self._run((_UNREGISTER, [READERS], [self._name]))

    async def commit(self, positions: Mapping[int, int]) -> list[int]:
        """Move positions and trim what they passed. Answers the partitions that are not ours any more: nothing changed there."""
        answers = await self._run(
            *((_COMMIT, _keys(p), [self._name, to_id(offset), to_id(offset + 1)]) for p, offset in positions.items())
        )
        return [p for p, moved in zip(positions, answers, strict=True) if not moved]

    async def _run(self, *calls: tuple[Script, Sequence[str], Sequence[object]]) -> list[Any]:
        try:
            return await run_scripts(self._redis, calls)
        except ERRORS as error:
            raise away(error) from error


def away(error: BaseException) -> Busy:
    """Redis cannot be asked now."""
    return Busy(f"the message log is not available ({type(error).__name__})", retry_after_ms=RETRY_MS)


def _keys(partition: int) -> list[str]:
    return [owner_key(partition), stream_key(partition)]
