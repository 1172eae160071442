"""What a process says at its end."""

import asyncio

from aiohttp import web

from app.cli.serve import Stop


async def test_an_end_that_takes_too_long_is_a_failure() -> None:
    app = web.Application()
    app.on_cleanup.append(lambda _: asyncio.Event().wait())
    runner = web.AppRunner(app)
    await runner.setup()
    task = asyncio.create_task(asyncio.Event().wait())
    stop = Stop(task)
    stop.on_signal()
    assert stop.exit_code == 0
    await stop.clean_up(runner, 0.01)
    assert stop.exit_code == 1


async def test_an_end_in_time_is_none() -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    stop = Stop(asyncio.create_task(asyncio.Event().wait()))
    stop.on_signal()
    await stop.clean_up(runner, 10)
    assert stop.exit_code == 0
