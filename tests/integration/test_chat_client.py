"""The reference client against the real server."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from app.client.client import Client
from app.client.errors import SessionEnded
from app.client.events import Event, GroupLeft, MemberChanged, MessageReceived, PresenceChanged, Typing
from app.client.options import ClientOptions
from app.errors import Conflict, Forbidden, NotFound
from tests.running import Server, User, serving, settings_for

OPTIONS = ClientOptions(backoff_base_ms=20, refresh_within_s=0.05)


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, gateway={"backoff_base_ms": 20, "pull_within_ms": 50})) as running:
        yield running


def client_of(user: User, options: ClientOptions = OPTIONS) -> Client:
    return Client(user.server.url, user.token, options=options)


async def until(client: Client, found: Callable[[Event], bool]) -> Event:
    async with asyncio.timeout(10):
        async for event in client.events():
            if found(event):
                return event
    raise AssertionError("the events ended")


async def read(client: Client, count: int) -> list[str]:
    bodies: list[str] = []
    while len(bodies) < count:
        event = await until(client, lambda event: isinstance(event, MessageReceived))
        assert isinstance(event, MessageReceived)
        bodies.append(event.message.body)
    return bodies


def cut(server: Server) -> None:
    for connection in [connection for hub in server.hubs for connection in hub.connections]:
        connection.abort()


async def test_two_people_talk(server: Server) -> None:
    alice, bob = await server.users(2)
    group_id = await alice.group(bob)
    async with client_of(alice) as a, client_of(bob) as b:
        assert (await a.send(group_id, "hello bob")).seq == 1
        assert await read(b, 1) == ["hello bob"]
        assert (b.groups[0].unread, b.groups[0].unread_label) == (1, "1")
        await b.read(group_id, 1)
        assert b.groups[0].unread == 0
        assert (await b.send(group_id, "hello alice")).seq == 2
        assert await read(a, 2) == ["hello bob", "hello alice"]
        assert a.groups[0].unread == 1
        await a.typing(group_id)
        assert await until(b, lambda event: isinstance(event, Typing)) == Typing(group_id, alice.id)
        await b.focus(group_id)


async def test_who_is_online(server: Server) -> None:
    alice, bob = await server.users(2)
    group_id = await alice.group(bob)
    async with client_of(alice) as a, client_of(bob):
        came = await until(a, lambda event: isinstance(event, PresenceChanged) and event.user_id == bob.id)
        assert isinstance(came, PresenceChanged)
        assert (came.online, came.last_seen) == (True, None)
        presence = await a.api.presence(group_id)
        assert presence is not None
        assert presence.online == 2
        assert presence.members is not None
        assert {each.user_id: each.state for each in presence.members} == {alice.id: "online", bob.id: "online"}


async def test_nothing_is_missing_or_doubled_after_lost_connections(server: Server) -> None:
    alice, bob = await server.users(2)
    group_id = await alice.group(bob)
    async with client_of(alice) as a, client_of(bob) as b:
        for n in range(60):
            if n % 12 == 7:
                cut(server)
            assert (await a.send(group_id, f"m{n}")).seq == n + 1
        expected = [f"m{n}" for n in range(60)]
        assert await read(b, 60) == expected
        assert await read(a, 60) == expected


async def test_a_slow_reader_gets_everything(server: Server) -> None:
    alice, bob = await server.users(2)
    group_id = await alice.group(bob)
    slow = ClientOptions(max_events=10, max_aside=5)
    async with client_of(alice) as a, client_of(bob, slow) as b:
        for n in range(50):
            await a.send(group_id, f"m{n}")
        assert await read(b, 50) == [f"m{n}" for n in range(50)]


async def test_reads_from_the_beginning(server: Server) -> None:
    alice, bob = await server.users(2)
    group_id = await alice.group(bob)
    for n in range(130):
        assert (await alice.post(group_id, f"m{n}"))[0] == 201
    async with client_of(bob, ClientOptions(start="beginning", refresh_within_s=0.05)) as b:
        assert await read(b, 130) == [f"m{n}" for n in range(130)]
    async with client_of(bob) as b:
        await alice.post(group_id, "live")
        assert await read(b, 1) == ["live"]


async def test_follows_groups_while_connected(server: Server) -> None:
    alice, bob = await server.users(2)
    async with client_of(alice) as a, client_of(bob) as b:
        group = await a.api.create_group("lobby")
        await b.api.join(group.id)
        await until(a, lambda event: isinstance(event, MemberChanged) and event.change == "joined")
        await a.send(group.id, "welcome")
        assert await read(b, 1) == ["welcome"]
        await a.api.kick(group.id, bob.id)
        assert await until(b, lambda event: isinstance(event, GroupLeft)) == GroupLeft(group.id, "kicked")
        assert b.groups == []
        with pytest.raises((NotFound, Forbidden)):
            await b.send(group.id, "still here?")
        with pytest.raises(Conflict):
            await a.api.leave(group.id)
        await b.api.join(group.id)
        await a.send(group.id, "welcome back")
        assert (await read(b, 1))[-1] == "welcome back"


async def test_every_call_of_the_api(server: Server) -> None:
    alice, bob = await server.users(2)
    async with client_of(alice) as a, client_of(bob) as b:
        assert (await a.api.me()).username == alice.name
        assert (await a.api.gateway()).url
        assert (await a.api.ticket()).ticket
        group = await a.api.create_group("plans", "invite")
        assert (await a.api.discover("plans")).items == []
        invite = await a.api.invite(group.id)
        with pytest.raises((NotFound, Forbidden)):
            await b.api.join(group.id)
        joined = await b.api.join(group.id, invite.code)
        assert (joined.role, joined.member_count) == ("member", 2)
        assert [member.user.id for member in (await a.api.members(group.id)).items] == [alice.id, bob.id]
        assert (await a.api.update_member(group.id, bob.id, {"role": "admin"})).role == "admin"
        updated = await a.api.update_group(group.id, name="better plans", announcement="noon")
        assert (updated.name, updated.announcement) == ("better plans", "noon")
        assert (await a.api.transfer(group.id, bob.id)).owner_id == bob.id
        await a.api.leave(group.id)
        await b.api.ban(group.id, alice.id)
        await b.api.unban(group.id, alice.id)
        await b.send(group.id, "alone")
        await b.api.read(group.id, 1)
        page = await b.api.history(group.id)
        assert ([item.body for item in page.items], page.has_more) == (["alone"], False)
        assert list((await b.api.sync({group.id: 0, "999": 0}, 10)).groups) == [group.id]
        await b.api.disband(group.id)
        assert (await b.api.groups()).items == []


async def test_logging_out_ends_the_session_for_good(server: Server) -> None:
    [alice] = await server.users(1)
    async with client_of(alice) as client:
        await client.api.logout()
        with pytest.raises(SessionEnded) as end:
            await until(client, lambda event: isinstance(event, MessageReceived))
        assert end.value.code == 4501
