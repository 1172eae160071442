"""One change of a group: lock its narrow row, check, change, raise the version, write the audit log, commit; then publish.

The consumer locks the same row, so every change is ordered against the sends: what is committed after a kick is not from the kicked.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from app.delivery.publisher import Publisher
from app.modules.groups.access import no_such_group
from app.modules.groups.repository import GroupRepository
from app.modules.groups.state_repository import StateRepository
from app.protocol.magpie_pb2 import Event
from app.storage.postgres import Connection, Postgres


class GroupChange:
    """An open transaction that holds the group's lock; `events` are published after its commit, in order."""

    def __init__(
        self, connection: Connection, groups: GroupRepository, actor_id: int, group_id: int, last_seq: int, version: int
    ) -> None:
        self.connection = connection
        self.actor_id = actor_id
        self.group_id = group_id
        self.last_seq = last_seq
        self.version = version
        """The `access_version`, already raised after the first `record`."""
        self.events: list[Event] = []
        self._groups = groups
        self._raised = False

    async def record(
        self, action: str, target_id: int | None = None, details: Mapping[str, object] | None = None
    ) -> None:
        """Members see the group changed: raise the version (once), write the audit log."""
        if not self._raised:
            self.version = await self._groups.raise_version(self.connection, self.group_id)
            self._raised = True
        await self.note(action, target_id, details)

    async def note(
        self, action: str, target_id: int | None = None, details: Mapping[str, object] | None = None
    ) -> None:
        """Something was done that no member sees: write the audit log."""
        await self._groups.audit(
            self.connection,
            action,
            actor_id=self.actor_id,
            group_id=self.group_id,
            target_id=target_id,
            details=details,
        )


class GroupChanges:
    """Opens changes and publishes what they did."""

    def __init__(
        self, postgres: Postgres, publisher: Publisher, groups: GroupRepository, states: StateRepository
    ) -> None:
        self._postgres = postgres
        self._publisher = publisher
        self._groups = groups
        self._states = states

    @asynccontextmanager
    async def change(self, actor_id: int, group_id: int) -> AsyncIterator[GroupChange]:
        """Holds the group until the block ends; an exception in it undoes everything. Raises NotFound, Busy."""
        async with self._postgres.transaction() as connection:
            states = await self._states.lock_seqs(connection, [group_id])
            if group_id not in states:
                raise no_such_group()
            # From here on statements see what others committed before the lock was granted.
            change = GroupChange(connection, self._groups, actor_id, group_id, *states[group_id])
            yield change
        await self.publish(change.events)

    async def publish(self, events: list[Event]) -> None:
        """Hand events down; what is lost is found by the version, which gateways compare."""
        if events:
            await self._publisher.events(events)
