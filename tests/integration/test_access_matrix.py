"""Every route and frame of a group, asked by everybody: the right answer, and nothing changed where it is a refusal."""

import itertools
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from app.modules.groups.handlers import GroupHandlers
from app.modules.messages.handlers import MessageHandlers
from app.modules.presence.handlers import PresenceHandlers
from app.modules.search.handlers import SearchHandlers
from app.protocol.endpoint import Endpoint
from app.storage.embedded import EmbeddedServers
from app.storage.postgres import Postgres
from tests.running import Server, User, serving, settings_for
from tests.services import database_like

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHO = ("owner", "admin", "member", "muted", "ex-member", "banned", "outsider", "anonymous")
OTHERS = ("plain", "other admin", "banned", "outsider")
"""Whom things are done to, by `{…}` in a path or body."""


@dataclass(frozen=True)
class Case:
    """One call, and the status for each of WHO; `visibility` of the group it is about."""

    name: str
    call: str
    expected: str
    body: Any = None
    visibility: str = "open"

    @property
    def statuses(self) -> dict[str, int]:
        return dict(zip(WHO, map(int, self.expected.split()), strict=True))


SOON = 4_000_000_000_000
MESSAGE = {"client_msg_id": str(uuid.UUID(int=1)), "kind": "text", "body": "hello"}
TARGET = "/groups/{group}/members/{plain}"

#                                          owner adm mem mut ex  ban out anonymous
CASES = [
    Case("make", "POST /groups",               "201 201 201 201 201 201 201 401", {"name": "x", "visibility": "open"}),
    Case("list", "GET /groups",                "200 200 200 200 200 200 200 401"),
    Case("discover", "GET /groups/discover",   "200 200 200 200 200 200 200 401"),
    Case("get", "GET /groups/{group}",         "200 200 200 200 404 404 404 401"),
    Case("rename", "PATCH /groups/{group}",    "200 200 403 403 404 404 404 401", {"name": "new"}),
    Case("announce", "PATCH /groups/{group}",  "200 200 403 403 404 404 404 401", {"announcement": "new"}),
    Case("disband", "DELETE /groups/{group}",  "204 403 403 403 404 404 404 401"),
    Case("join open", "POST /groups/{group}/join",
                                               "200 200 200 200 200 403 200 401", {}),
    Case("join without code", "POST /groups/{group}/join",
                                               "200 200 200 200 404 404 404 401", {}, "invite"),
    Case("join with code", "POST /groups/{group}/join",
                                               "200 200 200 200 200 403 200 401", {"invite_code": "{code}"}, "invite"),
    Case("join with bad code", "POST /groups/{group}/join",
                                               "200 200 200 200 404 404 404 401", {"invite_code": "no"}, "invite"),
    Case("leave", "POST /groups/{group}/leave",
                                               "409 204 204 204 404 404 404 401"),
    Case("invite to open", "POST /groups/{group}/invite",
                                               "200 200 200 200 404 404 404 401"),
    Case("invite", "POST /groups/{group}/invite",
                                               "200 200 403 403 404 404 404 401", None, "invite"),
    Case("transfer", "POST /groups/{group}/transfer",
                                               "200 403 403 403 404 404 404 401", {"user_id": "{plain}"}),
    Case("transfer to outsider", "POST /groups/{group}/transfer",
                                               "404 403 403 403 404 404 404 401", {"user_id": "{outsider}"}),
    Case("members", "GET /groups/{group}/members",
                                               "200 200 200 200 404 404 404 401"),
    Case("presence", "GET /groups/{group}/presence",
                                               "200 200 200 200 404 404 404 401"),
    Case("promote", f"PATCH {TARGET}",         "200 403 403 403 404 404 404 401", {"role": "admin"}),
    Case("demote", "PATCH /groups/{group}/members/{other admin}",
                                               "200 403 403 403 404 404 404 401", {"role": "member"}),
    Case("mute", f"PATCH {TARGET}",            "200 200 403 403 404 404 404 401", {"muted_until": SOON}),
    Case("mute an admin", "PATCH /groups/{group}/members/{other admin}",
                                               "200 403 403 403 404 404 404 401", {"muted_until": SOON}),
    Case("mute the owner", "PATCH /groups/{group}/members/{owner}",
                                               "403 403 403 403 404 404 404 401", {"muted_until": SOON}),
    Case("unmute oneself", "PATCH /groups/{group}/members/{self}",
                                               "403 403 403 403 404 404 404 401", {"muted_until": None}),
    Case("mute an outsider", "PATCH /groups/{group}/members/{outsider}",
                                               "404 404 404 404 404 404 404 401", {"muted_until": SOON}),
    Case("kick", f"DELETE {TARGET}",           "204 204 403 403 404 404 404 401"),
    Case("kick an admin", "DELETE /groups/{group}/members/{other admin}",
                                               "204 403 403 403 404 404 404 401"),
    Case("kick the owner", "DELETE /groups/{group}/members/{owner}",
                                               "403 403 403 403 404 404 404 401"),
    Case("kick an outsider", "DELETE /groups/{group}/members/{outsider}",
                                               "404 404 404 404 404 404 404 401"),
    Case("ban", "PUT /groups/{group}/bans/{plain}",
                                               "204 204 403 403 404 404 404 401"),
    Case("ban an admin", "PUT /groups/{group}/bans/{other admin}",
                                               "204 403 403 403 404 404 404 401"),
    Case("ban the owner", "PUT /groups/{group}/bans/{owner}",
                                               "403 403 403 403 404 404 404 401"),
    Case("ban an outsider", "PUT /groups/{group}/bans/{outsider}",
                                               "204 204 403 403 404 404 404 401"),
    Case("ban nobody", "PUT /groups/{group}/bans/1",
                                               "404 404 403 403 404 404 404 401"),
    Case("unban", "DELETE /groups/{group}/bans/{banned}",
                                               "204 204 403 403 404 404 404 401"),
    Case("send", "POST /groups/{group}/messages",
                                               "201 201 201 403 404 404 404 401", MESSAGE),
    Case("history", "GET /groups/{group}/messages",
                                               "200 200 200 200 404 404 404 401"),
    Case("senders", "GET /groups/{group}/senders?ids={owner}",
                                               "200 200 200 200 404 404 404 401"),
    Case("search", "GET /search/messages?q=only&group_id={group}",
                                               "200 200 200 200 404 404 404 401"),
    Case("read", "PUT /groups/{group}/read",   "204 204 204 204 404 404 404 401", {"seq": 1}),
    Case("sync", "POST /sync",                 "200 200 200 200 200 200 200 401", {"groups": {"{group}": {"seq": 0}}}),
]  # fmt: skip


