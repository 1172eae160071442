"""Which gateway a user is sent to."""

from app.cluster.directory import Directory

NODES = {f"g{number}": f"wss://g{number}.example.org/ws" for number in range(4)}


def test_a_user_has_one_gateway_and_users_are_spread() -> None:
    directory = Directory(NODES)
    found = [directory.place_of(user)[1] for user in range(2000)]
    assert found == [Directory(NODES).place_of(user)[1] for user in range(2000)]
    assert all(400 < found.count(node) < 600 for node in NODES)


def test_when_a_gateway_goes_only_its_own_users_move() -> None:
    fewer = {node: url for node, url in NODES.items() if node != "g2"}
    for user in range(500):
        before = Directory(NODES).place_of(user)
        assert before[1] == "g2" or Directory(fewer).place_of(user) == before


def test_who_failed_at_one_gets_any_other_in_time() -> None:
    directory = Directory(NODES)
    assert {directory.place_of(7, "g1")[1] for _ in range(200)} == {"g0", "g2", "g3"}
    assert Directory({"only": "ws://x/ws"}).place_of(7, "only") == ("ws://x/ws", "only")
    assert directory.origins() == sorted(url.removesuffix("/ws") for url in NODES.values())
