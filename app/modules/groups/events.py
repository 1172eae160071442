"""Events of groups, as the frames that clients get. Each says what a fresh read would say: applying it equals reading again.

`version` lets a client leave out what is older than what it has read. docs/protocol.md describes the fields.
"""

from collections.abc import Sequence
from typing import Literal

from app.modules.groups.models import Group, MemberProfile, MyGroup, Role
from app.protocol import frames
from app.protocol.magpie_pb2 import Event

Reason = Literal["left", "kicked", "banned"]
MemberChange = Literal["joined", "left", "kicked", "banned", "muted", "unmuted", "role"]


def group_joined(user_id: int, group: MyGroup) -> Event:
    """To all devices of somebody who is in a group from now on."""
    return Event(
        group_id=group.id,
        access_version=group.version,
        user_ids=[user_id],
        frame=frames.event("group.joined", {"group": group.model_dump(mode="json")}),
    )


def group_left(user_id: int, group_id: int, version: int, reason: Reason) -> Event:
    """To all devices of somebody who is out of a group."""
    fields = {"group_id": str(group_id), "reason": reason, "version": version}
    return Event(
        group_id=group_id, access_version=version, user_ids=[user_id], frame=frames.event("group.left", fields)
    )


def group_updated(group: Group) -> Event:
    """To all members: name, announcement or owner changed."""
    return Event(
        group_id=group.id,
        access_version=group.version,
        frame=frames.event("group.updated", {"group": group.model_dump(mode="json", include=set(Group.model_fields))}),
    )


def group_deleted(user_ids: Sequence[int], group_id: int, version: int) -> Event:
    """To those who were members; nobody is any more, so they are named."""
    fields = {"group_id": str(group_id), "version": version}
    return Event(
        group_id=group_id, access_version=version, user_ids=user_ids, frame=frames.event("group.deleted", fields)
    )


def group_member(
    group_id: int,
    version: int,
    change: MemberChange,
    user: MemberProfile,
    *,
    role: Role | None,
    muted_until: int | None,
    member_count: int,
) -> Event:
    """To all members: what `user` is now; no role: not a member any more.

    Joining and leaving by oneself is small talk that large groups shed; what an admin did is not.
    """
    fields = {
        "group_id": str(group_id),
        "user": user.model_dump(mode="json"),
        "role": role,
        "muted_until": muted_until,
        "change": change,
        "member_count": member_count,
        "version": version,
    }
    return Event(
        group_id=group_id,
        access_version=version,
        frame=frames.event("group.member", fields),
        droppable=change in ("joined", "left"),
    )
