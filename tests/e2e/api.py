"""The quick way to have people, groups and messages in place: over HTTP, without a browser."""

import itertools
import os
import uuid
from typing import Any

import aiohttp

from tests.e2e.person import PASSWORD

_numbers = itertools.count(1)


class Account:
    """A user who has no browser."""

    def __init__(self, url: str, http: aiohttp.ClientSession, token: str, user: dict[str, Any]) -> None:
        self._url = url
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}
        self.id: str = user["id"]
        self.username: str = user["username"]

    async def call(self, method: str, path: str, json: Any = None, **params: str) -> Any:
        """The answer's body; anything but a 2xx fails."""
        address = f"{self._url}/api/v1{path}"
        async with self._http.request(method, address, json=json, params=params, headers=self._headers) as answer:
            assert answer.ok, (answer.status, await answer.text())
            return await answer.json() if answer.status != 204 else None

    async def create_group(self, name: str, visibility: str = "open") -> str:
        """Its id."""
        return str((await self.call("POST", "/groups", {"name": name, "visibility": visibility}))["id"])

    async def say(self, group_id: str, body: str) -> int:
        """Its seq."""
        message = {"client_msg_id": str(uuid.uuid4()), "kind": "text", "body": body}
        return int((await self.call("POST", f"/groups/{group_id}/messages", message))["seq"])


async def register(url: str, http: aiohttp.ClientSession, display_name: str | None = None) -> Account:
    """A new account."""
    body = {
        "username": f"api_{os.getpid() % 100_000}_{next(_numbers)}",
        "password": PASSWORD,
        "display_name": display_name,
    }
    async with http.post(f"{url}/api/v1/auth/register", json=body) as answer:
        assert answer.status == 201, await answer.text()
        found = await answer.json()
        return Account(url, http, found["token"], found["user"])
