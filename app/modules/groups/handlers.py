"""HTTP operations on groups, members and invitations."""

from typing import Annotated, Literal

from pydantic import Field

from app.errors import BadRequest
from app.modules.groups.invites import InviteService
from app.modules.groups.members import MemberPatch, MemberService
from app.modules.groups.models import FoundGroup, Invite, Member, MyGroup, Visibility
from app.modules.groups.service import GroupService
from app.protocol.endpoint import Call, endpoint
from app.protocol.fields import AnswerModel, Body, Id, parse_id

Limit = Annotated[int, Field(ge=1, le=1000, description="at most; a page may be smaller")]
Moment = Annotated[
    int, Field(ge=0, le=253_402_300_799_999, description="ms since 1970, at most the end of the year 9999")
]


class GroupsAnswer(AnswerModel):
    """One page of the caller's groups, rising id; `next` is the cursor of the following page."""

    items: list[MyGroup]
    next: str | None


class FoundGroupsAnswer(AnswerModel):
    """One page of open groups, newest first."""

    items: list[FoundGroup]
    next: str | None


class MembersAnswer(AnswerModel):
    """One page of members, rising user id."""

    items: list[Member]
    next: str | None


class CreateGroupBody(Body):
    """`open`: anybody may find and join it. `invite`: only with a code."""

    name: str
    visibility: Visibility


class UpdateGroupBody(Body):
    """What to change; a field that is left out stays."""

    name: str | None = None
    announcement: str | None = None


class JoinBody(Body):
    """The code is needed only for groups by invitation."""

    invite_code: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = None


class TransferBody(Body):
    """Who owns the group from now on."""

    user_id: Id


class UpdateMemberBody(Body):
    """What to change; `muted_until: null` ends a mute."""

    role: Literal["admin", "member"] | None = None
    muted_until: Moment | None = None


class PageQuery(Body):
    """`cursor` is `next` of the page before."""

    cursor: str | None = None
    limit: Limit = 50


class DiscoverQuery(PageQuery):
    """`q` is looked for in names, without regard to case."""

    q: str = ""


