"""Numbers proposed by Redis: `Group:{id}:Seq`. PostgreSQL confirms them; a proposal that does not fit costs nothing but a correction."""

from collections.abc import Mapping, Sequence

from app.metrics import Metrics
from app.storage.redis import Redis, Script, run_scripts, unlink_broken

# Only if nobody moved it since: the value that was seen, then the value it must have.
CORRECT = Script(
    """
    if redis.call('GET', KEYS[1]) == ARGV[1] then
      if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
      return 1
    end
    return 0
    """
)

# A counter that is there never stays below a committed number.
RAISE = Script(
    """
    local at = redis.call('GET', KEYS[1])
    if at and tonumber(at) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
    return 1
    """
)


class Proposer:
    """Asks for numbers and puts Redis right. Methods raise redis errors when Redis is away."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics

    async def propose(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Ask for `counts` numbers for each group, in one write. Returns the last number proposed, by group; none of a broken key."""
        keys = [_key(group_id) for group_id in counts]
        commands = [("INCRBY", key, count) for key, count in zip(keys, counts.values(), strict=True)]
        ends = await self._redis.run(commands, errors=True)
        await unlink_broken(self._redis, keys, ends)
        return {group: end for group, end in zip(counts, ends, strict=True) if not isinstance(end, Exception)}

    async def correct(self, proposed: Mapping[int, int], committed: Mapping[int, int]) -> None:
        """Where the committed head is not the proposed end, set Redis to the head; groups that do not exist leave no key."""
        wrong = {group: last for group, last in proposed.items() if committed.get(group, 0) != last}
        if wrong:
            self._metrics.seq_repairs.inc(len(wrong))
            calls = [(CORRECT, [_key(group)], [last, committed.get(group, 0)]) for group, last in wrong.items()]
            answers = await run_scripts(self._redis, calls, errors=True)
            await unlink_broken(self._redis, [_key(group) for group in wrong], answers)

    async def counters(self, group_ids: Sequence[int]) -> dict[int, str]:
        """The counters as they stand, as text; groups without one are absent."""
        found = await self._redis.run([("GET", _key(group_id)) for group_id in group_ids], errors=True)
        return {group: _text(value) for group, value in zip(group_ids, found, strict=True) if value is not None}

    async def replace(self, seen: Mapping[int, str], heads: Mapping[int, int]) -> None:
        """Set counters to the heads, unless they moved since they were seen."""
        await run_scripts(
            self._redis, [(CORRECT, [_key(group)], [value, heads.get(group, 0)]) for group, value in seen.items()]
        )

    async def drop(self, group_ids: Sequence[int]) -> None:
        """Forget counters: the next proposal does not fit, and is put right."""
        await self._redis.run([("UNLINK", _key(group_id)) for group_id in group_ids])

    async def raise_to(self, heads: Mapping[int, int]) -> None:
        """Lift counters that are there and below these committed numbers."""
        await run_scripts(self._redis, [(RAISE, [_key(group)], [last]) for group, last in heads.items()])


def _text(value: bytes | Exception) -> str:
    """What is no text is shown as what is wrong with it."""
    return f"({value})" if isinstance(value, Exception) else value.decode("ascii", "replace")


def _key(group_id: int) -> str:
    return f"Group:{{{group_id}}}:Seq"
