"""What wants to know who is connected here, and what comes by Control beside the closing of sessions."""

from app.protocol.magpie_pb2 import Blob
from app.web.gateway.connection import Connection


class Watcher:
    """Called by the hub in its own turn; must neither block nor raise. What a watcher does not care for does nothing."""

    def came(self, connection: Connection) -> None:
        """A connection with a valid session joined its groups."""

    def went(self, connection: Connection) -> None:
        """A connection that had come is gone."""

    def on_control(self, blob: Blob) -> None:
        """A blob on the channel Control, of any process, this one included."""
