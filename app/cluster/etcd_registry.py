"""The registry in etcd: a key per gateway that hangs on a lease of its process."""

import asyncio
import math
import secrets
from collections.abc import Mapping

from app.cluster.base import Node, NodeIdTaken, Reader, Registry, View, decode
from app.cluster.etcd_client import Entry, EtcdClient, Range
from app.sections import Etcd

INCARNATION = b"incarnation"
NODES = b"nodes/"
"""Below the prefix: one key, and one for each gateway."""


class EtcdRegistry(Registry):
    """etcd counts leases in whole seconds, and lengthens those below one and a half of its election times (with its defaults: 2 s).

    A heartbeat writes nothing: it renews the lease and reads. The key is written when the node changes or its lease had ended.
    """

    def __init__(self, options: Etcd, *, lease_s: float, timeout_s: float) -> None:
        self._client = EtcdClient(options, timeout_s)
        self._prefix = options.prefix.encode()
        self._lease_s = math.ceil(lease_s)
        self._lease = 0
        self._reader = Reader()

    async def start(self) -> None:
        """See Registry."""
        await self._client.start()

    async def renew(self, node: Node) -> View:
        """See Registry."""
        async with self._client.bounded():
            if not self._lease or not await self._client.keep_alive(self._lease):
                self._lease = 0
                self._lease = await self._client.grant(self._lease_s)
            found = await self._client.range(self._prefix)
            mine = _find(found, self._key_of(node))
            if mine is None or mine.lease != self._lease or mine.value != node.encode():
                found = await self._claim(node, mine)
            return await self._view(found)

    async def read(self) -> View:
        """See Registry."""
        async with self._client.bounded():
            return await self._view(await self._client.range(self._prefix))

    async def leases(self) -> Mapping[str, float]:
        """See Registry."""
        folder = self._prefix + NODES
        async with self._client.bounded():
            found = [entry for entry in (await self._client.range(folder)).entries if entry.lease]
            lasts = await asyncio.gather(*(self._client.time_to_live(entry.lease) for entry in found))
        return {
            entry.key.removeprefix(folder).decode(errors="replace"): last_s
            for entry, last_s in zip(found, lasts, strict=True)
        }

    async def leave(self, node: Node) -> None:
        """See Registry."""
        if self._lease:
            async with self._client.bounded():
                await self._client.revoke(self._lease)
            self._lease = 0

    async def stop(self) -> None:
        """See Registry."""
        await self._client.stop()

    async def _claim(self, node: Node, there: Entry | None) -> Range:
        """Write our key, unless it became another's since we looked."""
        self._check_ours(node, there)
        written, found = await self._client.put_if(
            self._key_of(node),
            node.encode(),
            lease=self._lease,
            revision=there.revision if there else 0,
            prefix=self._prefix,
        )
        if not written:
            # Ours, if an earlier attempt came late; then the next heartbeat puts the rest right.
            self._check_ours(node, _find(found, self._key_of(node)))
        return found

    def _check_ours(self, node: Node, there: Entry | None) -> None:
        """Raises NodeIdTaken. What hangs on no lease, or is no node, holds no name."""
        holder = decode(there.value) if there is not None and there.lease else None
        if holder is not None and holder.boot_id != node.boot_id:
            raise NodeIdTaken(node.node_id)

    async def _view(self, found: Range) -> View:
        key = self._prefix + INCARNATION
        begun = _find(found, key)
        if begun is None:
            # Whoever is first; all others read what that one wrote.
            fresh = secrets.token_hex(8).encode()
            _, found = await self._client.put_if(key, fresh, lease=0, revision=0, prefix=self._prefix)
            begun = _find(found, key)
        folder = self._prefix + NODES
        entries = [
            # Without a lease it would stay for ever: somebody's mistake, read as garbage.
            (entry.key.removeprefix(folder).decode(errors="replace"), entry.value if entry.lease else b"")
            for entry in found.entries
            if entry.key.startswith(folder)
        ]
        # A restored backup holds the old value, but is another cluster.
        incarnation = f"{found.cluster_id:x}-{begun.value.decode(errors='replace') if begun else ''}"
        return self._reader.view(entries, incarnation)

    def _key_of(self, node: Node) -> bytes:
        return self._prefix + NODES + node.node_id.encode()


def _find(found: Range, key: bytes) -> Entry | None:
    return next((entry for entry in found.entries if entry.key == key), None)
