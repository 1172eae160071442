"""What can go wrong beside the server's own errors (`app.errors.AppError`).

ClientError
├── Unreachable     nobody answers, or not in this protocol; try again later
├── ConnectionLost  the connection ended under a request: whatever was sent may or may not have arrived
└── SessionEnded    the server said not to come back: kicked, revoked, expired, or a broken protocol
"""


class ClientError(Exception):
    """Base of the client's own errors; the text is one sentence for people."""


class Unreachable(ClientError):
    """No server answered at this address, so nothing was done."""


class ConnectionLost(ClientError):
    """The connection ended before the answer; the outcome is unknown."""


class SessionEnded(ClientError):
    """Reconnecting is pointless; a new login may help. `code` is the close code, or the HTTP status of the refusal."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server ended the session: {reason} ({code})")
        self.code = code
        self.reason = reason