class Anonymous(User):
    """Nobody: no credential."""

    @property
    def headers(self) -> dict[str, str]:
        return {}


class Scene:
    """People, and groups in which each has the place their name says. Groups are made by SQL: many cells, each with its own group."""

    def __init__(self, server: Server, postgres: Postgres, people: dict[str, User]) -> None:
        self.server = server
        self.postgres = postgres
        self.people = people
        self._numbers = itertools.count(1)

    async def group(self, visibility: str) -> dict[str, str]:
        """A new group with one stored message; what `{…}` stands for in its cases."""
        number = next(self._numbers)
        ids = {name: int(person.id) for name, person in self.people.items() if person.id}
        async with self.postgres.transaction() as connection:
            await connection.execute(
                "INSERT INTO groups (group_id, name, visibility) VALUES ($1, 'tea', $2)", number, visibility
            )
            await connection.execute("INSERT INTO group_seq (group_id, last_seq) VALUES ($1, 1)", number)
            await connection.executemany(
                """INSERT INTO group_members (group_id, user_id, role, muted_until, joined_seq)
                   VALUES ($1, $2, $3, CASE WHEN $4 THEN now() + interval '1 hour' END, 0)""",
                [
                    (number, ids["owner"], "owner", False),
                    (number, ids["admin"], "admin", False),
                    (number, ids["other admin"], "admin", False),
                    (number, ids["member"], "member", False),
                    (number, ids["plain"], "member", False),
                    (number, ids["muted"], "member", True),
                ],
            )
            await connection.execute("INSERT INTO group_bans VALUES ($1, $2, $3)", number, ids["banned"], ids["owner"])
            await connection.execute(
                "INSERT INTO group_invites VALUES ($1, $2, $3, now() + interval '1 hour')",
                f"code-{number}",
                number,
                ids["owner"],
            )
            await connection.execute(
                """INSERT INTO messages (group_id, seq, message_id, sender_id, client_msg_id, kind, body, content_hash, ts)
                   VALUES ($1, 1, $1, $2, gen_random_uuid(), 'text', 'members only', sha256(''), 1)""",
                number,
                ids["ex-member"],
            )
        return {"group": str(number), "code": f"code-{number}"} | {name: str(number) for name, number in ids.items()}

    async def state(self, group: str) -> Any:
        """Everything a group is. Of this one alone: read marks of others are written behind."""
        tables = ("groups", "group_seq", "group_members", "group_bans", "group_invites", "messages")
        return [
            await self.postgres.fetch(f"SELECT * FROM {table} WHERE group_id = $1 ORDER BY 1, 2", int(group))  # noqa: S608
            for table in tables
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(servers: EmbeddedServers) -> AsyncIterator[Scene]:
    redis = Redis.from_url(servers.redis_url)
    await redis.flushall()
    await redis.aclose()
    async with database_like(servers.dsn) as dsn:
        postgres = Postgres(dsn, pool_min=1, pool_max=2, connect_timeout_s=5, command_timeout_s=10, acquire_timeout_s=5)
        await postgres.start()
        try:
            async with serving(settings_for(dsn, servers.redis_url)) as server:
                names = [*WHO[:-1], "plain", "other admin"]
                people: dict[str, User] = dict(zip(names, await server.users(len(names)), strict=True))
                people["anonymous"] = Anonymous(server, "", "", "")
                yield Scene(server, postgres, people)
        finally:
            await postgres.stop()


def filled(value: Any, names: dict[str, str]) -> Any:
    """`value` with every `{name}` replaced."""
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, dict):
        return {filled(key, names): filled(part, names) for key, part in value.items()}
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_routes(scene: Scene, case: Case) -> None:
    method, path = case.call.split(" ", 1)
    for who, expected in case.statuses.items():
        names = await scene.group(case.visibility)
        names["self"] = names.get(who, "1")
        before = await scene.state(names["group"])
        status, answer = await scene.people[who].call(method, filled(path, names), filled(case.body, names))
        assert status == expected, (who, answer)
        if status >= 400:
            assert await scene.state(names["group"]) == before, who
            assert "members only" not in str(answer)
            code = {401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "conflict"}[status]
            assert answer["error"]["code"] == code
        if case.name == "sync" and status == 200:
            assert bool(answer["groups"]) == (who in WHO[:4])
        if case.name in ("list", "discover") and status == 200:
            listed = names["group"] in [group["id"] for group in answer["items"]]
            assert listed == (who in WHO[:4] if case.name == "list" else who != "banned")


