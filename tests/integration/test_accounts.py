"""Accounts over HTTP: what is accepted, what is refused and how."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.running import PASSWORD, Server, serving, settings_for


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as server:
        yield server


async def post(server: Server, path: str, body: Any, **options: Any) -> tuple[int, Any]:
    async with server.http.post(f"{server.url}/api/v1{path}", json=body, **options) as response:
        return response.status, await response.json()


async def test_registering_logs_in(server: Server) -> None:
    status, answer = await post(server, "/auth/register", {"username": "Ann_1", "password": PASSWORD})
    assert status == 201
    assert answer["user"]["username"] == answer["user"]["display_name"] == "Ann_1"
    assert answer["gateway"]["url"].startswith("ws://")
    headers = {"Authorization": f"Bearer {answer['token']}"}
    async with server.http.get(f"{server.url}/api/v1/me", headers=headers) as response:
        assert (await response.json())["id"] == answer["user"]["id"]


@pytest.mark.parametrize("name", ["ab", "a" * 21, "with space", "ünï", "semi;colon", "", "a\0b"])
async def test_usernames_are_checked(server: Server, name: str) -> None:
    status, answer = await post(server, "/auth/register", {"username": name, "password": PASSWORD})
    assert (status, answer["error"]["code"], answer["error"]["outcome"]) == (422, "bad_request", "none")


@pytest.mark.parametrize("password", ["short1", "onlyletters", "12345678", "a1" + "x" * 63, "é1" * 30, "abc\x00defg1"])
async def test_passwords_are_checked_and_never_quoted(server: Server, password: str) -> None:
    status, answer = await post(server, "/auth/register", {"username": "ann", "password": password})
    assert (status, answer["error"]["code"]) == (422, "bad_request")
    assert password not in str(answer)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "ann"},
        {"username": "ann", "password": PASSWORD, "admin": True},
        {"username": 5, "password": PASSWORD},
        {"username": "ann", "password": None},
        [],
        "text",
        None,
        5,
    ],
)
async def test_bodies_of_another_form_are_refused(server: Server, body: Any) -> None:
    status, answer = await post(server, "/auth/register", body)
    assert (status, answer["error"]["code"]) == (422, "bad_request")


async def test_names_are_taken_without_regard_to_case(server: Server) -> None:
    await server.user("Ann_x")
    status, answer = await post(server, "/auth/register", {"username": "aNN_X", "password": PASSWORD})
    assert (status, answer["error"]["code"]) == (409, "conflict")


async def test_a_wrong_login_is_the_same_for_known_and_unknown_users(server: Server) -> None:
    ann = await server.user()
    wrong = await post(server, "/auth/login", {"username": ann.name, "password": "wrong-pass-1"})
    unknown = await post(server, "/auth/login", {"username": "nobody_here", "password": "wrong-pass-1"})
    for status, answer in (wrong, unknown):
        assert (status, answer["error"]["code"]) == (401, "unauthorized")
    assert wrong[1]["error"]["message"] == unknown[1]["error"]["message"]
    for password in ("x" * 100, "é1" * 40, "nul\0nul1"):
        status, _ = await post(server, "/auth/login", {"username": ann.name, "password": password})
        assert status == 401
    status, answer = await post(server, "/auth/login", {"username": ann.name.upper(), "password": PASSWORD})
    assert status == 200


async def test_after_logout_the_token_is_dead_at_once(server: Server) -> None:
    ann = await server.user()
    assert (await ann.call("POST", "/auth/logout"))[0] == 204
    assert (await ann.call("GET", "/me"))[0] == 401


async def test_profile_and_finding_users(server: Server) -> None:
    ann, bob = await server.users(2)
    assert (await ann.ok("PATCH", "/me", {"display_name": "  安 Ann "}))["display_name"] == "安 Ann"
    for name in ("", " ", "x" * 41, "line\nbreak", "a\0b", "\u202enna", "a\u2066b"):
        assert (await ann.call("PATCH", "/me", {"display_name": name}))[0] == 422
    found = (await bob.ok("GET", "/users", username=ann.name.upper()))["items"]
    assert found == [{"id": ann.id, "username": ann.name, "display_name": "安 Ann"}]
    assert (await bob.ok("GET", "/users", username="nobody_at_all"))["items"] == []
    assert (await bob.call("GET", "/users"))[0] == 422
    assert (await bob.call("GET", "/users", username="a", other="b"))[0] == 422


async def test_limits_have_a_bucket_each_and_say_when_to_retry(dsn: str, redis_url: str) -> None:
    limits = {"register_per_minute": 2, "login_per_minute": 3, "api_per_minute": 4}
    async with serving(settings_for(dsn, redis_url, limits=limits)) as server:
        ann, _ = await server.users(2)
        body = {"username": "carol", "password": PASSWORD}
        async with server.http.post(f"{server.url}/api/v1/auth/register", json=body) as response:
            assert response.status == 429
            assert 1 <= int(response.headers["Retry-After"]) <= 60
            assert (await response.json())["error"]["code"] == "rate_limited"
        logins = [await post(server, "/auth/login", {"username": ann.name, "password": PASSWORD}) for _ in range(4)]
        assert [status for status, _ in logins] == [200, 200, 200, 429]
        assert [(await ann.call("GET", "/me"))[0] for _ in range(5)] == [200, 200, 200, 200, 429]
        # Failed credentials are counted by address.
        ann.token = "wrong"
        assert [(await ann.call("GET", "/me"))[0] for _ in range(5)] == [401, 401, 401, 401, 429]
