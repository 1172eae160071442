"""Sends until their outcome is known: the same `client_msg_id` again after a lost connection, a timeout or a busy server."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.client import wire
from app.client.backoff import Waits
from app.client.errors import ConnectionLost, Unreachable
from app.client.hooks import Hooks, Outgoing
from app.client.options import ClientOptions
from app.client.session import Session
from app.client.socket import Socket
from app.errors import AppError, Busy, Internal, RateLimited, SendTimeout
from app.protocol import frames


@dataclass(slots=True)
class _Lane:
    """The sends of one group; they go one after the other, so that a repeat cannot be overtaken."""

    slots: asyncio.Semaphore
    users: int = 0


class Outbox:
    """All sends of one user without a final answer."""

    def __init__(self, session: Session, hooks: Hooks, options: ClientOptions, draw: random.Random) -> None:
        self._session = session
        self._hooks = hooks
        self._options = options
        self._draw = draw
        self._sends = 0
        self._lanes: dict[str, _Lane] = {}

    async def send(self, send: Outgoing) -> wire.Sent:
        """Returns once the message is stored.

        Raises AppError whose `outcome` covers all attempts, Unreachable (never left this client), ConnectionLost (unknown),
        SessionEnded.
        """
        self._hooks.on_invoke(send)
        try:
            if self._sends >= self._options.max_sends:
                raise Busy("too many of your messages wait for their answer; try again shortly")
            self._sends += 1
            try:
                async with self._lane(send.group_id):
                    sent = await self._until_known(send)
            finally:
                self._sends -= 1
        except BaseException as error:
            if send.unknown:
                self._hooks.on_info(send, error)
                if isinstance(error, AppError) and error.outcome == "none":
                    raise type(error)(error.message, retry_after_ms=error.retry_after_ms, outcome="unknown") from error
            else:
                self._hooks.on_fail(send, error)
            raise
        self._hooks.on_ok(send, sent)
        return sent

    @asynccontextmanager
    async def _lane(self, group_id: str) -> AsyncIterator[None]:
        lane = self._lanes.setdefault(group_id, _Lane(asyncio.Semaphore(self._options.in_flight_per_group)))
        lane.users += 1
        try:
            async with lane.slots:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[group_id]

    async def _until_known(self, send: Outgoing) -> wire.Sent:
        backoff = wire.Backoff(self._options.busy_min_ms, self._options.busy_max_ms, self._options.backoff_jitter)
        waits = Waits(backoff, retry_after_max_s=self._options.retry_after_max_s, draw=self._draw)
        # The end of time cuts waits, never an attempt under way: its answer says what is known.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.send_give_up_s
        last: Exception | None = None
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    socket = await self._session.online()
                try:
                    return await self._attempt(socket, send)
                except (Busy, RateLimited, SendTimeout, Internal) as error:
                    if isinstance(error, RateLimited) and not send.unknown:
                        raise
                    last = error
                except ConnectionLost as error:
                    if loop.time() >= deadline:
                        raise
                    last = error
                    continue
                async with asyncio.timeout_at(deadline):
                    await asyncio.sleep(waits.next_s(last.retry_after_ms))
        except TimeoutError:
            raise last or Unreachable(f"the message was not sent: {self._session.last_error}") from None

    async def _attempt(self, socket: Socket, send: Outgoing) -> wire.Sent:
        before = send.unknown
        send.attempts += 1
        send.unknown = True
        try:
            text = await socket.request(
                lambda number: frames.Send(
                    id=number, group_id=send.group_id, client_msg_id=send.client_msg_id, kind="text", body=send.body
                )
            )
        except AppError as error:
            send.unknown = before or error.outcome == "unknown"
            raise
        return wire.sent(text)
