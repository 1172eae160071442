"""Where a test or a recorder looks in; every method does nothing by default and must neither block nor raise."""

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from app.client.events import How
from app.client.wire import Sent
from app.protocol.frames import Message


@dataclass(slots=True)
class Outgoing:
    """One send, over all its attempts."""

    group_id: str
    body: str
    client_msg_id: UUID = field(default_factory=uuid4)
    attempts: int = 0
    unknown: bool = False
    """Whether some attempt ended without knowing if the message is stored."""


class Hooks:
    """The history of one client: each `on_invoke` is followed by exactly one of ok, fail, info."""

    def on_invoke(self, send: Outgoing) -> None:
        """A send begins."""

    def on_ok(self, send: Outgoing, sent: Sent) -> None:
        """It is stored."""

    def on_fail(self, send: Outgoing, error: BaseException) -> None:
        """Every attempt is known not to appear."""

    def on_info(self, send: Outgoing, error: BaseException) -> None:
        """It may or may not be stored."""

    def on_message(self, message: Message, how: How) -> None:
        """The reader sees this message: each one once, in order."""
