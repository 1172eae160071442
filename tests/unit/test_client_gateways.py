"""Where the client connects: the gateway the server names, another one after a failure."""

import pytest

from app.client.api import Api
from app.client.gateways import Gateways
from app.client.models import Endpoint
from app.errors import AppError, Busy


class SomeApi(Api):
    """Names these gateways in turn, or fails; remembers which node it was asked to leave out."""

    def __init__(self, answers: list[Endpoint | AppError]) -> None:
        self._answers = answers
        self.left_out: list[str | None] = []

    async def gateway(self, not_node: str | None = None) -> Endpoint:
        self.left_out.append(not_node)
        answer = self._answers.pop(0)
        if isinstance(answer, AppError):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("named", "url", "expected"),
    [
        ("ws://chat.example.org/ws", "http://chat.example.org", "ws://chat.example.org/ws"),
        ("ws://localhost:8080/ws", "http://127.0.0.1:8080", "ws://localhost:8080/ws"),
        ("ws://localhost:8080/ws", "http://10.0.0.5:8080", "ws://10.0.0.5:8080/ws"),
        ("", "https://chat.example.org", "wss://chat.example.org/ws"),
        ("ws://chat.example.org/ws", "https://chat.example.org", "wss://chat.example.org/ws"),
    ],
)
async def test_a_gateway_on_localhost_is_believed_only_from_there(named: str, url: str, expected: str) -> None:
    assert await Gateways(SomeApi([]), url, named).next_url() == expected


async def test_after_a_failure_another_gateway_is_asked_for() -> None:
    api = SomeApi([Endpoint("ws://g1/ws", "g1"), Endpoint("ws://g2/ws", "g2"), Endpoint("ws://g1/ws", "g1")])
    gateways = Gateways(api, "http://api", None)
    assert await gateways.next_url() == "ws://g1/ws"
    gateways.failed()
    assert await gateways.next_url() == "ws://g2/ws"
    gateways.worked("g2")
    assert await gateways.next_url() == "ws://g1/ws"
    assert api.left_out == [None, "g1", None]


async def test_while_the_api_is_away_the_last_gateway_is_tried() -> None:
    api = SomeApi([Endpoint("ws://g1/ws", "g1"), Busy("away", retry_after_ms=1)])
    gateways = Gateways(api, "http://api", None)
    assert [await gateways.next_url(), await gateways.next_url()] == ["ws://g1/ws", "ws://g1/ws"]
