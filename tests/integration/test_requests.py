"""The calls of requests/*.http, made in their order as an editor's REST client would."""

import json
import re
from collections.abc import AsyncIterator
from functools import reduce
from operator import getitem
from typing import Any

import pytest

from app.settings import ROOT
from tests.running import Server, serving, settings_for

VARIABLE = re.compile(r"\{\{([^}]+)\}\}")


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as server:
        yield server


class Walk:
    """Variables and named answers of one file."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._variables: dict[str, str] = {}
        self._answers: dict[str, Any] = {}

    def _filled(self, text: str) -> str:
        return VARIABLE.sub(lambda found: self._value(found[1]), text)

    def _value(self, name: str) -> str:
        if name == "base":
            return f"{self._server.url}/api/v1"
        if name in self._variables:
            return self._variables[name]
        request, _, field = name.partition(".response.body.$.")
        return str(reduce(getitem, field.split("."), self._answers[request]))

    async def make(self, block: str) -> int:
        """The status of one call."""
        head, _, body = block.strip().partition("\n\n")
        name, lines = "", []
        for line in head.splitlines():
            if line.startswith("# @name "):
                name = line.removeprefix("# @name ")
            elif line.startswith("@"):
                variable, _, value = line[1:].partition(" = ")
                self._variables[variable] = self._filled(value)
            elif not line.startswith("#"):
                lines.append(self._filled(line))
        method, url = lines[0].split(" ", 1)
        headers = dict(line.split(": ", 1) for line in lines[1:])
        data = self._filled(body).encode() or None
        async with self._server.http.request(method, url, headers=headers, data=data) as response:
            text = await response.text()
            if name:
                self._answers[name] = json.loads(text)
            return response.status


def blocks(file: str) -> list[str]:
    text = (ROOT / "requests" / file).read_text()
    # Before the first call: what concerns the whole file.
    text = re.sub(r"\A(#.*\n)*@base.*\n+(###.*\n)?", "", text)
    return re.split(r"^###.*\n", text, flags=re.MULTILINE)


async def test_every_call_works(server: Server) -> None:
    statuses = {}
    for file in ("accounts.http", "groups.http", "messages.http", "search.http"):
        walk = Walk(server)
        statuses[file] = [await walk.make(block) for block in blocks(file)]
    assert statuses == {
        "accounts.http": [201, 200, 200, 200, 200, 200, 204],
        "groups.http": [200, 201, 200, 200, 200, 200, 200, 204],
        "messages.http": [200, 201, 201, 200, 200, 200, 204],
        "search.http": [200, 201, 201, 200, 200],
    }
