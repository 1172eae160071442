"""The reading side of Kafka: a member of the consumer group whose positions are ours."""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

import structlog
from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, OffsetOutOfRangeError

from app.brokers.base import OwnershipListener, Record, Subscription
from app.brokers.kafka_clients import AWAY, Connection, Member
from app.brokers.kafka_cluster import Cluster, away

log = structlog.get_logger(__name__)

READ_AHEAD_S = 0.01
"""How long a fetch that finds records read ahead waits for more: as long as aiokafka keeps some it asks for no others, so what came
since is asked for only now. The answer takes one or two milliseconds."""
POLL_S = 0.2
"""How soon a waiting fetch sees what is not a record: partitions that come, a cluster that goes."""
LOOKS = 4
"""In a row, over `stall_s`, that a partition must be behind without getting anything: a record may just be on its way."""


@dataclass(slots=True)
class Owned:
    """A partition that is ours: what was handed out since it was taken is [taken_at, handed_out)."""

    taken_at: int
    read: int
    handed_out: int
    committed: int
    waiting: deque[Record] = field(default_factory=deque)
    read_before: int = -1
    stalls: int = 0


class Relay(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Tells a subscription what happens to one of its members; nothing of a former one."""

    def __init__(self, subscription: "KafkaSubscription", member: Member) -> None:
        self._subscription = subscription
        self._member = member

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Called by aiokafka before it joins again, while its heartbeat goes on."""
        if self._subscription.member is self._member:
            await self._subscription.on_revoking()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by aiokafka after it joined. Nothing is read before the listener has been told."""
        if self._subscription.member is self._member:
            self._member.pause(*assigned)
            self._subscription.on_given(sorted(one.partition for one in assigned))


class KafkaSubscription(Subscription):
    """Reads what the group gives it.

    A rebalance takes all partitions away and gives some back. It waits for the batch in work, until that is committed or the next
    fetch begins, but at most half a session: then the batch is for the next owner, and the fence drops ours.
    """

    def __init__(self, connection: Connection, cluster: Cluster, listener: OwnershipListener) -> None:
        self._connection = connection
        self._cluster = cluster
        self._options = connection.options
        self._listener = listener
        self.member: Member | None = None
        self._leaving: Member | None = None
        self._given: list[int] | None = None
        self._told: list[int] | None = None
        """What of it the listener knows: a fetch may be cancelled, or find Kafka away, before anything is read."""
        self._owned: dict[int, Owned] = {}
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._changed = asyncio.Event()
        self._looked = monotonic()
        self._ungiven_at = 0.0
        self.rejoins = 0
        """How often this one stood still and joined again."""

    async def join(self) -> None:
        """Become a member. Raises Busy."""
        if self._leaving is not None:
            await self._leaving.end(self._options.request_timeout_s)
            self._leaving = None
        self._given, self._ungiven_at = None, monotonic()
        self._changed.clear()
        member = self._connection.member()
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                await member.start()
                member.subscribe([self._options.topic], listener=Relay(self, member))
        except AWAY as error:
            await member.end(POLL_S)
            raise away(error) from error
        except BaseException:
            await member.end(POLL_S)
            raise
        self.member = member

    async def on_revoking(self) -> None:
        """A rebalance begins when this returns."""
        self._given, self._ungiven_at = None, monotonic()
        self._changed.clear()
        try:
            async with asyncio.timeout(self._options.session_timeout_s / 2):
                await self._at_rest.wait()
        except TimeoutError:
            log.warning("kafka_batch_too_slow_for_rebalance", partitions=sorted(self._owned))
        self._give_up()

    def on_given(self, partitions: list[int]) -> None:
        """A rebalance has ended. Only notes: what follows may wait for a store, and the group must not."""
        self._given = partitions
        self._changed.set()

    async def fetch(self, max_records: int) -> list[Record]:
        """As in `Subscription`."""
        self._at_rest.set()
        records: list[Record] = []
        while not records:
            while not await self._read(max_records, POLL_S):
                if self._cluster.away:
                    raise away()
            records = self._hand_out(max_records)
        self._at_rest.clear()
        return records

    async def commit(self, positions: Mapping[int, int]) -> None:
        """As in `Subscription`. Only what was handed out since its partition was taken counts: another owner may be further."""
        mine = {
            partition: owned
            for partition, offset in positions.items()
            if (owned := self._owned.get(partition)) and owned.taken_at <= offset < owned.handed_out
        }
        await self._move({partition: positions[partition] + 1 for partition in mine})
        for partition, owned in mine.items():
            owned.committed = positions[partition] + 1
        # The next batch may be in work; so may the listener, as long as nothing is owned.
        if self._owned and all(owned.committed == owned.handed_out for owned in self._owned.values()):
            self._at_rest.set()

    async def close(self) -> None:
        """Leave the group."""
        self._at_rest.set()
        self._give_up()
        for member in (self._leaving, self.member):
            if member is not None:
                await member.end(self._options.request_timeout_s)
        self.member = self._leaving = None

    @property
    def _waiting(self) -> int:
        return sum(len(owned.waiting) for owned in self._owned.values())

    async def _read(self, at_most: int, wait_s: float) -> int:
        """Read what is there, or wait `wait_s` for it; how many records wait to be handed out then."""
        await self._settle()
        await self._look_for_stalls()
        if self.member is None or self._given is None or not self._owned:
            # aiokafka's own calls would wait for the end of a rebalance without bound.
            await self._pause(wait_s)
            return self._waiting
        try:
            missing = at_most - self._waiting
            if missing > 0:
                found = await self._poll(self.member, 0, missing)
                self._take_in(found)
                if len(found) < missing and self._given is not None:
                    missing -= len(found)
                    found = await self._poll(self.member, READ_AHEAD_S if self._waiting else wait_s, missing)
                    self._take_in(found)
                if len(found) < missing:
                    return self._waiting  # all there is
            # In turn, so that a partition with much in it does not keep others from being read.
            for partition in [
                p for p, owned in self._owned.items() if len(owned.waiting) < at_most // len(self._owned) + 1
            ]:
                if self._given is not None:
                    self._take_in(await self._poll(self.member, 0, at_most, partition))
        except AWAY as error:
            await self._leave(type(error).__name__)
            raise away(error) from error
        return self._waiting

    async def _poll(self, member: Member, wait_s: float, at_most: int, *partitions: int) -> Sequence[ConsumerRecord]:
        wanted = [TopicPartition(self._options.topic, partition) for partition in partitions]
        try:
            async with asyncio.timeout(wait_s + POLL_S):
                found = await member.getmany(*wanted, timeout_ms=round(wait_s * 1000), max_records=at_most)
        except TimeoutError:
            # A rebalance began meanwhile.
            return []
        return [record for records in found.values() for record in records]

    def _take_in(self, records: Sequence[ConsumerRecord]) -> None:
        for record in records:
            owned = self._owned.get(record.partition)
            if owned is not None:
                if record.offset < owned.read:
                    # The topic was made again, and aiokafka went to its start without a word. Only joining asks where it begins.
                    raise OffsetOutOfRangeError
                owned.waiting.append(Record(record.partition, record.offset, record.value, record.timestamp))
                owned.read = record.offset + 1

    def _hand_out(self, at_most: int) -> list[Record]:
        """Equal parts of all partitions that have something; what one does not need goes to the others."""
        records: list[Record] = []
        while len(records) < at_most and (ready := [p for p, owned in self._owned.items() if owned.waiting]):
            part = max(1, (at_most - len(records)) // len(ready))
            for partition in ready[: at_most - len(records)]:
                # Re-inserted at the end: who comes last this time comes first the next.
                owned = self._owned[partition] = self._owned.pop(partition)
                taken = [owned.waiting.popleft() for _ in range(min(part, len(owned.waiting)))]
                owned.handed_out = taken[-1].offset + 1
                records += taken
        return records

    async def _settle(self) -> None:
        """Take what the group has given us, or join again."""
        if self.member is None:
            await self.join()
        given = self._given
        if not given or self._owned or self.member is None:
            return
        marks = await self._cluster.marks(given)
        # A rebalance that begins now waits: who tells the listener late would fence off the next owner.
        self._at_rest.clear()
        try:
            fresh = [partition for partition in given if marks[partition].fresh]
            if self._told is not given:
                await self._listener.on_assigned(given, fresh)
                self._told = given
            # Only the first owner begins a log: what the next one knows of it holds.
            await self._move({partition: marks[partition].position for partition in fresh})
            self._owned = {
                p: Owned(mark.position, mark.position, mark.position, mark.position) for p, mark in marks.items()
            }
        finally:
            self._at_rest.set()
        if self._given is not given:
            self._give_up()
            return
        for partition in given:
            where = TopicPartition(self._options.topic, partition)
            self.member.seek(where, marks[partition].position)
            self.member.resume(where)

    async def _move(self, positions: Mapping[int, int]) -> None:
        """The group reads these offsets next, unless the partitions went meanwhile. Raises Busy."""
        if not positions or self.member is None:
            return
        offsets = {TopicPartition(self._options.topic, partition): offset for partition, offset in positions.items()}
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                await self.member.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            log.info("kafka_commit_came_late", partitions=sorted(positions))
        except AWAY as error:
            raise away(error) from error

    def _give_up(self) -> None:
        told, self._told, self._owned = self._told, None, {}
        if told is not None:
            self._listener.on_revoked(told)

    async def _leave(self, reason: str) -> None:
        """Stop being this member; the next step joins as another."""
        log.warning("kafka_joining_again", reason=reason)
        self.rejoins += 1
        self._leaving, self.member, self._given = self.member, None, None
        self._give_up()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when partitions come."""
        if self._given is not None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _look_for_stalls(self) -> None:
        """aiokafka can stand still without an error, after a rebalance for one: then only a new member helps."""
        now = monotonic()
        if now - self._looked < self._options.stall_s / LOOKS or self._cluster.away:
            return
        self._looked = now
        if self.member is not None and self._given is None and now - self._ungiven_at > 2 * self._options.stall_s:
            await self._leave("not_given_partitions")
            return
        ends = await self._cluster.ends(list(self._owned))
        for partition, owned in self._owned.items():
            end = ends.get(partition, owned.read)
            stands = owned.read == owned.read_before and not owned.waiting
            owned.stalls = owned.stalls + 1 if stands and end != owned.read else 0
            owned.read_before = owned.read
            if owned.stalls >= LOOKS:
                await self._leave("standing_still")
                return
