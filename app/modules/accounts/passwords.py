"""bcrypt in a bounded thread pool: about 0.2 s of CPU each, which must neither block the loop nor take all cores."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from app.errors import Busy
from app.modules.accounts.models import PASSWORD_MAX_BYTES

T = TypeVar("T")

RETRY_AFTER_MS = 2000


class Passwords:
    """Hashes and checks; raises Busy when `max_waiting` wait already."""

    def __init__(self, *, rounds: int, threads: int, max_waiting: int) -> None:
        self._rounds = rounds
        self._max_waiting = max_waiting
        self._waiting = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        # Checked when there is no such user, so that the answer takes as long as for a wrong password.
        self._nobody = ""

    async def hash(self, password: str) -> str:
        """The bcrypt hash of a checked password."""
        return await self._run(lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._rounds)).decode())

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether the password is the hashed one; None takes the same time and is False."""
        if not self._nobody:
            self._nobody = await self.hash("nobody's password 1")
        encoded = password.encode(errors="replace")
        if len(encoded) > PASSWORD_MAX_BYTES or b"\0" in encoded:
            # No stored password can be that; bcrypt would refuse it at once, so another one is checked for the time it takes.
            encoded, password_hash = b"x", None
        known = password_hash is not None
        against = (password_hash or self._nobody).encode()
        return await self._run(lambda: bcrypt.checkpw(encoded, against)) and known

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._max_waiting:
            raise Busy("too many people sign in at once; try again", retry_after_ms=RETRY_AFTER_MS)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
