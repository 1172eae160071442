"""Which registry the settings name."""

from collections.abc import Callable

from app.cluster.base import Registry
from app.cluster.redis_registry import RedisRegistry
from app.settings import Settings
from app.storage.redis import Redis


def registry_of(settings: Settings, connect_redis: Callable[[int], Redis]) -> Registry | None:
    """An adapter, not started; None: there is no registry. `connect_redis` makes a client of so many connections."""
    o = settings.cluster
    if o.registry == "redis":
        # Connections of its own: a heartbeat does not queue behind anything.
        return RedisRegistry(connect_redis(2), lease_s=o.lease_s, timeout_s=o.timeout_s)
    if o.registry == "etcd":
        from app.cluster.etcd_registry import EtcdRegistry  # aiohttp's client, which nothing else here needs

        return EtcdRegistry(settings.etcd, lease_s=o.lease_s, timeout_s=o.timeout_s)
    return None
