"""A client that reads once and from then on only applies events: what it shows must be what a fresh read would show."""

import asyncio
import time
from typing import Any

from tests.running import RECEIVE_S, Socket, User

Json = dict[str, Any]


class Mirror:
    """One user's groups and their members. Events older than what was read are left out by their `version`."""

    def __init__(self, user: User, socket: Socket) -> None:
        self.user = user
        self.socket = socket
        self.groups: dict[str, Json] = {}
        self.members: dict[str, dict[str, Json]] = {}
        self.applied: list[Json] = []
        self._read: dict[str, int] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._seen: dict[str, int] = {}

    async def read(self) -> None:
        """Read everything; once, after the connection is live."""
        self.groups = await self._fetch_groups()
        self.members = {group_id: await self._fetch_members(group_id) for group_id in self.groups}
        for group_id, group in self.groups.items():
            self._note_read(group_id, group)

    async def settle(self) -> list[Json]:
        """Apply events until everything equals a fresh read; returns them. Fails after a while with the difference."""
        start = len(self.applied)
        fresh = await self._fetch_groups()
        members = {group_id: await self._fetch_members(group_id) for group_id in fresh}
        try:
            async with asyncio.timeout(RECEIVE_S):
                while (self.groups, self.members) != (fresh, members):
                    await self.apply(await self.socket.frame())
        except TimeoutError:
            assert self.groups == fresh, f"after {self.applied[start:]}"
            assert self.members == members, f"after {self.applied[start:]}"
        return self.applied[start:]

    async def apply(self, frame: Json) -> None:
        """One event."""
        if await self._is_applied(frame):
            self.applied.append(frame)

    async def _is_applied(self, frame: Json) -> bool:
        group_id = frame["group"]["id"] if "group" in frame else frame.get("group_id")
        if frame["type"] == "group.joined":
            return await self._joined(frame["group"])
        if group_id not in self.groups:
            return False
        match frame["type"]:
            case "group.left" | "group.deleted":
                if not self._is_news(group_id, "me", frame["version"]):
                    return False
                del self.groups[group_id], self.members[group_id]
            case "group.updated":
                if not self._is_news(group_id, "group", frame["group"]["version"]):
                    return False
                self.groups[group_id] |= frame["group"]
            case "group.member":
                return self._member(frame)
            case "messages":
                self._messages(frame)
            case "read":
                if frame["user_id"] == self.user.id:
                    self.groups[group_id]["last_read_seq"] = frame["seq"]
                    self._count(group_id, frame["seq"])
        return True

    async def _joined(self, group: Json) -> bool:
        group_id = group["id"]
        if not self._is_news(group_id, "me", group["version"]):
            return False
        self.groups[group_id] = group
        # The event brings the group; its members are read when it is opened, which may be later than events that follow.
        self.members[group_id] = await self._fetch_members(group_id)
        self._note_read(group_id, group)
        return True

    def _member(self, frame: Json) -> bool:
        group_id, user_id, version = frame["group_id"], frame["user"]["id"], frame["version"]
        if self._is_news(group_id, "count", version, or_same=True):
            self.groups[group_id]["member_count"] = frame["member_count"]
        self.groups[group_id]["version"] = max(self.groups[group_id]["version"], version)
        if not self._is_news(group_id, user_id, version, or_same=True):
            return False
        if frame["role"] is None:
            self.members[group_id].pop(user_id, None)
        else:
            self.members[group_id][user_id] = {key: frame[key] for key in ("user", "role", "muted_until")}
            if user_id == self.user.id:
                self.groups[group_id] |= {key: frame[key] for key in ("role", "muted_until")}
        return True

    def _messages(self, frame: Json) -> None:
        group_id = frame["group_id"]
        own = [item["seq"] for item in frame["items"] if item["sender_id"] == self.user.id]
        self.groups[group_id]["last_seq"] = max(self.groups[group_id]["last_seq"], frame["items"][-1]["seq"])
        self._count(group_id, max(own, default=0))

    def _count(self, group_id: str, seen: int) -> None:
        """Unread is what came after the last message read, sent, or found on joining."""
        group = self.groups[group_id]
        self._seen[group_id] = max(self._seen[group_id], seen)
        group["unread"] = max(0, group["last_seq"] - self._seen[group_id])
        group["unread_label"] = str(group["unread"])

    def _note_read(self, group_id: str, group: Json) -> None:
        self._seen[group_id] = group["last_seq"] - group["unread"]
        self._read[group_id] = group["version"]

    def _is_news(self, group_id: str, what: str, version: int, *, or_same: bool = False) -> bool:
        """Newer than what was read, and than what an event said before; one change may say the same twice."""
        known = self._versions.get((group_id, what), 0)
        if version <= self._read.get(group_id, 0) or version < known or (version == known and not or_same):
            return False
        self._versions[group_id, what] = version
        return True

    async def _fetch_groups(self) -> dict[str, Json]:
        page = await self.user.ok("GET", "/groups", limit=100)
        assert page["next"] is None
        return {group["id"]: group for group in page["items"]}

    async def _fetch_members(self, group_id: str) -> dict[str, Json]:
        page = await self.user.ok("GET", f"/groups/{group_id}/members", limit=100)
        assert page["next"] is None
        return {member["user"]["id"]: member for member in page["items"]}


def soon(seconds: float = 60) -> int:
    """A moment in ms since 1970."""
    return round((time.time() + seconds) * 1000)
