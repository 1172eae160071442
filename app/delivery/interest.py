"""Which groups have connections on this gateway, told to publishers through Redis: `delivery.group = routed`.

`Group:{id}:Nodes` is a ZSET of node ids, scored by when each entry expires. `Push:Nodes` is the marker: a hash of the gateways that have
written *all* their groups to *this* Redis, each until it expires, and the incarnation of the data: run id of the server, and a random
part. Whoever is not in it gets everything.
Times are milliseconds since 1970 by the clock of Redis.
"""

import asyncio
import random
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from time import monotonic
from typing import Any, NamedTuple, Protocol

import structlog

from app.storage.redis import ERRORS, Redis, Script, run_scripts

log = structlog.get_logger(__name__)

KEY = "Push:Nodes"
INCARNATION = b"/incarnation"
"""A field beside those of the nodes, whose ids hold no slash."""
LEASE_S = 600.0
"""Of an entry. Only for tidying up: a gateway that is gone is known by the marker. The same everywhere, because the key expires with it."""
RENEWALS_PER_LEASE = 3
CHUNK = 500
"""Groups in one pipeline: about 2 ms of Redis, so that nobody else waits long."""
LOOKS_MAX = 20_000
"""Groups looked at in one step: a few ms of this process."""

# Arguments: an incarnation to begin with, the one in which all groups were written, node id, lease in ms. Removes who has expired.
# Answers the incarnation and the time. A server that was restarted, or a replica that took over, may lack the last writes though it has
# the marker: with another run id than that of the incarnation it counts as emptied.
BEAT = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
local incarnation = redis.call('HGET', KEYS[1], '/incarnation')
if not incarnation or string.sub(incarnation, 1, #server) ~= server then
    incarnation = server .. ':' .. ARGV[1]
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], '/incarnation', incarnation)
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local until_ms = tonumber(all[i + 1])
    if string.sub(all[i], 1, 1) ~= '/' and (not until_ms or until_ms <= now) then
        redis.call('HDEL', KEYS[1], all[i])
    end
end
if incarnation == ARGV[2] then
    redis.call('HSET', KEYS[1], ARGV[3], string.format('%.0f', now + ARGV[4]))
else
    redis.call('HDEL', KEYS[1], ARGV[3])
end
return {incarnation, string.format('%.0f', now)}
""")

# Arguments: node id, expiry. A removal that was delayed must not undo a later entry.
REMOVE = Script("""
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) < tonumber(ARGV[2]) then
    redis.call('ZREM', KEYS[1], ARGV[1])
end
""")

Hold = Callable[[Collection[int]], Awaitable[bool]]
"""`Interest.hold`, or `hold_nothing`."""


class LocalGroups(Protocol):
    """The hub, as far as interest needs it."""

    def is_local(self, group_id: int) -> bool:
        """Whether messages of this group have anywhere to go here."""

    def mark_stale(self, group_ids: Iterable[int]) -> None:
        """Compare these groups with the store."""


class ServerClock:
    """The time of Redis, as last heard; moves on by this process's monotonic clock."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def heard(self, now_ms: float) -> float:
        """Redis said what time it is; by how many ms that is another than expected."""
        before, self._ahead_ms = self._ahead_ms, now_ms - monotonic() * 1000
        return 0.0 if before is None else abs(self._ahead_ms - before)

    def now_ms(self) -> int:
        """Now. 0: never heard."""
        return 0 if self._ahead_ms is None else round(monotonic() * 1000 + self._ahead_ms)


async def hold_nothing(_: Collection[int]) -> bool:
    """Where everything goes to all."""
    return False


def group_key(group_id: int) -> str:
    """Where the gateways of a group stand."""
    return f"Group:{{{group_id}}}:Nodes"


class _Held(NamedTuple):
    due: float
    """When to look at it again."""
    written: float
    idle: bool
    """Whether nobody needed it at the last look."""


