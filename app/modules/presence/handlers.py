"""HTTP operation on presence."""

from app.modules.presence.models import GroupPresence
from app.modules.presence.service import PresenceService
from app.protocol.endpoint import Call, endpoint
from app.protocol.fields import Id


class PresenceHandlers:
    """`/groups/{group_id}/presence`."""

    def __init__(self, service: PresenceService) -> None:
        self._service = service

    @endpoint(
        "GET",
        "/groups/{group_id}/presence",
        summary="Who of the group is online; in large groups how many",
        errors=("not_found", "busy"),
    )
    async def of_group(self, call: Call, group_id: Id) -> GroupPresence:
        """`presence` and `presence.count` events with a higher `ts` go on from here."""
        return await self._service.of_group(call.user.user_id, group_id)
