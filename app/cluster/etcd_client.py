"""etcd's JSON gateway (`/v3/…`, etcd 3.4 and newer) over aiohttp: the few calls that the registry needs.

Keys and values are base64 there, 64-bit numbers are texts, and what is zero or empty is left out.
"""

import asyncio
import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from app.errors import Busy, ConfigError
from app.sections import Etcd
from app.tls import client_context


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value, the lease it hangs on (0: none), and the number of the store's change that wrote it."""

    key: bytes
    value: bytes
    lease: int
    revision: int


@dataclass(frozen=True, slots=True)
class Range:
    """The entries of a range by rising key, and the id of the cluster that answered."""

    entries: Sequence[Entry]
    cluster_id: int


class Refused(Exception):
    """A server answered with an error; `status` is that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"etcd answered {status}: {text}")
        self.status = status


class EtcdClient:
    """Calls stand in a block of `bounded`; all of them raise what that turns into Busy."""

    def __init__(self, options: Etcd, timeout_s: float) -> None:
        self._options = options
        self._timeout_s = timeout_s
        self._endpoints = [endpoint.rstrip("/") for endpoint in options.endpoints]
        self._http: aiohttp.ClientSession | None = None
        self._token = ""

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """At most `timeout_s`. Raises Busy when etcd did not do it; the next block asks another endpoint."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (aiohttp.ClientError, OSError, ValueError, LookupError, Refused) as error:
            self._turn()
            raise Busy("the registry is away; try again") from error

    async def start(self) -> None:
        """Read the certificates and log in. Raises ConfigError when etcd refuses what the settings say."""
        if self._http is None:
            connector = aiohttp.TCPConnector(ssl=await self._tls())
            self._http = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        async with self.bounded():
            try:
                await self.range(self._options.prefix.encode())
            except Refused as error:
                if error.status >= 500:
                    raise
                raise ConfigError(
                    f"etcd refuses us; look at etcd.username, etcd.password and the rights on {self._options.prefix}: {error}."
                ) from None

    async def stop(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def range(self, prefix: bytes) -> Range:
        """What is below a prefix."""
        return _range(await self._call("kv/range", _below(prefix)))

    async def put_if(self, key: bytes, value: bytes, *, lease: int, revision: int, prefix: bytes) -> tuple[bool, Range]:
        """Write if the key is still of `revision` (0: is not there); whether it was, and what is below `prefix` afterwards."""
        compare = {"key": _text(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
        put = {"key": _text(key), "value": _text(value), "lease": str(lease)}
        look = {"request_range": _below(prefix)}
        answer = await self._call(
            "kv/txn", {"compare": [compare], "success": [{"request_put": put}, look], "failure": [look]}
        )
        return answer.get("succeeded", False), _range(answer["responses"][-1]["response_range"] | _header(answer))

    async def grant(self, ttl_s: int) -> int:
        """A new lease; its id. etcd may make it longer."""
        return int((await self._call("lease/grant", {"TTL": str(ttl_s)}))["ID"])

    async def keep_alive(self, lease: int) -> bool:
        """Begin the time of a lease anew; false: it has ended."""
        answer = await self._call("lease/keepalive", {"ID": str(lease)})
        if "error" in answer:  # of a stream, whose status is always 200
            raise Refused(int(answer["error"].get("http_code", 500)), str(answer["error"].get("message")))
        return int(answer["result"].get("TTL", 0)) > 0

    async def time_to_live(self, lease: int) -> float:
        """Whole seconds that a lease lasts; 0: it has ended."""
        return max(0.0, float((await self._call("lease/timetolive", {"ID": str(lease)})).get("TTL", 0)))

    async def revoke(self, lease: int) -> None:
        """End a lease, and what hangs on it; it may have ended."""
        try:
            await self._call("lease/revoke", {"ID": str(lease)})
        except Refused as error:
            if error.status != 404:
                raise

    async def _call(self, path: str, body: object) -> dict[str, Any]:
        """Who cannot be reached costs no time; who does not answer costs all of it, and is asked last in the next block."""
        for _ in self._endpoints[1:]:
            try:
                return await self._authenticated(path, body)
            except aiohttp.ClientConnectorError:
                self._turn()
        return await self._authenticated(path, body)

    def _turn(self) -> None:
        self._endpoints.append(self._endpoints.pop(0))

    async def _authenticated(self, path: str, body: object) -> dict[str, Any]:
        name, password = self._options.username, self._options.password.get_secret_value()
        if not name:
            return await self._post(path, body)
        if self._token:
            try:
                return await self._post(path, body)
            except Refused as error:
                # Tokens last some minutes, or until somebody's rights change.
                if error.status >= 500:
                    raise
        self._token = ""
        self._token = (await self._post("auth/authenticate", {"name": name, "password": password}))["token"]
        return await self._post(path, body)

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        if self._http is None:
            raise RuntimeError("the client was not started")
        headers = {"Authorization": self._token} if self._token else {}
        async with self._http.post(f"{self._endpoints[0]}/v3/{path}", json=body, headers=headers) as response:
            answer = await response.json(content_type=None)
            if response.status != 200:
                raise Refused(response.status, str(answer.get("message") if isinstance(answer, dict) else answer))
            if not isinstance(answer, dict):
                raise ValueError("no answer of etcd's")
            return answer

    async def _tls(self) -> ssl.SSLContext | bool:
        o = self._options
        if not any(endpoint.startswith("https:") for endpoint in o.endpoints):
            return True
        return await asyncio.to_thread(client_context, "etcd.*_file", o.ca_file, o.cert_file, o.key_file)


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _below(prefix: bytes) -> dict[str, str]:
    """A prefix that ends with a slash; the next byte after it ends the range."""
    return {"key": _text(prefix), "range_end": _text(prefix[:-1] + bytes([prefix[-1] + 1]))}


def _header(answer: dict[str, Any]) -> dict[str, Any]:
    return {"header": answer["header"]}


def _range(answer: dict[str, Any]) -> Range:
    entries = [
        Entry(b64decode(kv["key"]), b64decode(kv.get("value", "")), int(kv.get("lease", 0)), int(kv["mod_revision"]))
        for kv in answer.get("kvs", [])
    ]
    return Range(entries, int(answer["header"]["cluster_id"]))
