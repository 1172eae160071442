"""What waits: dead letters, and records in the broker that nobody has stored yet."""

import asyncio
from collections.abc import Mapping, Sequence

from app.brokers.base import Broker
from app.doctor.base import LOOKS, Check, Finding, Looked, Source

LISTED_MAX = 100


class DeadLetters(Check):
    """Sends that could not be stored."""

    name = "dead_letters"
    title = "no dead letters"
    unit = "dead letters"
    advice = "Sends that could not be stored wait for you: `run.py deadletters list`, then `replay` or `drop` them."
    by_group = False

    async def look(self, groups: Sequence[int]) -> Looked:
        """Newest reasons first."""
        rows = await self._source.rows(
            """SELECT reason, count(*), min(dead_letter_id), to_char(min(at), 'YYYY-MM-DD HH24:MI') FROM dead_letters
               GROUP BY reason ORDER BY count(*) DESC, reason LIMIT $1""",
            LISTED_MAX,
        )
        what = "{0}: {1}, the first is {2} of {3}"
        return Looked(sum(row[1] for row in rows), [Finding(row[2], what.format(*row), row[1]) for row in rows])


class Backlog(Check):
    """Records that no consumer has done."""

    name = "backlog"
    title = "consumers work on what waits in the broker"
    unit = "records"
    advice = "Nobody stores what is sent: look whether a consumer runs and what its /readyz says."
    by_group = False

    def __init__(self, source: Source, broker: Broker, *, settle_s: float) -> None:
        super().__init__(source)
        self._broker = broker
        self._settle_s = settle_s

    async def look(self, groups: Sequence[int]) -> Looked:
        """Something always waits under load; a partition is stuck where something waits and no batch commits. Raises Busy."""
        if not self._broker.durable:
            return Looked(0, [], "the log is in the memory of the server's process; see im_log_depth on its /metrics")
        await self._broker.start()
        try:
            return await self._look()
        finally:
            await self._broker.stop()

    async def _look(self) -> Looked:
        first = stuck = await self._state()
        for _ in range(LOOKS):
            if not stuck:
                break
            await asyncio.sleep(self._settle_s / LOOKS)
            now = await self._state()
            stuck = {partition: state for partition, state in stuck.items() if _stands(state, now.get(partition))}
        what = "partition {}: {} records wait, and none was decided about meanwhile"
        waiting = sum(count for count, _ in first.values())
        findings = [
            Finding(partition, what.format(partition, state[0]), state[0]) for partition, state in stuck.items()
        ]
        return Looked(waiting, findings)

    async def _state(self) -> dict[int, tuple[int, int]]:
        """Partition → (records that wait, last offset decided about), where something waits."""
        backlog: Mapping[int, int] = {p: count for p, count in (await self._broker.backlog()).items() if count}
        rows = await self._source.rows(
            "SELECT partition, judged FROM partition_owner WHERE broker = $1", self._broker.name
        )
        judged = {row[0]: row[1] for row in rows}
        return {partition: (count, judged.get(partition, -1)) for partition, count in backlog.items()}


def _stands(before: tuple[int, int], now: tuple[int, int] | None) -> bool:
    return now is not None and now[0] >= before[0] and now[1] == before[1]
