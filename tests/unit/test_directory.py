"""Which gateway a user is sent to."""

import pytest

from app.cluster.directory import ListDirectory, RingDirectory
from app.cluster.ring import Ring
from app.parts import Parts
from app.settings import load
from tests.contract.registries import node

NODES = {f"g{number}": f"wss://g{number}.example.org/ws" for number in range(4)}


def test_a_user_has_one_gateway_and_users_are_spread() -> None:
    directory = ListDirectory(NODES)
    found = [directory.place_of(user)[1] for user in range(2000)]
    assert found == [ListDirectory(NODES).place_of(user)[1] for user in range(2000)]
    assert all(400 < found.count(node) < 600 for node in NODES)


def test_when_a_gateway_goes_only_its_own_users_move() -> None:
    fewer = {node: url for node, url in NODES.items() if node != "g2"}
    for user in range(500):
        before = ListDirectory(NODES).place_of(user)
        assert before[1] == "g2" or ListDirectory(fewer).place_of(user) == before


def test_who_failed_at_one_gets_any_other_in_time() -> None:
    directory = ListDirectory(NODES)
    assert {directory.place_of(7, "g1")[1] for _ in range(200)} == {"g0", "g2", "g3"}
    assert ListDirectory({"only": "ws://x/ws"}).place_of(7, "only") == ("ws://x/ws", "only")
    assert directory.origins() == sorted(url.removesuffix("/ws") for url in NODES.values())
    assert ListDirectory({"only": "ws://x/ws"}, ["wss://*.org"]).origins() == ["ws://x", "wss://*.org"]


def test_the_ring_is_followed() -> None:
    directory = RingDirectory("wss://proxy/ws", ["wss://*.example.org"])
    assert directory.place_of(7) == ("wss://proxy/ws", "")
    assert directory.origins() == ["wss://*.example.org", "wss://proxy"]
    none, both = Ring([], 64), Ring([node("a"), node("b")], 64)
    directory.on_ring(none, both)
    url, home = directory.place_of(7)
    assert url == both.nodes[home].ws_url
    assert {home, directory.place_of(7, home)[1]} == {"a", "b"}
    assert directory.origins() == ["wss://*.example.org", "wss://a.example.org", "wss://b.example.org", "wss://proxy"]
    directory.on_ring(both, none)
    assert directory.place_of(7, "a") == ("wss://proxy/ws", "")


@pytest.mark.parametrize(("own", "expected"), [("", "wss://chat.example.org/ws/g1"), ("wss://g1/ws", "wss://g1/ws")])
def test_gateways_behind_one_proxy_register_different_addresses(own: str, expected: str) -> None:
    changed = {
        "cluster": {"registry": "redis"},
        "broker": {"kind": "redis_streams"},
        "delivery": {"kind": "redis_pubsub"},
        "grpc": {"enabled": False},
        "redis": {"url": "redis://cache"},
        "gateway": {"node_id": "g1", "public_ws_url": own},
        "http": {"public_url": "https://chat.example.org"},
    }
    assert Parts(load(changed), lambda _: None).node.ws_url == expected


def test_a_process_that_was_never_told_its_address_names_no_origin() -> None:
    directory = ListDirectory({"only": ""})
    assert directory.place_of(7) == ("", "only")
    assert directory.origins() == []


def test_whether_there_is_another_gateway() -> None:
    assert ListDirectory(NODES).has_others("g1")
    assert not ListDirectory({"only": "ws://x/ws"}).has_others("only")
    directory = RingDirectory("wss://proxy/ws", [])
    assert not directory.has_others("a")
    directory.on_ring(Ring([], 64), Ring([node("a")], 64))
    assert not directory.has_others("a")
    # The one that asks may have left the ring, or still stand on it.
    assert directory.has_others("b")
    directory.on_ring(Ring([], 64), Ring([node("a"), node("b")], 64))
    assert directory.has_others("a")