class Interest:
    """Keeps the entries of this gateway. While Redis is away groups wait to be written; then they are compared with the store."""

    def __init__(
        self,
        redis: Redis,
        node_id: str,
        groups: LocalGroups,
        *,
        beat_s: float,
        marker_lease_s: float,
        linger_s: float,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`linger_s`: a group is kept so long, at most twice, after its last connection has gone. `clock` gives seconds."""
        self._redis = redis
        self._node_id = node_id
        self._groups = groups
        self._beat_s = beat_s
        self._marker_lease_s = marker_lease_s
        self._linger_s = linger_s
        self._lease_s = lease_s
        self._renew_s = lease_s / RENEWALS_PER_LEASE
        self._clock = clock
        self._time = ServerClock()
        self._held: OrderedDict[int, _Held] = OrderedDict()
        """By when to look at them again."""
        self._owed: dict[int, bool] = {}
        """Groups that are to be written; true: they were read before, so they must be compared after."""
        self._incarnation = ""
        """Of the Redis in which all of them were written; empty: there is none."""
        self._beaten_at = float("-inf")
        self._away = False
        self._writing = asyncio.Lock()

    async def hold(self, group_ids: Collection[int]) -> bool:
        """Have an entry for each group before this returns; then messages committed after a read that begins now come here.

        True: some are new, and what was read of them before may be old. Does not raise: what cannot be written now is written
        later, and compared with the store then.
        """
        now, missing = self._clock(), []
        for group_id in group_ids:
            held = self._held.get(group_id)
            if held is None:
                missing.append(group_id)
                continue
            self._held[group_id] = _Held(now + self._linger_s, held.written, idle=False)
            self._held.move_to_end(group_id)
            if now - held.written >= self._renew_s:
                # Its turn to be looked at is put off again and again where people come all the time.
                self._owed.setdefault(group_id, False)
        if not missing:
            return False
        if not self._away and await self._write_now(missing):
            return True
        self._owed.update(dict.fromkeys(missing, True))
        return False

    async def _write_now(self, group_ids: Sequence[int]) -> bool:
        """False: Redis is away."""
        async with self._writing:
            # Whoever was before us may have waited for it in vain; that is enough.
            if self._away or not self._time.now_ms():
                return False
            try:
                await self._write(group_ids)
            except ERRORS as error:
                log.warning("interest_not_written", groups=len(group_ids), error=str(error))
                self._away = True
                return False
        return True

    async def run(self) -> None:
        """Keep them until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._beat_s * random.uniform(0.9, 1.0))  # noqa: S311 - jitter, not a secret

    async def step(self) -> None:
        """One heartbeat: the marker, what is owed, and groups whose turn it is."""
        if self._clock() - self._beaten_at > self._marker_lease_s:
            # The marker has expired, and nobody knows what else did.
            self._incarnation = ""
        try:
            incarnation = await self._beat()
            if incarnation != self._incarnation:
                await self._begin_anew(incarnation)
            else:
                await self._settle()
            self._away = False
            await self._look()
        except ERRORS as error:
            if not self._away:
                log.warning("interest_not_kept", error=str(error))
            self._away = True

    async def _beat(self) -> str:
        began = self._clock()
        lease_ms = round(self._marker_lease_s * 1000)
        arguments = [secrets.token_hex(8), self._incarnation, self._node_id, lease_ms]
        ((incarnation, now_ms),) = await run_scripts(self._redis, [(BEAT, [KEY], arguments)])
        if self._time.heard(float(now_ms)) > lease_ms:
            # The clock of Redis was set: what was written before may look expired.
            self._incarnation = ""
        self._beaten_at = began
        return str(incarnation.decode())

    async def _begin_anew(self, incarnation: str) -> None:
        """Write everything to this Redis; only then say that it is there, if it still is the same Redis."""
        log.info("interest_begun", groups=len(self._held) + len(self._owed), again=bool(self._held))
        self._incarnation = ""
        # A marker of before, as when the clock of Redis was set, must not vouch for what is not written yet.
        await self._beat()
        # In turn: a write whose answer is on its way may have gone to the Redis that was.
        async with self._writing:
            # All go to all meanwhile, so there is nothing to compare.
            self._owed = dict.fromkeys(self._held, False) | self._owed
            self._held.clear()
        await self._settle()
        self._incarnation = incarnation
        await self._beat()

    async def _settle(self) -> None:
        while self._owed:
            chunk = list(self._owed)[:CHUNK]
            async with self._writing:
                await self._write(chunk)
            # Local or not: whoever needs such a group may have read it, and join only now.
            self._groups.mark_stale([group_id for group_id in chunk if self._owed.pop(group_id, False)])

    async def _look(self) -> None:
        """Renew what is old, and let go of what nobody here needs any more."""
        now, limit_ms = self._clock(), self._time.now_ms() + round(self._lease_s * 1000)
        renew, remove = [], []
        for _ in range(LOOKS_MAX):
            group_id, held = next(iter(self._held.items()), (0, None))
            if held is None or held.due > now:
                break
            idle = not self._groups.is_local(group_id)
            if idle and held.idle:
                # Whoever comes from now on writes it anew, with a later expiry than `limit_ms`.
                del self._held[group_id]
                remove.append(group_id)
                continue
            self._held[group_id] = _Held(now + self._linger_s, held.written, idle)
            self._held.move_to_end(group_id)
            if not idle and now - held.written >= self._renew_s:
                renew.append(group_id)
        for start in range(0, len(renew), CHUNK):
            async with self._writing:
                await self._write(renew[start : start + CHUNK])
        for start in range(0, len(remove), CHUNK):
            chunk = remove[start : start + CHUNK]
            # What is not removed now expires.
            await run_scripts(self._redis, [(REMOVE, [group_key(each)], [self._node_id, limit_ms]) for each in chunk])

    async def _write(self, group_ids: Sequence[int]) -> None:
        """Called by whoever holds the lock. Raises redis errors."""
        for start in range(0, len(group_ids), CHUNK):
            now, now_ms = self._clock(), self._time.now_ms()
            lease_ms = round(self._lease_s * 1000)
            commands: list[tuple[Any, ...]] = []
            for group_id in (chunk := group_ids[start : start + CHUNK]):
                key = group_key(group_id)
                commands.append(("ZADD", key, now_ms + lease_ms, self._node_id))
                commands.append(("ZREMRANGEBYSCORE", key, "-inf", now_ms))
                commands.append(("PEXPIRE", key, lease_ms))
            await self._redis.run(commands)
            for group_id in chunk:
                self._held[group_id] = _Held(now + self._linger_s, now, idle=False)
                self._held.move_to_end(group_id)
