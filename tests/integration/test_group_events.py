"""Every event of groups: applying it leaves a client with exactly what a fresh read would show."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.mirror import Mirror, soon
from tests.running import Server, User, serving, settings_for


@pytest.fixture(params=["memory", "redis_pubsub"])
async def server(request: pytest.FixtureRequest, dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, delivery={"kind": request.param})) as server:
        yield server


class Scene:
    """An owner, an admin, a member and an outsider, each with a live client; the member has two devices."""

    def __init__(self, users: dict[str, User], group: str, mirrors: dict[str, Mirror]) -> None:
        self.users = users
        self.group = group
        self.mirrors = mirrors

    def id(self, name: str) -> str:
        return self.users[name].id

    async def do(self, who: str, method: str, path: str, body: Any = None) -> dict[str, list[tuple[Any, ...]]]:
        """Make a change; the events that then brought each client to where a fresh read is."""
        await self.users[who].ok(method, path.format(group=self.group), body)
        return {name: [summary(event) for event in await mirror.settle()] for name, mirror in self.mirrors.items()}


def summary(event: dict[str, Any]) -> tuple[Any, ...]:
    match event["type"]:
        case "group.left":
            return (event["type"], event["reason"])
        case "group.member":
            return (event["type"], event["change"], event["user"]["id"], event["role"])
        case kind:
            return (kind,)


@pytest.fixture
async def scene(server: Server) -> AsyncIterator[Scene]:
    names = ("owner", "admin", "member", "outsider")
    users = dict(zip(names, await server.users(4), strict=True))
    group = await users["owner"].group(users["admin"], users["member"])
    await users["owner"].ok("PATCH", f"/groups/{group}/members/{users['admin'].id}", {"role": "admin"})
    async with AsyncExitStack() as stack:
        mirrors = {}
        for name in (*names, "member's phone"):
            user = users[name.removesuffix("'s phone")]
            mirrors[name] = Mirror(user, await stack.enter_async_context(user.socket()))
            await mirrors[name].read()
        yield Scene(users, group, mirrors)


MEMBERS = ("owner", "admin", "member", "member's phone")


async def test_joined(scene: Scene) -> None:
    events = await scene.do("outsider", "POST", "/groups/{group}/join", {})
    change = ("group.member", "joined", scene.id("outsider"), "member")
    assert events["outsider"][0] == ("group.joined",)
    assert all(events[name] == [change] for name in MEMBERS)


async def test_a_new_group_appears_on_all_devices_of_its_maker(scene: Scene) -> None:
    events = await scene.do("member", "POST", "/groups", {"name": "new", "visibility": "invite"})
    assert {name: seen for name, seen in events.items() if seen} == {
        "member": [("group.joined",)],
        "member's phone": [("group.joined",)],
    }


@pytest.mark.parametrize(
    ("who", "method", "path", "reason"),
    [
        ("member", "POST", "/groups/{group}/leave", "left"),
        ("admin", "DELETE", "/groups/{group}/members/{member}", "kicked"),
        ("admin", "PUT", "/groups/{group}/bans/{member}", "banned"),
    ],
)
async def test_left(scene: Scene, who: str, method: str, path: str, reason: str) -> None:
    path = path.replace("{member}", scene.id("member"))
    events = await scene.do(who, method, path)
    assert events.pop("outsider") == []
    for name in ("member", "member's phone"):
        assert events.pop(name) == [("group.left", reason)]
    assert all(seen == [("group.member", reason, scene.id("member"), None)] for seen in events.values())


async def test_updated(scene: Scene) -> None:
    for body in ({"name": "new name"}, {"announcement": "read this"}, {"name": "third", "announcement": ""}):
        events = await scene.do("admin", "PATCH", "/groups/{group}", body)
        assert events == {name: [("group.updated",)] if name in MEMBERS else [] for name in scene.mirrors}


async def test_deleted(scene: Scene) -> None:
    events = await scene.do("owner", "DELETE", "/groups/{group}")
    assert events == {name: [("group.deleted",)] if name in MEMBERS else [] for name in scene.mirrors}


@pytest.mark.parametrize(
    ("who", "body", "changes"),
    [
        ("admin", {"muted_until": "soon"}, ["muted"]),
        ("owner", {"role": "admin"}, ["role"]),
        ("owner", {"role": "admin", "muted_until": "soon"}, ["role", "muted"]),
    ],
)
async def test_member_changed(scene: Scene, who: str, body: dict[str, Any], changes: list[str]) -> None:
    path, member = f"/groups/{{group}}/members/{scene.id('member')}", scene.id("member")
    if "muted_until" in body:
        body = body | {"muted_until": soon()}
    events = await scene.do(who, "PATCH", path, body)
    role = body.get("role", "member")
    # Both events say where it ended, so the first is enough to be there.
    assert all(events[name][0] == ("group.member", changes[0], member, role) for name in MEMBERS)
    back = {key: "member" if key == "role" else None for key in body}
    events = await scene.do("owner", "PATCH", path, back)
    assert all(events[name] for name in MEMBERS)
    kinds = {seen[1] for mirror in scene.mirrors.values() for seen in map(summary, mirror.applied)}
    assert kinds <= {"muted", "unmuted", "role"}


async def test_transferred(scene: Scene) -> None:
    events = await scene.do("owner", "POST", "/groups/{group}/transfer", {"user_id": scene.id("member")})
    assert all(
        events[name]
        == [
            ("group.updated",),
            ("group.member", "role", scene.id("owner"), "admin"),
            ("group.member", "role", scene.id("member"), "owner"),
        ]
        for name in MEMBERS
    )


async def test_messages_and_read_marks(scene: Scene) -> None:
    for sender in ("owner", "member", "owner"):
        status, _ = await scene.users[sender].post(scene.group, "hello")
        assert status == 201
    await scene.do("member", "PUT", "/groups/{group}/read", {"seq": 2})
    await scene.do("admin", "PUT", "/groups/{group}/read", {"seq": 3})
    unread = {name: mirror.groups[scene.group]["unread"] for name, mirror in scene.mirrors.items() if name in MEMBERS}
    assert unread == {"owner": 0, "admin": 0, "member": 1, "member's phone": 1}


async def test_coming_back_shows_the_group_as_new(scene: Scene) -> None:
    await scene.users["owner"].post(scene.group, "before")
    await scene.do("member", "POST", "/groups/{group}/leave")
    await scene.users["owner"].post(scene.group, "meanwhile")
    await scene.do("member", "POST", "/groups/{group}/join", {})
    await scene.users["owner"].post(scene.group, "after")
    await scene.do("outsider", "POST", "/groups/{group}/join", {})
    assert scene.mirrors["member's phone"].groups[scene.group]["unread"] == 1


async def test_changes_that_are_none_say_nothing(scene: Scene) -> None:
    member = scene.id("member")
    assert not any((await scene.do("member", "POST", "/groups/{group}/join", {})).values())
    assert not any(
        (await scene.do("owner", "PATCH", f"/groups/{{group}}/members/{member}", {"role": "member"})).values()
    )
    await scene.do("owner", "PUT", f"/groups/{{group}}/bans/{scene.id('outsider')}")
    for mirror in scene.mirrors.values():
        assert await mirror.socket.nothing_but_pong() == []
