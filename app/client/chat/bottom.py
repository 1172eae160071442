"""The status line: connection, who we are, what is new elsewhere, who is typing."""

from prompt_toolkit.formatted_text import StyleAndTextTuples

from app.client.chat.names import Names
from app.client.chat.render import harmless
from app.client.chat.room import Room
from app.client.chat.texts import Texts
from app.client.client import Client
from app.client.events import StateChanged

TYPING_SHOWN_S = 4
MAX_TYPISTS = 50
MAX_GROUPS_SHOWN = 4
DOTS = {"online": "class:good", "connecting": "class:warn", "waiting": "class:bad", "ended": "class:bad"}


class Bottom:
    """What the status line knows; times are those of the event loop."""

    def __init__(self, client: Client, names: Names, me: str, text: Texts) -> None:
        self._client = client
        self._names = names
        self._me = me
        self._text = text
        self._state = StateChanged("online")
        self._retry_at = 0.0
        self._typists: dict[str, float] = {}
        self.sending = 0

    def on_state(self, state: StateChanged, now: float) -> None:
        """The connection changed."""
        self._state, self._retry_at = state, now + state.wait_s

    def on_typing(self, user_id: str, now: float) -> None:
        """Somebody types in the open group."""
        if len(self._typists) < MAX_TYPISTS:
            self._typists[user_id] = now + TYPING_SHOWN_S

    def stopped_typing(self, user_id: str | None = None) -> None:
        """Their message came; None: another group was opened."""
        if user_id is None:
            self._typists.clear()
        else:
            self._typists.pop(user_id, None)

    def line(self, room: Room | None, now: float) -> StyleAndTextTuples:
        """The status line now."""
        text = self._text
        seconds = max(0, round(self._retry_at - now))
        fields: StyleAndTextTuples = [
            (DOTS[self._state.state], " ● "),
            ("", text(self._state.state, seconds=seconds)),
            ("", f" · {harmless(self._me)}"),
        ]
        if self.sending:
            fields.append(("class:warn", f" · {text('sending', count=self.sending)}"))
        unread = [
            view for view in self._client.groups if view.unread and (room is None or view.group.id != room.group_id)
        ]
        for view in unread[:MAX_GROUPS_SHOWN]:
            fields.append(("class:note", f" · {harmless(view.group.name)} {view.unread_label}"))
        if len(unread) > MAX_GROUPS_SHOWN:
            fields.append(("class:note", f" · +{len(unread) - MAX_GROUPS_SHOWN}"))
        self._typists = {user_id: until for user_id, until in self._typists.items() if until > now}
        if len(self._typists) == 1:
            name = harmless(self._names.name(next(iter(self._typists))))
            fields.append(("", f" · {text('typing_one', name=name)}"))
        elif self._typists:
            fields.append(("", f" · {text('typing_many', count=len(self._typists))}"))
        return fields
