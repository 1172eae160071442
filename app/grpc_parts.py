"""The objects that call and are called by gRPC: a part of `parts.py` that is imported only where there is a cluster."""

from collections.abc import Callable

from app.cluster.grpc_peers import GrpcPeers
from app.cluster.membership import Membership
from app.delivery.base import Delivery, Receiver
from app.delivery.grpc_access import Access
from app.delivery.grpc_push import GrpcDelivery
from app.delivery.grpc_server import PushServer
from app.lifecycle import Readiness, Supervisor
from app.metrics import Metrics
from app.settings import Settings


class GrpcParts:
    """Makes them, without I/O; all share one token and one set of certificates."""

    def __init__(self, settings: Settings, supervisor: Supervisor, metrics: Metrics) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._metrics = metrics
        self._access = Access(settings.grpc, settings.auth.secret.get_secret_value())

    def in_front_of(self, behind: Delivery, membership: Membership) -> Delivery:
        """Answers by gRPC to who is on the ring, the rest as before."""
        delivery = GrpcDelivery(behind, self._access, self._supervisor, self._metrics, self._settings.grpc)
        membership.subscribe(delivery.on_ring)
        return delivery

    def server(
        self,
        receiver: Receiver,
        membership: Membership,
        readiness: Readiness,
        connections: Callable[[], int],
        *,
        node_id: str,
        boot_id: str,
    ) -> PushServer:
        """Where this process, a gateway, is called; `connections` are counted for who asks."""
        return PushServer(
            self._access,
            receiver,
            lambda: membership.sees_registry,
            self._metrics,
            node_id=node_id,
            boot_id=boot_id,
            connections=connections,
            ready=lambda: not readiness.reasons,
            address=self._settings.gateway.grpc_address,
        )

    def peers(self) -> GrpcPeers:
        """How other gateways are asked; they have as long as the registry."""
        return GrpcPeers(self._access, self._settings.cluster.timeout_s)
