"""Which gateways a user is connected to: `User:Connect:{id}`, a ZSET of node ids scored by expiry in ms of Redis' own clock.

A hint that its writers keep alive: whoever is connected is written again with every renewal, so an emptied Redis fills by itself, and
what a gateway that was killed left behind ends with its expiry.
"""

from collections.abc import Mapping, Sequence

from app.errors import Busy
from app.storage.redis import ERRORS, Redis, Script, run_scripts

# Both by the clock of Redis: those of gateways may differ. Answers how many other nodes have the user now.
RENEW = Script(
    """
    local t = redis.call('TIME')
    local now = t[1] * 1000 + math.floor(t[2] / 1000)
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return redis.call('ZCARD', KEYS[1]) - 1
    """
)
REMOVE = Script(
    """
    local t = redis.call('TIME')
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + math.floor(t[2] / 1000))
    redis.call('ZREM', KEYS[1], ARGV[1])
    return redis.call('ZCARD', KEYS[1])
    """
)


class UserRoutes:
    """The routes of users, as seen from one node."""

    def __init__(self, redis: Redis, node_id: str, *, ttl_s: float) -> None:
        self._redis = redis
        self._node_id = node_id
        self._ttl_ms = round(ttl_s * 1000)

    async def write(self, here: Sequence[int], gone: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Renew the users that are connected here and remove those that are not, in one write; expired entries go too.

        Each user with the number of other nodes that have them. Raises Busy when Redis is away.
        """
        calls: list[tuple[Script, Sequence[str], Sequence[object]]] = [
            (RENEW, [_key(user_id)], [self._node_id, self._ttl_ms]) for user_id in here
        ]
        calls += [(REMOVE, [_key(user_id)], [self._node_id]) for user_id in gone]
        try:
            others = await run_scripts(self._redis, calls)
        except ERRORS as error:
            raise Busy("the routes cannot be written; Redis is away") from error
        return dict(zip(here, others, strict=False)), dict(zip(gone, others[len(here) :], strict=True))

    async def nodes_of(self, user_ids: Sequence[int]) -> Mapping[int, list[str]]:
        """The nodes that have each user now, newest renewal last. Raises Busy when Redis is away."""
        commands: list[tuple[object, ...]] = [("TIME",)]
        commands += [("ZRANGE", _key(user_id), 0, -1, "WITHSCORES") for user_id in user_ids]
        try:
            time, *found = await self._redis.run(commands)
        except ERRORS as error:
            raise Busy("the routes cannot be read; Redis is away") from error
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        return {
            user_id: [node.decode() for node, expiry in zip(flat[::2], flat[1::2], strict=True) if float(expiry) > now]
            for user_id, flat in zip(user_ids, found, strict=True)
        }


def _key(user_id: int) -> str:
    return f"User:Connect:{{{user_id}}}"
