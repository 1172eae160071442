"""The registry in the Redis or Valkey of the caches: one hash, changed by one script."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.cluster.base import Node, NodeIdTaken, Reader, Registry, View
from app.errors import Busy
from app.storage.redis import ERRORS, Redis, Script, run_scripts

KEY = "Gateway:Nodes"
INCARNATION, SEEN = "/incarnation", "/seen"
"""Fields beside those of the nodes, whose ids hold no slash: which life this is, and the time when somebody looked."""

# Arguments: action, incarnation to begin with, lease in ms, then node id, boot id, JSON. Values are `until_ms boot_id json`, times are
# the server's, in ms since 1970. Answers whether the node id is free or ours, the time, and the hash without what has expired.
TOUCH = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSETNX', KEYS[1], '/incarnation', ARGV[2])
-- The clock may be set, or that of another machine after a failover. Where nobody looked for most of a lease, or so it seems, absence says
-- nothing about who was there; where it went back, leases would last too long.
local stored = redis.call('HGET', KEYS[1], '/seen')
local seen = tonumber(stored or now)
if now - seen > ARGV[3] * 2 / 3 then
    redis.call('HSET', KEYS[1], '/incarnation', ARGV[2])
elseif now < seen then
    local all = redis.call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
        local until_ms, rest = string.match(all[i + 1], '^(%d+)( .*)$')
        if until_ms then
            redis.call('HSET', KEYS[1], all[i], string.format('%.0f%s', until_ms - (seen - now), rest))
        end
    end
end
if not stored or now < seen or now - seen >= ARGV[3] / 6 then
    redis.call('HSET', KEYS[1], '/seen', string.format('%.0f', now))
end
local ours = 1
if ARGV[1] ~= 'read' then
    local until_ms, boot = string.match(redis.call('HGET', KEYS[1], ARGV[4]) or '', '^(%d+) (%S+) ')
    if boot and boot ~= ARGV[5] and tonumber(until_ms) > now then
        ours = 0
    elseif ARGV[1] == 'renew' then
        local value = string.format('%.0f %s %s', now + ARGV[3], ARGV[5], ARGV[6])
        redis.call('HSET', KEYS[1], ARGV[4], value)
    elseif boot == ARGV[5] then
        redis.call('HDEL', KEYS[1], ARGV[4])
    end
end
local all, alive = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
    local until_ms = tonumber(string.match(all[i + 1], '^(%d+) '))
    if until_ms and until_ms <= now then
        redis.call('HDEL', KEYS[1], all[i])
    else
        alive[#alive + 1] = all[i]
        alive[#alive + 1] = all[i + 1]
    end
end
return {ours, now, alive}
""")


UNTIL = re.compile(rb"(\d+) ")


@dataclass(frozen=True, slots=True)
class _Touched:
    """What the script answered; `held` is value by node id."""

    ours: bool
    now_ms: int
    incarnation: str
    held: Mapping[str, bytes]


class RedisRegistry(Registry):
    """Leases end by the clock of Redis; whoever looks removes what has expired. Emptied, or when its clock jumped ahead, it begins another
    incarnation.
    """

    def __init__(self, redis: Redis, *, lease_s: float, timeout_s: float) -> None:
        """`redis` is closed by `stop`."""
        self._redis = redis
        self._lease_ms = round(lease_s * 1000)
        self._timeout_s = timeout_s
        self._reader = Reader()

    async def start(self) -> None:
        """See Registry."""
        await self.read()

    async def renew(self, node: Node) -> View:
        """See Registry."""
        touched = await self._touch("renew", node.node_id, node.boot_id, node.encode())
        if not touched.ours:
            raise NodeIdTaken(node.node_id)
        return self._view(touched)

    async def read(self) -> View:
        """See Registry."""
        return self._view(await self._touch("read"))

    async def leases(self) -> Mapping[str, float]:
        """See Registry."""
        touched = await self._touch("read")
        ends = {name: UNTIL.match(value) for name, value in touched.held.items()}
        return {name: (int(end[1]) - touched.now_ms) / 1000 for name, end in ends.items() if end}

    async def leave(self, node: Node) -> None:
        """See Registry."""
        await self._touch("leave", node.node_id, node.boot_id)

    async def stop(self) -> None:
        """See Registry."""
        await self._redis.aclose()

    async def _touch(self, action: str, *arguments: Any) -> "_Touched":
        async with self._bounded():
            own = [action, secrets.token_hex(8), self._lease_ms]
            answers = await run_scripts(self._redis, [(TOUCH, [KEY], [*own, *arguments])])
        ours, now_ms, alive = answers[0]
        held = {field.decode(errors="replace"): value for field, value in zip(alive[::2], alive[1::2], strict=True)}
        incarnation = held.pop(INCARNATION).decode(errors="replace")
        held.pop(SEEN, None)
        return _Touched(bool(ours), now_ms, incarnation, held)

    def _view(self, touched: "_Touched") -> View:
        return self._reader.view(((name, _json(value)) for name, value in touched.held.items()), touched.incarnation)

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except ERRORS as error:
            raise Busy("the registry is away; try again") from error


def _json(value: bytes) -> bytes:
    """What stands behind the end of the lease and the boot id."""
    return value.split(b" ", 2)[-1]
