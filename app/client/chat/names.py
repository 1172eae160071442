"""Who is who: messages carry only the sender's id."""

from app.client.api import Api
from app.client.errors import ClientError
from app.client.models import User
from app.errors import AppError

MAX_NAMES = 10_000
"""As many as the largest group has members."""
MAX_PAGES = 10
PAGE = 100


class Names:
    """Names of the users seen so far."""

    def __init__(self, api: Api, me: User) -> None:
        self._api = api
        self._known: dict[str, User] = {me.id: me}
        self._asked: set[tuple[str, str]] = set()

    def learn(self, user: User) -> None:
        """Remember or update a user."""
        if user.id in self._known or len(self._known) < MAX_NAMES:
            self._known[user.id] = user

    def name(self, user_id: str) -> str:
        """What to show; a short number for somebody who is not there any more."""
        user = self._known.get(user_id)
        return user.name if user else f"#{user_id[-4:]}"

    async def look_up(self, group_id: str, user_ids: set[str]) -> None:
        """Learn the members of a group if somebody is unknown; asks once for each of them. A failure leaves numbers."""
        missing = {(group_id, user_id) for user_id in user_ids if user_id not in self._known} - self._asked
        if not missing:
            return
        if len(self._asked) > MAX_NAMES:
            self._asked.clear()
        self._asked |= missing
        cursor: str | None = None
        try:
            for _ in range(MAX_PAGES):
                page = await self._api.members(group_id, cursor, PAGE)
                for member in page.items:
                    self.learn(member.user)
                cursor = page.next
                if cursor is None or all(user_id in self._known for _, user_id in missing):
                    return
        except (AppError, ClientError):
            self._asked -= missing
