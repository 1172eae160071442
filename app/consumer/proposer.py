"""Numbers proposed by Redis: `Group:{id}:Seq`. PostgreSQL confirms them; a proposal that does not fit costs nothing but a correction."""

from collections.abc import Mapping

from app.metrics import Metrics
from app.storage.redis import Redis, Script, run_scripts

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


class Proposer:
    """Asks for numbers and puts Redis right. Methods raise redis errors when Redis is away."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics

    async def propose(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Ask for `counts` numbers for each group, in one pipeline. Returns the last number proposed, by group."""
        if not counts:
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        for group_id, count in counts.items():
            pipeline.incrby(_key(group_id), count)
        ends = await pipeline.execute()
        return dict(zip(counts, ends, strict=True))

    async def correct(self, proposed: Mapping[int, int], committed: Mapping[int, int]) -> None:
        """Where the committed head is not the proposed end, set Redis to the head; groups that do not exist leave no key."""
        wrong = {group: last for group, last in proposed.items() if committed.get(group, 0) != last}
        if wrong:
            self._metrics.seq_repairs.inc(len(wrong))
            calls = [(CORRECT, [_key(group)], [last, committed.get(group, 0)]) for group, last in wrong.items()]
            await run_scripts(self._redis, calls)


def _key(group_id: int) -> str:
    return f"Group:{{{group_id}}}:Seq"
