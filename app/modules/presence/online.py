"""Who counts as online: `Presence:Online`, one ZSET of user ids, scored by when somebody must look whether they still are.

A user stands in it from the moment the others were told "online" until they are told "offline"; so it is the state, and the list of what is
due. Whoever is connected is put far into the future again and again. Who went is put a few seconds ahead: a page that is loaded again
and a move to another gateway are over by then, and nobody hears of them. A gateway that was killed writes nothing, so its users become due
by themselves. Scores and moments are ms by the clock of Redis.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import Busy
from app.storage.redis import ERRORS, Redis, Script, run_scripts

KEY = "Presence:Online"

NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "

# Answers the moment and who was not online before. Who left stands there for the grace, known or not: Redis may have been emptied.
WRITE = Script(
    NOW
    + """
    local answer = {now}
    local here = tonumber(ARGV[3])
    for i = 4, 3 + here do
      if redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) == 1 then answer[#answer + 1] = ARGV[i] end
    end
    for i = 4 + here, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[i]) end
    return answer
    """
)
# Who takes them has a while to settle them; then they are due again.
TAKE_DUE = Script(
    NOW
    + """
    local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
    for i = 1, #due, 2 do redis.call('ZADD', KEYS[1], now + ARGV[1], due[i]) end
    table.insert(due, 1, now + ARGV[1])
    return due
    """
)
# Only those who did not come back meanwhile.
REMOVE = Script(
    NOW
    + """
    local answer = {now}
    for i = 2, #ARGV do
      if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i])) == tonumber(ARGV[1]) then
        redis.call('ZREM', KEYS[1], ARGV[i])
        answer[#answer + 1] = ARGV[i]
      end
    end
    return answer
    """
)
# Long overdue: there is no gateway left that could look.
READ = Script(
    NOW
    + """
    local answer = {now}
    for i, score in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(ARGV, 2))) do
      if score and tonumber(score) > now - ARGV[1] then answer[#answer + 1] = ARGV[i + 1] end
    end
    return answer
    """
)

OVERDUE_MS = 15_000
"""Longer than a claim and the pauses of those who look."""


class OnlineUsers:
    """Every method raises Busy when Redis is away."""

    def __init__(self, redis: Redis, *, ttl_s: float, grace_s: float) -> None:
        self._redis = redis
        self._ttl_ms = round(ttl_s * 1000)
        self._grace_ms = round(grace_s * 1000)

    async def write(self, here: Sequence[int], left: Sequence[int]) -> tuple[int, list[int]]:
        """Keep who is connected here, give a grace to those whose last connection anywhere ended. (ts, who came online)."""
        return await self._ids(WRITE, self._ttl_ms, self._grace_ms, len(here), *here, *left)

    async def take_due(self, claim_s: float, at_most: int) -> tuple[int, dict[int, int]]:
        """(claim, users to look at, each with since when): nobody else gets them for `claim_s` seconds."""
        claim, *due = await _run(self._redis, TAKE_DUE, KEY, [round(claim_s * 1000), at_most])
        return int(claim), {int(user_id): int(float(at)) for user_id, at in zip(due[::2], due[1::2], strict=True)}

    async def remove(self, claim: int, user_ids: Sequence[int]) -> tuple[int, list[int]]:
        """(ts, who went offline): without those who came back, or were claimed anew, since they were taken."""
        return await self._ids(REMOVE, claim, *user_ids)

    async def among(self, user_ids: Sequence[int]) -> tuple[int, set[int]]:
        """(ts, who of them is online); at least one is asked for."""
        ts, online = await self._ids(READ, OVERDUE_MS, *user_ids)
        return ts, set(online)

    async def _ids(self, script: Script, *arguments: object) -> tuple[int, list[int]]:
        first, *ids = await _run(self._redis, script, KEY, arguments)
        return int(first), [int(user_id) for user_id in ids]


# A hash of node → "count expiry". Nodes that ended are left out and forgotten.
COUNT = Script(
    NOW
    + """
    if ARGV[2] == '0' then redis.call('HDEL', KEYS[1], ARGV[1])
    elseif ARGV[1] ~= '' then
      redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%d', now + ARGV[3]))
      redis.call('PEXPIRE', KEYS[1], ARGV[3])
    end
    local sum, all = 0, redis.call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
      local count, expiry = string.match(all[i + 1], '(%d+) (%d+)')
      if tonumber(expiry) > now then sum = sum + count else redis.call('HDEL', KEYS[1], all[i]) end
    end
    return {now, sum}
    """
)


class GroupCounts:
    """`Group:Online:{id}`: how many members of a large group are connected, by gateway. Who is at two gateways counts twice."""

    def __init__(self, redis: Redis, node_id: str, *, ttl_s: float) -> None:
        self._redis = redis
        self._node_id = node_id
        self._ttl_ms = round(ttl_s * 1000)

    async def write(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Say how many are here, by group; the sum of all gateways of each. Raises Busy."""
        calls: list[tuple[Script, Sequence[str], Sequence[Any]]] = [
            (COUNT, [_key(group_id)], [self._node_id, count, self._ttl_ms]) for group_id, count in counts.items()
        ]
        try:
            answers = await run_scripts(self._redis, calls)
        except ERRORS as error:
            raise Busy("nobody knows who is online; Redis is away", retry_after_ms=1000) from error
        return {group_id: int(answer[1]) for group_id, answer in zip(counts, answers, strict=True)}

    async def read(self, group_id: int) -> tuple[int, int]:
        """(ts, members online). Raises Busy."""
        ts, online = await _run(self._redis, COUNT, _key(group_id), ["", "", 0])
        return int(ts), int(online)


async def _run(redis: Redis, script: Script, key: str, arguments: Sequence[object]) -> Any:
    try:
        (answer,) = await run_scripts(redis, [(script, [key], arguments)])
    except ERRORS as error:
        raise Busy("nobody knows who is online; Redis is away", retry_after_ms=1000) from error
    return answer


def _key(group_id: int) -> str:
    return f"Group:Online:{{{group_id}}}"
