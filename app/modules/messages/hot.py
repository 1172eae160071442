"""The newest messages of a group in Redis: `Group:{id}:Hot`, a ZSET of JSON items scored by seq. A cache: wiping it harms nothing."""

from collections.abc import Mapping, Sequence

import structlog

from app.storage.redis import ERRORS, UNAVAILABLE, Redis, Script, run_scripts, unlink_broken

log = structlog.get_logger(__name__)

# Messages nearly always follow what is there. Where one does not, it replaces its score: an older copy of a seq (written by a consumer that
# crashed before publishing) must not stay beside the new one. And what is older than a hole goes: a repeat may be from long ago.
STORE = Script(
    """
    local before = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] or ARGV[3] - 1)
    local follow = true
    for i = 3, #ARGV, 2 do
      follow = follow and before + 1 == tonumber(ARGV[i])
      before = tonumber(ARGV[i])
      if not follow then redis.call('ZREMRANGEBYSCORE', KEYS[1], ARGV[i], ARGV[i]) end
      redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
    end
    if not follow then
      local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
      for i = #all - 2, 2, -2 do
        if all[i] + 1 ~= tonumber(all[i + 2]) then
          redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', all[i])
          break
        end
      end
    end
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(tonumber(ARGV[1]) + 1))
    redis.call('EXPIRE', KEYS[1], ARGV[2])
    return 1
    """
)


class HotCache:
    """Reads answer only what is proven complete; everything else is left to PostgreSQL."""

    def __init__(self, redis: Redis, size: int, ttl_s: int) -> None:
        self._redis = redis
        self._size = size
        self._ttl_s = ttl_s

    async def store(self, items: Mapping[int, Sequence[tuple[int, bytes]]]) -> None:
        """Cache (seq, item) pairs by group, each with rising seq; nothing stays below a hole, and a key that is no ZSET goes.

        Raises redis errors when Redis is away.
        """
        calls = [
            (STORE, [_key(group)], [self._size, self._ttl_s, *(part for pair in pairs[-self._size :] for part in pair)])
            for group, pairs in items.items()
        ]
        answers = await run_scripts(self._redis, calls, errors=True)
        await unlink_broken(self._redis, [_key(group) for group in items], answers)

    async def items_between(self, ranges: Mapping[int, tuple[int, int]]) -> dict[int, list[bytes]]:
        """Complete ranges only: group → items from first to last seq; groups that are not complete here are left out."""
        commands = [
            ("ZRANGE", _key(group), first, last, "BYSCORE", "WITHSCORES") for group, (first, last) in ranges.items()
        ]
        try:
            answers = await self._redis.run(commands)
        except ERRORS as error:
            log.warning("hot_cache_unavailable", error=str(error))
            return {}
        found = {}
        for (group, (first, last)), flat in zip(ranges.items(), answers, strict=True):
            if [int(float(score)) for score in flat[1::2]] == list(range(first, last + 1)):
                found[group] = flat[::2]
        return found

    async def contents(self, group_ids: Sequence[int]) -> dict[int, list[tuple[float, bytes]] | None]:
        """Group → its (score, item), rising score, one more than there should be at most; None for a key that is no ZSET.

        Raises redis errors when Redis is away.
        """
        commands = [("ZRANGE", _key(group_id), -self._size - 1, -1, "WITHSCORES") for group_id in group_ids]
        found: dict[int, list[tuple[float, bytes]] | None] = {}
        for group_id, flat in zip(group_ids, await self._redis.run(commands, errors=True), strict=True):
            if isinstance(flat, UNAVAILABLE):
                raise flat
            found[group_id] = (
                None
                if isinstance(flat, Exception)
                else [(float(score), item) for item, score in zip(flat[::2], flat[1::2], strict=True)]
            )
        return found

    async def drop(self, group_ids: Sequence[int]) -> None:
        """Forget what is cached of these groups; PostgreSQL answers until it is filled again."""
        await self._redis.run([("UNLINK", _key(group_id)) for group_id in group_ids])

    def may_hold(self, first: int, last_seq: int) -> bool:
        """Whether a range that starts at `first` can be in the cache of a group whose last message is `last_seq`."""
        return first > last_seq - self._size


def _key(group_id: int) -> str:
    return f"Group:{{{group_id}}}:Hot"
