"""What members may know of each other: who is online, and when the others were."""

from app.modules.presence.models import Gate, GroupPresence, MemberPresence, Members, State
from app.modules.presence.online import GroupCounts, OnlineUsers
from app.modules.presence.repository import LastSeenRepository


class PresenceService:
    """Answers for one group, to its members alone."""

    def __init__(
        self,
        gate: Gate,
        members: Members,
        online: OnlineUsers,
        counts: GroupCounts,
        last_seen: LastSeenRepository,
        *,
        small_group_members: int,
    ) -> None:
        self._gate = gate
        self._members = members
        self._online = online
        self._counts = counts
        self._last_seen = last_seen
        self._small = small_group_members

    async def of_group(self, user_id: int, group_id: int) -> GroupPresence:
        """In a small group every member, in a large one how many. Raises NotFound to outsiders, Busy."""
        await self._gate.access_group(user_id, group_id)
        ids = await self._members.some_members(group_id, self._small + 1)
        if len(ids) > self._small:
            ts, count = await self._counts.read(group_id)
            return GroupPresence(online=count, ts=ts, members=None)
        # The caller may have been the last one, a moment ago.
        ts, online = await self._online.among(ids or [user_id])
        seen = await self._last_seen.of([member for member in ids if member not in online])
        members = [
            MemberPresence(user_id=member, state=_state(member in online), last_seen=seen.get(member)) for member in ids
        ]
        return GroupPresence(online=len(online.intersection(ids)), ts=ts, members=members)


def _state(online: bool) -> State:
    return "online" if online else "offline"
