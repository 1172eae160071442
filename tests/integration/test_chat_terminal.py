"""`run.py chat` as people see it: in real terminals, against a real server."""

from collections.abc import AsyncIterator

import pytest

from tests.running import PASSWORD, Server, serving, settings_for
from tests.terminal import Terminal, terminal


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as running:
        yield running


async def register(screen: Terminal, name: str) -> None:
    await screen.see("[l]og in or [r]egister?")
    screen.enter("/create team")
    await screen.see("[l]og in or [r]egister?")
    screen.enter("r")
    await screen.see("User name:")
    screen.enter(name)
    await screen.see("Password")
    screen.enter(PASSWORD)
    await screen.see("The same again:")
    screen.enter(PASSWORD)
    await screen.see("You are in no group yet")


async def test_two_people_chat(server: Server) -> None:
    async with terminal("chat", "--url", server.url) as alice, terminal("chat", "--url", server.url) as bob:
        await register(alice, "alice")
        alice.enter("/create lobby")
        await alice.see("others join it with /join lobby")
        await register(bob, "bob")
        bob.enter("/join lobby")
        await bob.see("lobby · 2 members")
        await alice.see("bob joined")

        alice.type("half a line")
        await alice.see("half a line")
        bob.enter("hello from bob")
        await alice.see("bob hello from bob")
        await alice.see("lobby > half a line")
        alice.enter(" and the rest")
        await bob.see("alice half a line and the rest")

        bob.enter("/nonsense")
        await bob.see("There is no command /nonsense")
        bob.enter("//not a command")
        await alice.see("bob /not a command")

        alice.enter("/members")
        await alice.see("online")
        await alice.see("@bob")

        bob.enter("/quit")
        await bob.see("Bye.")
        assert await bob.left() == 0
        alice.enter("one more")
        await alice.see("alice one more")
        alice.type("\x04")
        assert await alice.left() == 0
        assert PASSWORD not in alice.text + bob.text
        assert "Traceback" not in alice.text + bob.text


async def test_history_unread_and_reconnect(server: Server) -> None:
    alice, bob = await server.users(2)
    group_id = await alice.group(bob)
    for n in range(40):
        await alice.post(group_id, f"message {n}")
    async with terminal("chat", "--url", server.url, "--user", bob.name) as screen:
        await screen.see("[l]og in or [r]egister?")
        screen.enter("l")
        await screen.see("Password:")
        screen.enter(PASSWORD)
        await screen.see("40 new")
        screen.enter("/1")
        await screen.see("/more shows older messages.")
        before = await screen.see("message 39")
        assert "message 10" in before
        assert "message 9" not in before
        screen.enter("/more")
        assert "message 0" in await screen.see("There is nothing older.")
        [connection] = [connection for hub in server.hubs for connection in hub.connections]
        connection.abort()
        await alice.post(group_id, "while you were away")
        await screen.see("while you were away")


async def test_speaks_chinese_where_the_terminal_does(server: Server) -> None:
    alice = await server.user()
    async with terminal("chat", "--url", server.url, environ={"LC_ALL": "zh_CN.UTF-8"}) as screen:
        await screen.see("登录")
        screen.enter("l")
        await screen.see("用户名")
        screen.enter(alice.name)
        await screen.see("密码")
        screen.enter("wrong1password")
        await screen.see("身份验证失败")
        screen.enter("l")
        await screen.see("用户名")
        screen.enter(alice.name)
        await screen.see("密码")
        screen.enter(PASSWORD)
        await screen.see("你还没有加入群组")
        screen.enter("/quit")
        assert await screen.left() == 0


async def test_a_session_ended_elsewhere_is_one_sentence(server: Server) -> None:
    alice = await server.user()
    async with terminal("chat", "--url", server.url, "--user", alice.name) as screen:
        await screen.see("[l]og in or [r]egister?")
        screen.enter("l")
        await screen.see("Password:")
        screen.enter(PASSWORD)
        await screen.see("online")
        for hub in server.hubs:
            hub.close_sessions(hub.local_sessions(), "you logged out")
        await screen.see("magpie: The server ended the session: you logged out.")
        assert await screen.left() == 2
        assert "Traceback" not in screen.text


async def test_no_server_is_one_sentence(unused_tcp_port: int) -> None:
    async with terminal("chat", "--url", f"http://127.0.0.1:{unused_tcp_port}") as screen:
        await screen.see("magpie: No Magpie server answers at")
        await screen.see("make run")
        assert await screen.left() == 2


async def test_something_else_than_magpie_is_one_sentence(server: Server) -> None:
    async with terminal("chat", "--url", "nonsense") as screen:
        await screen.see("magpie: nonsense is not an address")
        assert await screen.left() == 2
