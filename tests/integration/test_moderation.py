"""The word filter on the way of a message: what is refused or masked, however it is typed, and when the list changes."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.errors import ConfigError
from tests.running import Server, serving, settings_for


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "words.txt"
    file.write_text("# not allowed\nbadword\n坏词\n", encoding="utf-8")
    return file


@asynccontextmanager
async def filtering(dsn: str, redis_url: str, words: Path, mode: str) -> AsyncIterator[Server]:
    options = {"words_file": str(words), "mode": mode, "reload_s": 0.02}
    async with serving(settings_for(dsn, redis_url, moderation=options)) as server:
        yield server


async def test_rejecting(dsn: str, redis_url: str, words: Path) -> None:
    async with filtering(dsn, redis_url, words, "reject") as server:
        ann = await server.user()
        group = await ann.group()
        async with ann.socket() as socket:
            for body in ("a badword", "ＢＡＤＷＯＲＤ", "b\u200bad\u200dword", "Ba\u0336dWord", "坏\ufeff词"):  # noqa: RUF001
                answer = await socket.send(group, body)
                assert (answer["type"], answer["code"], answer["outcome"]) == ("error", "rejected", "none"), body
                status, refused = await ann.post(group, body)
                assert (status, refused["error"]["code"]) == (422, "rejected")
                assert body not in str(refused)
            assert (await socket.send(group, "a good word"))["seq"] == 1
        assert [item["body"] for item in await ann.history(group)] == ["a good word"]


async def test_masking(dsn: str, redis_url: str, words: Path) -> None:
    async with filtering(dsn, redis_url, words, "mask") as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        message_id = str(uuid.uuid4())
        async with bob.socket() as socket:
            status, stored = await ann.post(group, "say Bad\u200bWord, 坏词!", message_id)
            assert (status, stored["body"]) == (201, "say ********, **!")
            assert (await socket.event("messages"))["items"] == [stored]
        assert await bob.history(group) == [stored]
        # The same message again is a repeat, though another text was stored; the masked text is another message.
        assert await ann.post(group, "say Bad\u200bWord, 坏词!", message_id) == (200, stored)
        assert (await ann.post(group, stored["body"], message_id))[0] == 409


async def test_the_list_is_followed(dsn: str, redis_url: str, words: Path) -> None:
    async with filtering(dsn, redis_url, words, "reject") as server:
        ann = await server.user()
        group = await ann.group()
        assert (await ann.post(group, "newword"))[0] == 201
        changed = words.with_suffix(".new")
        changed.write_text("newword\n")
        changed.replace(words)
        async with asyncio.timeout(10):
            while (await ann.post(group, "newword"))[0] == 201:
                pass
        assert (await ann.post(group, "badword"))[0] == 201


async def test_a_list_that_is_not_there_stops_the_start(dsn: str, redis_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"moderation\.words_file"):
        async with filtering(dsn, redis_url, tmp_path / "missing", "reject"):
            pass