class GroupHandlers:
    """Everything below `/groups` but messages."""

    def __init__(self, groups: GroupService, members: MemberService, invites: InviteService) -> None:
        self._groups = groups
        self._members = members
        self._invites = invites

    @endpoint("POST", "/groups", summary="Make a group", status=201, errors=("conflict", "busy"))
    async def create(self, call: Call, body: CreateGroupBody) -> MyGroup:
        """The caller owns it."""
        return await self._groups.create(call.user.user_id, body.name, body.visibility)

    @endpoint("GET", "/groups", summary="The caller's groups with unread counts", errors=("busy",))
    async def list_mine(self, call: Call, query: PageQuery) -> GroupsAnswer:
        """Paged, rising id."""
        page = await self._groups.list_mine(call.user.user_id, _cursor(query.cursor) or 0, query.limit)
        return GroupsAnswer(items=page.items, next=_next(page.next_id))

    @endpoint("GET", "/groups/discover", summary="Open groups", errors=("busy",))
    async def discover(self, call: Call, query: DiscoverQuery) -> FoundGroupsAnswer:
        """Paged, newest first."""
        page = await self._groups.discover(call.user.user_id, query.q, _cursor(query.cursor), query.limit)
        return FoundGroupsAnswer(items=page.items, next=_next(page.next_id))

    @endpoint("GET", "/groups/{group_id}", summary="One group", errors=("not_found", "busy"))
    async def get(self, call: Call, group_id: Id) -> MyGroup:
        """As in the list."""
        return await self._groups.get(call.user.user_id, group_id)

    @endpoint(
        "PATCH",
        "/groups/{group_id}",
        summary="Change name or announcement (admins)",
        errors=("forbidden", "not_found", "busy"),
    )
    async def update(self, call: Call, group_id: Id, body: UpdateGroupBody) -> MyGroup:
        """The group as it is then."""
        return await self._groups.update(call.user.user_id, group_id, name=body.name, announcement=body.announcement)

    @endpoint(
        "DELETE", "/groups/{group_id}", summary="Disband the group (owner)", errors=("forbidden", "not_found", "busy")
    )
    async def disband(self, call: Call, group_id: Id) -> None:
        """For all and for good."""
        await self._groups.disband(call.user.user_id, group_id)

    @endpoint(
        "POST",
        "/groups/{group_id}/join",
        summary="Join an open group, or one by invitation with its code",
        errors=("forbidden", "not_found", "conflict", "busy"),
    )
    async def join(self, call: Call, group_id: Id, body: JoinBody) -> MyGroup:
        """Changes nothing for members."""
        return await self._groups.join(call.user.user_id, group_id, body.invite_code)

    @endpoint(
        "POST",
        "/groups/{group_id}/leave",
        summary="Leave the group (all but the owner)",
        errors=("not_found", "conflict", "busy"),
    )
    async def leave(self, call: Call, group_id: Id) -> None:
        """Nothing of the group is seen from then on."""
        await self._groups.leave(call.user.user_id, group_id)

    @endpoint(
        "POST",
        "/groups/{group_id}/invite",
        summary="A code that lets people join (admins; in open groups every member)",
        errors=("forbidden", "not_found", "busy"),
    )
    async def invite(self, call: Call, group_id: Id) -> Invite:
        """The caller's code, new when the last one has less than half of its time left."""
        return await self._invites.invite(call.user.user_id, group_id)

    @endpoint(
        "POST",
        "/groups/{group_id}/transfer",
        summary="Make a member the owner (owner)",
        errors=("forbidden", "not_found", "conflict", "busy"),
    )
    async def transfer(self, call: Call, group_id: Id, body: TransferBody) -> MyGroup:
        """The caller stays as an admin."""
        return await self._members.transfer(call.user.user_id, group_id, body.user_id)

    @endpoint("GET", "/groups/{group_id}/members", summary="Members", errors=("not_found", "busy"))
    async def list_members(self, call: Call, group_id: Id, query: PageQuery) -> MembersAnswer:
        """Paged, rising user id."""
        page = await self._members.list_members(call.user.user_id, group_id, _cursor(query.cursor) or 0, query.limit)
        return MembersAnswer(items=page.items, next=_next(page.next_id))

    @endpoint(
        "PATCH",
        "/groups/{group_id}/members/{user_id}",
        summary="Change role (owner) or mute (admins)",
        errors=("forbidden", "not_found", "busy"),
    )
    async def update_member(self, call: Call, group_id: Id, user_id: Id, body: UpdateMemberBody) -> Member:
        """The member as they are then."""
        if "role" in body.model_fields_set and body.role is None:
            raise BadRequest("role must be admin or member")
        patch = MemberPatch(body.role, "muted_until" in body.model_fields_set, body.muted_until)
        return await self._members.update(call.user.user_id, group_id, user_id, patch)

    @endpoint(
        "DELETE",
        "/groups/{group_id}/members/{user_id}",
        summary="Remove a member (admins)",
        errors=("forbidden", "not_found", "busy"),
    )
    async def kick(self, call: Call, group_id: Id, user_id: Id) -> None:
        """They may join again."""
        await self._members.kick(call.user.user_id, group_id, user_id)

    @endpoint(
        "PUT",
        "/groups/{group_id}/bans/{user_id}",
        summary="Ban a user, member or not (admins)",
        errors=("forbidden", "not_found", "busy"),
    )
    async def ban(self, call: Call, group_id: Id, user_id: Id) -> None:
        """Removes them, and no invitation helps."""
        await self._members.ban(call.user.user_id, group_id, user_id)

    @endpoint(
        "DELETE",
        "/groups/{group_id}/bans/{user_id}",
        summary="Lift a ban (admins)",
        errors=("forbidden", "not_found", "busy"),
    )
    async def unban(self, call: Call, group_id: Id, user_id: Id) -> None:
        """They may join again; nothing happens for users who are not banned."""
        await self._members.unban(call.user.user_id, group_id, user_id)


def _cursor(text: str | None) -> int | None:
    try:
        return None if text is None else parse_id(text)
    except ValueError:
        raise BadRequest("cursor must be the `next` of an earlier page") from None


def _next(next_id: int | None) -> str | None:
    return None if next_id is None else str(next_id)
