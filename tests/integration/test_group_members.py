"""Members over HTTP: roles, mutes, kicks, bans, handing over; many at once; the audit log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.storage.postgres import Postgres
from tests.asking import member, mine, names
from tests.mirror import soon
from tests.running import Server, serving, settings_for


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as server:
        yield server


async def test_an_owner_stays_until_the_group_has_another(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    assert (await ann.call("POST", f"/groups/{group}/leave"))[0] == 409
    await ann.ok("PATCH", f"/groups/{group}/members/{bob.id}", {"muted_until": soon()})
    after = await ann.ok("POST", f"/groups/{group}/transfer", {"user_id": bob.id})
    assert (after["owner_id"], after["role"]) == (bob.id, "admin")
    # An owner is never muted.
    assert await member(ann, group, bob) == await member(bob, group, bob)
    assert ((await mine(bob, group))["role"], (await mine(bob, group))["muted_until"]) == ("owner", None)
    assert (await ann.call("POST", f"/groups/{group}/leave"))[0] == 204
    assert (await bob.call("POST", f"/groups/{group}/transfer", {"user_id": bob.id}))[0] == 409
    assert (await bob.call("POST", f"/groups/{group}/transfer", {"user_id": ann.id}))[0] == 404


async def test_a_muted_member_reads_but_does_not_post(server: Server, postgres: Postgres) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    until = soon()
    changed = await ann.ok("PATCH", f"/groups/{group}/members/{bob.id}", {"muted_until": until})
    assert changed == await member(bob, group, bob)
    assert changed["muted_until"] == (await mine(bob, group))["muted_until"] == until
    status, body = await bob.post(group, "hello")
    assert (status, body["error"]["code"]) == (403, "forbidden")
    assert (await bob.call("GET", f"/groups/{group}/messages"))[0] == 200
    # Repeating it is no change.
    version = (await mine(ann, group))["version"]
    await ann.ok("PATCH", f"/groups/{group}/members/{bob.id}", {"muted_until": until})
    assert (await mine(ann, group))["version"] == version
    await ann.ok("PATCH", f"/groups/{group}/members/{bob.id}", {"muted_until": None})
    assert (await bob.post(group, "hello"))[0] == 201
    # A mute that is over is none.
    await ann.ok("PATCH", f"/groups/{group}/members/{bob.id}", {"muted_until": until})
    await postgres.execute(
        "UPDATE group_members SET muted_until = now() - interval '1 ms' WHERE muted_until IS NOT NULL"
    )
    assert (await mine(bob, group))["muted_until"] is None
    assert (await bob.post(group, "hello"))[0] == 201


async def test_changes_of_a_member_that_are_refused(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    before = await mine(ann, group)
    bad_mutes = (0, -1, 10**15, "soon", 1.5, True)
    bodies: list[dict[str, Any]] = [{}, *({"muted_until": value} for value in bad_mutes)]
    bodies += [{"role": "owner"}, {"role": None}, {"role": "king"}, {"role": "admin", "x": 1}]
    for body in bodies:
        assert (await ann.call("PATCH", f"/groups/{group}/members/{bob.id}", body))[0] == 422, body
    assert await mine(ann, group) == before
    assert (await member(ann, group, bob))["role"] == "member"


async def test_role_and_mute_change_together(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    until = soon()
    changed = await ann.ok("PATCH", f"/groups/{group}/members/{bob.id}", {"role": "admin", "muted_until": until})
    assert (changed["role"], changed["muted_until"]) == ("admin", until)
    # An admin who is muted cannot lift it.
    assert (await bob.call("PATCH", f"/groups/{group}/members/{bob.id}", {"muted_until": None}))[0] == 403


async def test_a_kicked_member_may_come_back_and_a_banned_one_not(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    await ann.ok("DELETE", f"/groups/{group}/members/{bob.id}")
    assert (await bob.call("GET", f"/groups/{group}"))[0] == 404
    assert (await ann.call("DELETE", f"/groups/{group}/members/{bob.id}"))[0] == 404
    await bob.ok("POST", f"/groups/{group}/join", {})
    for _ in range(2):
        assert (await ann.call("PUT", f"/groups/{group}/bans/{bob.id}"))[0] == 204
    assert (await bob.call("POST", f"/groups/{group}/join", {}))[0] == 403
    assert (await bob.call("POST", f"/groups/{group}/join", {"invite_code": await ann.invite(group)}))[0] == 403
    assert await names(bob) == []
    for _ in range(2):
        assert (await ann.call("DELETE", f"/groups/{group}/bans/{bob.id}"))[0] == 204
    await bob.ok("POST", f"/groups/{group}/join", {})


async def test_a_ban_keeps_out_somebody_who_was_never_in(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(visibility="invite")
    await ann.ok("PUT", f"/groups/{group}/bans/{bob.id}")
    assert (await bob.call("POST", f"/groups/{group}/join", {"invite_code": await ann.invite(group)}))[0] == 403
    assert (await bob.call("POST", f"/groups/{group}/join", {}))[0] == 404
    assert (await ann.call("PUT", f"/groups/{group}/bans/1"))[0] == 404
    assert (await ann.call("PUT", f"/groups/{group}/bans/{ann.id}"))[0] == 403


async def test_many_at_once_end_in_one_consistent_state(dsn: str, redis_url: str, postgres: Postgres) -> None:
    async with serving(settings_for(dsn, redis_url, groups={"max_members": 6})) as server:
        ann, *others = await server.users(12)
        groups = [await ann.group(), await ann.group()]
        calls = []
        for user in others:
            for group in groups:
                calls += [user.call("POST", f"/groups/{group}/join", {}), user.post(group, "hello")]
                calls += [
                    ann.call("DELETE", f"/groups/{group}/members/{user.id}"),
                    user.call("POST", f"/groups/{group}/leave"),
                ]
                calls += [ann.call("PATCH", f"/groups/{group}/members/{user.id}", {"muted_until": soon()})]
        statuses = {status for status, _ in await asyncio.gather(*calls)}
        assert statuses <= {200, 201, 204, 403, 404, 409}
        await asyncio.gather(*(user.call("POST", f"/groups/{group}/join", {}) for user in others for group in groups))
        for group in groups:
            found = await mine(ann, group)
            assert found["member_count"] == len((await ann.ok("GET", f"/groups/{group}/members"))["items"]) == 6
            changes = await postgres.fetchval("SELECT count(*) FROM audit_log WHERE group_id = $1", int(group))
            assert found["version"] == changes


async def test_every_change_is_in_the_audit_log(server: Server, postgres: Postgres) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    path = f"/groups/{group}/members/{bob.id}"
    await ann.ok("PATCH", f"/groups/{group}", {"announcement": "not for the log"})
    await ann.ok("PATCH", path, {"role": "admin"})
    await ann.ok("PATCH", path, {"muted_until": (until := soon())})
    await ann.ok("PATCH", path, {"muted_until": None})
    await ann.ok("POST", f"/groups/{group}/transfer", {"user_id": bob.id})
    await bob.ok("POST", f"/groups/{group}/transfer", {"user_id": ann.id})
    await ann.ok("DELETE", path)
    await bob.ok("POST", f"/groups/{group}/join", {})
    await ann.ok("PUT", f"/groups/{group}/bans/{bob.id}")
    for method in ("DELETE", "PUT", "DELETE"):
        await ann.ok(method, f"/groups/{group}/bans/{bob.id}")
    await ann.invite(group)
    await bob.ok("POST", f"/groups/{group}/join", {})
    await bob.ok("POST", f"/groups/{group}/leave")
    await ann.ok("DELETE", f"/groups/{group}")
    rows = await postgres.fetch(
        "SELECT actor_id, action, target_id, details::text FROM audit_log WHERE group_id = $1 ORDER BY audit_id",
        int(group),
    )
    a, b = int(ann.id), int(bob.id)
    assert [tuple(row) for row in rows] == [
        (a, "group_created", None, '{"visibility": "open"}'),
        (b, "member_joined", None, None),
        (a, "group_updated", None, '{"fields": ["announcement"]}'),
        (a, "role_changed", b, '{"role": "admin"}'),
        (a, "member_muted", b, f'{{"muted_until": {until}}}'),
        (a, "member_unmuted", b, None),
        (a, "ownership_transferred", b, None),
        (b, "ownership_transferred", a, None),
        (a, "member_kicked", b, None),
        (b, "member_joined", None, None),
        (a, "member_banned", b, None),
        (a, "user_unbanned", b, None),
        (a, "user_banned", b, None),
        (a, "user_unbanned", b, None),
        (a, "invite_created", None, None),
        (b, "member_joined", None, None),
        (b, "member_left", None, None),
        (a, "group_disbanded", None, None),
    ]
    version = await postgres.fetchval("SELECT access_version FROM group_seq WHERE group_id = $1", int(group))
    # What members do not see raises no version.
    assert version == len([row for row in rows if not row["action"].startswith(("user_", "invite_"))])
