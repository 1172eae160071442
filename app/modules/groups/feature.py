"""The groups put together: what other rooms use of them."""

from dataclasses import dataclass

from app.delivery.publisher import Publisher
from app.modules.groups.access import GroupGate
from app.modules.groups.changes import GroupChanges
from app.modules.groups.handlers import GroupHandlers
from app.modules.groups.invites import InviteService
from app.modules.groups.member_repository import MemberRepository
from app.modules.groups.members import MemberService
from app.modules.groups.profiles import MemberProfiles, ProfileSource
from app.modules.groups.repository import GroupRepository
from app.modules.groups.service import GroupBounds, GroupService, IdSource
from app.modules.groups.state_repository import StateRepository
from app.modules.groups.states import GroupStates
from app.sections import Groups
from app.storage.postgres import Postgres


@dataclass(frozen=True, slots=True)
class GroupsFeature:
    """`gate` is for the messages, `states` for consumer and gateway, `handlers` for HTTP."""

    gate: GroupGate
    states: GroupStates
    service: GroupService
    handlers: GroupHandlers


def groups_feature(
    postgres: Postgres, publisher: Publisher, ids: IdSource, accounts: ProfileSource, options: Groups
) -> GroupsFeature:
    """Build everything from its parts; does no I/O."""
    groups, members, states = GroupRepository(postgres), MemberRepository(postgres), StateRepository(postgres)
    gate = GroupGate(groups, members)
    changes = GroupChanges(postgres, publisher, groups, states)
    profiles = MemberProfiles(accounts)
    bounds = GroupBounds(options.max_members, options.max_groups_per_user, options.page_max)
    service = GroupService(postgres, groups, members, gate, changes, profiles, ids, bounds)
    return GroupsFeature(
        gate=gate,
        states=GroupStates(states),
        service=service,
        handlers=GroupHandlers(
            service,
            MemberService(groups, members, gate, changes, profiles, options.page_max),
            InviteService(members, gate, changes, ttl_s=options.invite_ttl_s),
        ),
    )