async def test_no_route_is_forgotten() -> None:
    described = [
        getattr(member, "__endpoint__", None)
        for handlers in (GroupHandlers, MessageHandlers, PresenceHandlers, SearchHandlers)
        for member in vars(handlers).values()
    ]
    routes = {f"{e.method} {e.path}" for e in described if isinstance(e, Endpoint)}
    as_route = {
        "group": "{group_id}",
        **dict.fromkeys(("plain", "other admin", "owner", "self", "outsider", "banned"), "{user_id}"),
    }
    assert routes == {filled(case.call.partition("?")[0], as_route) for case in CASES if not case.call.endswith("/1")}


FRAMES: dict[str, tuple[dict[str, Any], str]] = {
    "message.send": ({**MESSAGE, "group_id": "{group}"}, "ok ok ok forbidden not_found not_found not_found"),
    "message.read": ({"group_id": "{group}", "seq": 1}, "ok ok ok ok not_found not_found not_found"),
    "group.focus": ({"group_id": "{group}"}, "ok ok ok ok not_found not_found not_found"),
    "resume": ({"groups": {"{group}": {"seq": 0}}}, "delta delta delta delta reset reset reset"),
}


@pytest.mark.parametrize("kind", FRAMES)
async def test_frames(scene: Scene, kind: str) -> None:
    fields, expected = FRAMES[kind]
    for who, result in zip(WHO[:-1], expected.split(), strict=True):
        names = await scene.group("open")
        before = await scene.state(names["group"])
        async with scene.people[who].socket() as socket:
            answer = await socket.request(kind, **filled(fields, names))
        if kind == "resume":
            assert answer["groups"][names["group"]]["state"] == result, who
        elif result == "ok":
            assert answer["type"] == "ok", (who, answer)
        else:
            assert (answer["type"], answer["code"], answer["outcome"]) == ("error", result, "none"), who
        if result not in ("ok", "delta"):
            assert "members only" not in str(answer)
            assert await scene.state(names["group"]) == before, who


async def test_typing_of_outsiders_reaches_nobody(scene: Scene) -> None:
    names = await scene.group("open")
    async with scene.people["member"].socket() as member:
        for who in ("ex-member", "banned", "outsider", "owner"):
            async with scene.people[who].socket() as socket:
                await socket.ws.send_json({"type": "typing", "group_id": names["group"]})
                # Has no answer; for those outside an error without id says why.
                await socket.request("ping")
        typing = await member.event("typing")
        assert typing == {"type": "typing", "group_id": names["group"], "user_id": names["owner"]}
        assert [frame for frame in member.kept if frame["type"] == "typing"] == []
