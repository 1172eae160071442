"""Groups over HTTP: making, finding, joining, leaving, inviting, unread counts, and what becomes of members."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.storage.postgres import Postgres
from tests.asking import mine, names
from tests.mirror import soon
from tests.running import Server, User, serving, settings_for


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as server:
        yield server


# Making and changing


async def test_a_new_group_belongs_to_its_maker(server: Server) -> None:
    ann = await server.user()
    status, group = await ann.call("POST", "/groups", {"name": "  Caf\u0065\u0301 ", "visibility": "invite"})
    assert status == 201
    assert abs(group.pop("created_at") - time.time() * 1000) < 10_000
    assert group == {
        "id": group["id"], "name": "Café", "announcement": "", "visibility": "invite", "owner_id": ann.id, "member_count": 1,
        "version": 1, "role": "owner", "muted_until": None, "last_seq": 0, "last_read_seq": 0, "unread": 0, "unread_label": "0",
    }  # fmt: skip
    assert isinstance(group["id"], str)
    assert (await ann.ok("GET", "/groups"))["items"] == [await mine(ann, group["id"])]
    assert (await ann.ok("GET", f"/groups/{group['id']}/members"))["items"] == [
        {"user": {"id": ann.id, "username": ann.name, "display_name": ann.name}, "role": "owner", "muted_until": None}
    ]


BAD_NAMES = ["", " ", "x" * 51, "x" * 5000, "a\nb", "a\0b", "a\x7fb", "\u200b\u200d", "a\u202eb", "a\u2028b", 7, None]


async def test_names_that_are_refused(server: Server) -> None:
    ann = await server.user()
    group = await ann.group()
    before = await mine(ann, group)
    for name in BAD_NAMES:
        assert (await ann.call("POST", "/groups", {"name": name, "visibility": "open"}))[0] == 422, name
        assert (await ann.call("PATCH", f"/groups/{group}", {"name": name}))[0] == 422, name
    assert (await ann.ok("GET", "/groups"))["items"] == [before]
    # A lone surrogate.
    raw = b'{"name": "\\ud800", "visibility": "open"}'
    headers = ann.headers | {"Content-Type": "application/json"}
    async with server.http.post(f"{server.url}/api/v1/groups", data=raw, headers=headers) as response:
        assert response.status == 422


async def test_names_that_are_taken(server: Server) -> None:
    ann = await server.user()
    for name in ("x", "x" * 50, "e\u0301" * 50, "👨‍👩‍👧", "群聊", "<b>&'\"%_\\"):
        assert (await ann.call("POST", "/groups", {"name": name, "visibility": "open"}))[0] == 201, name


async def test_changing_name_and_announcement(server: Server) -> None:
    ann = await server.user()
    group = await ann.group()
    changed = await ann.ok("PATCH", f"/groups/{group}", {"announcement": "line 1\nline 2 e\u0301"})
    assert (changed["announcement"], changed["version"]) == ("line 1\nline 2 é", 2)
    changed = await ann.ok("PATCH", f"/groups/{group}", {"name": "new", "announcement": ""})
    assert (changed["name"], changed["announcement"], changed["version"]) == ("new", "", 3)
    # Nothing new is no change.
    assert await ann.ok("PATCH", f"/groups/{group}", {"name": "new"}) == changed
    for body in (
        {},
        {"announcement": "x" * 1001},
        {"announcement": "a\0"},
        {"visibility": "open"},
        {"name": "a", "x": 1},
    ):
        assert (await ann.call("PATCH", f"/groups/{group}", body))[0] == 422
    assert (await ann.call("PATCH", f"/groups/{group}", {"announcement": "x" * 1000}))[0] == 200


async def test_a_disbanded_group_is_gone_for_all(server: Server) -> None:
    ann, bob, eve = await server.users(3)
    group = await ann.group(bob)
    code = await ann.invite(group)
    assert (await ann.call("DELETE", f"/groups/{group}"))[0] == 204
    for user in (ann, bob, eve):
        assert (await user.call("GET", f"/groups/{group}"))[0] == 404
        assert (await user.call("POST", f"/groups/{group}/join", {"invite_code": code}))[0] == 404
        assert (await user.call("GET", f"/groups/{group}/messages"))[0] == 404
        assert (await user.post(group, "hello"))[0] == 404
        assert (await user.ok("GET", "/groups"))["items"] == []
        assert await names(user) == []
    assert (await ann.call("DELETE", f"/groups/{group}"))[0] == 404


# Finding and joining


async def test_open_groups_are_found_by_a_part_of_their_name(server: Server) -> None:
    ann, bob = await server.users(2)
    for name in ("Tea House", "tea 100%", "TEA_ROOM", "back\\slash"):
        await ann.ok("POST", "/groups", {"name": name, "visibility": "open"})
    await ann.ok("POST", "/groups", {"name": "secret tea", "visibility": "invite"})
    assert await names(bob) == ["back\\slash", "TEA_ROOM", "tea 100%", "Tea House"]
    assert await names(bob, q="Tea") == ["TEA_ROOM", "tea 100%", "Tea House"]
    assert await names(bob, q=" tea ") == ["TEA_ROOM", "tea 100%", "Tea House"]
    assert [await names(bob, q=q) for q in ("%", "_", "\\", "a_h", "secret")] == [
        ["tea 100%"], ["TEA_ROOM"], ["back\\slash"], [], [],
    ]  # fmt: skip
    for q in ("x" * 51, "a\0"):
        assert (await bob.call("GET", "/groups/discover", q=q))[0] == 422
    page = await bob.ok("GET", "/groups/discover", limit=3)
    assert [group["name"] for group in page["items"]] == ["back\\slash", "TEA_ROOM", "tea 100%"]
    rest = await bob.ok("GET", "/groups/discover", limit=3, cursor=page["next"])
    assert ([group["name"] for group in rest["items"]], rest["next"]) == (["Tea House"], None)


async def test_an_outsider_learns_little_of_an_open_group(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group()
    await ann.ok("PATCH", f"/groups/{group}", {"name": "tea", "announcement": "for members"})
    (found,) = (await bob.ok("GET", "/groups/discover"))["items"]
    assert found == {"id": group, "name": "tea", "visibility": "open", "member_count": 1, "joined": False}
    await bob.ok("POST", f"/groups/{group}/join", {})
    (found,) = (await bob.ok("GET", "/groups/discover"))["items"]
    assert (found["member_count"], found["joined"]) == (2, True)


async def test_joining_twice_changes_nothing(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    before = await mine(bob, group)
    assert (before["role"], before["member_count"], before["version"]) == ("member", 2, 2)
    assert await bob.ok("POST", f"/groups/{group}/join", {}) == before
    assert (await ann.ok("POST", f"/groups/{group}/join", {}))["role"] == "owner"


async def test_a_group_by_invitation_opens_to_its_code_only(server: Server) -> None:
    ann, bob, eve = await server.users(3)
    group, other = await ann.group(visibility="invite"), await ann.group(visibility="invite")
    code, other_code = await ann.invite(group), await ann.invite(other)
    for body in ({}, {"invite_code": other_code}, {"invite_code": "x" * 16}, {"invite_code": None}):
        assert (await bob.call("POST", f"/groups/{group}/join", body))[0] == 404
    for body in ({"invite_code": ""}, {"invite_code": "a b"}, {"invite_code": "x" * 65}, {"code": code}):
        assert (await bob.call("POST", f"/groups/{group}/join", body))[0] == 422
    for user in (bob, eve):
        assert (await user.ok("POST", f"/groups/{group}/join", {"invite_code": code}))["role"] == "member"


async def test_an_invitation_expires(server: Server, postgres: Postgres) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(visibility="invite")
    invite = await ann.ok("POST", f"/groups/{group}/invite")
    assert abs(invite["expires_at"] - soon(server.settings.groups.invite_ttl_s)) < 10_000
    assert await ann.ok("POST", f"/groups/{group}/invite") == invite
    await postgres.execute("UPDATE group_invites SET expires_at = now() + interval '1 day'")
    later = await ann.ok("POST", f"/groups/{group}/invite")
    assert later["code"] != invite["code"]
    await postgres.execute("UPDATE group_invites SET expires_at = now() WHERE code = $1", invite["code"])
    assert (await bob.call("POST", f"/groups/{group}/join", {"invite_code": invite["code"]}))[0] == 404
    assert (await bob.call("POST", f"/groups/{group}/join", {"invite_code": later["code"]}))[0] == 200


async def test_invitations_end_with_the_right_to_invite(server: Server) -> None:
    ann, bob, eve = await server.users(3)
    group = await ann.group(visibility="invite")
    for method, path, body in (
        ("POST", f"/groups/{group}/leave", None),
        ("DELETE", f"/groups/{group}/members/{bob.id}", None),
        ("PATCH", f"/groups/{group}/members/{bob.id}", {"role": "member"}),
        ("PUT", f"/groups/{group}/bans/{bob.id}", None),
    ):
        await bob.ok("POST", f"/groups/{group}/join", {"invite_code": await ann.invite(group)})
        await ann.ok("PATCH", f"/groups/{group}/members/{bob.id}", {"role": "admin"})
        code = await bob.invite(group)
        await (bob if path.endswith("leave") else ann).ok(method, path, body)
        assert (await eve.call("POST", f"/groups/{group}/join", {"invite_code": code}))[0] == 404, path


async def test_bounds_on_members_and_on_groups_of_a_user(dsn: str, redis_url: str) -> None:
    settings = settings_for(dsn, redis_url, groups={"max_members": 2, "max_groups_per_user": 2})
    async with serving(settings) as server:
        ann, bob, eve = await server.users(3)
        group = await ann.group(bob)
        status, body = await eve.call("POST", f"/groups/{group}/join", {})
        assert (status, body["error"]["code"]) == (409, "conflict")
        await bob.ok("POST", f"/groups/{group}/leave")
        await eve.ok("POST", f"/groups/{group}/join", {})
        await eve.group()
        assert (await eve.call("POST", "/groups", {"name": "third", "visibility": "open"}))[0] == 409
        assert (await eve.call("POST", f"/groups/{await bob.group()}/join", {}))[0] == 409


async def test_lists_come_in_pages(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, groups={"page_max": 2})) as server:
        ann, *others = await server.users(4)
        groups = [await ann.group() for _ in range(5)]
        for user in others:
            await user.ok("POST", f"/groups/{groups[0]}/join", {})
        for path, expected in (
            ("/groups", groups),
            (f"/groups/{groups[0]}/members", sorted((u.id for u in (ann, *others)), key=int)),
        ):
            for limit in (1, 2, 50):
                seen: list[str] = []
                params: dict[str, Any] = {"limit": limit}
                while True:
                    page = await ann.ok("GET", path, **params)
                    assert 1 <= len(page["items"]) <= min(limit, 2)
                    seen += [item["id"] if "id" in item else item["user"]["id"] for item in page["items"]]
                    if page["next"] is None:
                        break
                    params["cursor"] = page["next"]
                assert seen == expected
        for params in ({"cursor": "x"}, {"cursor": "0"}, {"limit": 0}, {"limit": "x"}, {"page": 1}):
            for path in ("/groups", "/groups/discover", f"/groups/{groups[0]}/members"):
                assert (await ann.call("GET", path, **params))[0] == 422


async def test_what_is_no_id_is_no_group(server: Server) -> None:
    ann = await server.user()
    for group in ("0", "01", "-1", "x", "9223372036854775808", "%00", "%F0%9F%98%80"):
        assert (await ann.call("GET", f"/groups/{group}"))[0] in (404, 422), group


# Unread


async def test_unread_counts_what_came_after_reading_joining_or_sending(server: Server) -> None:
    ann, bob, eve = await server.users(3)
    group = await ann.group(bob)

    async def unread(user: User) -> tuple[int, int, int]:
        (found,) = (await user.ok("GET", "/groups"))["items"]
        return found["last_seq"], found["last_read_seq"], found["unread"]

    for body in "abc":
        await ann.post(group, body)
    assert [await unread(ann), await unread(bob)] == [(3, 0, 0), (3, 0, 3)]
    await eve.ok("POST", f"/groups/{group}/join", {})
    assert await unread(eve) == (3, 3, 0)
    await bob.ok("PUT", f"/groups/{group}/read", {"seq": 2})
    assert await unread(bob) == (3, 2, 1)
    await bob.ok("PUT", f"/groups/{group}/read", {"seq": 1})
    assert await unread(bob) == (3, 2, 1)
    await eve.post(group, "d")
    assert [await unread(user) for user in (ann, bob, eve)] == [(4, 0, 1), (4, 2, 2), (4, 3, 0)]
    await bob.ok("PUT", f"/groups/{group}/read", {"seq": 99})
    assert await unread(bob) == (4, 4, 0)
    # Coming back starts afresh: what was said meanwhile is history, not news.
    await bob.ok("POST", f"/groups/{group}/leave")
    await ann.post(group, "e")
    await bob.ok("POST", f"/groups/{group}/join", {})
    assert await unread(bob) == (5, 5, 0)


async def test_many_unread_are_shown_as_99_plus(server: Server, postgres: Postgres) -> None:
    ann = await server.user()
    group = await ann.group()
    for last_seq, label in ((99, "99"), (100, "99+")):
        await postgres.execute("UPDATE group_seq SET last_seq = $1", last_seq)
        found = await mine(ann, group)
        assert (found["unread"], found["unread_label"]) == (last_seq, label)
