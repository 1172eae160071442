"""What a gateway serves by gRPC: GatewayPush to the processes of its cluster, and to anybody whether it is healthy."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import structlog
from grpc_health.v1.health_pb2 import HealthCheckResponse

from app.delivery.base import Receiver
from app.delivery.grpc_access import Access
from app.metrics import Metrics
from app.protocol.magpie_pb2 import (
    DESCRIPTOR,
    PushRequest,
    PushResponse,
    SeesRegistryRequest,
    SeesRegistryResponse,
)
from app.protocol.magpie_pb2_grpc import GatewayPushServicer, add_GatewayPushServicer_to_server

log = structlog.get_logger(__name__)

SERVICE = DESCRIPTOR.services_by_name["GatewayPush"].full_name
HEALTH = "grpc.health.v1.Health"
GRACE_S = 1.0
"""At the end, for calls under way: they take milliseconds, and who makes them has another way."""

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


class PushServer:
    """Listens from `start` to `stop`. Calls without the token get UNAUTHENTICATED, those meant for another process FAILED_PRECONDITION;
    nothing is done for either.

    Of the standard health service there is `Check`, whatever service it names: all of them serve, or none. `Watch` would hold a call for as
    long as anybody likes. Nobody without the token can hold one: such calls are answered before their body, and so the name, has come.
    """

    def __init__(
        self,
        access: Access,
        receiver: Receiver,
        sees_registry: Callable[[], bool],
        metrics: Metrics,
        *,
        node_id: str,
        boot_id: str,
        connections: Callable[[], int] = lambda: 0,
        ready: Callable[[], bool] = lambda: True,
        address: str = "",
    ) -> None:
        """`connections` counts those that are open; `ready` is what anybody is told who asks for health.

        `address` is where others reach it, if that is not where it listens.
        """
        self._access = access
        self._servicer = _Servicer(receiver, sees_registry, connections, metrics, node_id, boot_id)
        self._guard = _Guard(access, metrics)
        self._ready = ready
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """Where it listens."""
        self.address = address
        """Where others reach it: `host:port`."""

    async def start(self) -> None:
        """Listen. Raises ConfigError when the port is taken or a certificate cannot be used."""
        await self._access.load()
        server = self._access.server([self._guard])
        add_GatewayPushServicer_to_server(self._servicer, server)
        # As a stream that is not read: a unary call waits for its body.
        check: Handler = grpc.stream_unary_rpc_method_handler(
            self._check, response_serializer=HealthCheckResponse.SerializeToString
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(HEALTH, {"Check": check})])
        self.port = self._access.bind(server)
        self.address = self.address or self._access.address(self.port)
        await server.start()
        self._server = server
        log.info("grpc_listening", port=self.port)

    async def _check(self, _: object, __: "Context") -> HealthCheckResponse:
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if self._ready() else HealthCheckResponse.NOT_SERVING
        )

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Take no new calls; those under way get `grace_s` seconds."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None


class _Servicer(GatewayPushServicer):
    def __init__(
        self,
        receiver: Receiver,
        sees_registry: Callable[[], bool],
        connections: Callable[[], int],
        metrics: Metrics,
        node_id: str,
        boot_id: str,
    ) -> None:
        self._receiver = receiver
        self._sees_registry = sees_registry
        self._connections = connections
        self._since = monotonic()
        self._metrics = metrics
        self._node_id = node_id
        self._boot_id = boot_id

    async def Push(self, request: PushRequest, context: "Context") -> PushResponse:  # noqa: N802 - the protocol's name
        if (request.node_id, request.boot_id) != (self._node_id, self._boot_id):
            await self._refuse(context)
        for answers in request.answers:
            self._receiver.on_answers(answers)
        return PushResponse()

    async def SeesRegistry(self, request: SeesRegistryRequest, context: "Context") -> SeesRegistryResponse:  # noqa: N802 - as above
        if request.node_id != self._node_id:
            await self._refuse(context)
        return SeesRegistryResponse(
            sees=self._sees_registry(), connections=self._connections(), uptime_s=monotonic() - self._since
        )

    async def _refuse(self, context: "Context") -> NoReturn:
        self._metrics.pushes_refused.labels("address").inc()
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another process has this address now")


class _Guard(grpc.aio.ServerInterceptor):
    """Refuses calls of GatewayPush without the token, and does not wait for their body."""

    def __init__(self, access: Access, metrics: Metrics) -> None:
        self._access = access
        self._metrics = metrics
        self._refusal: Handler = grpc.stream_unary_rpc_method_handler(self._refuse)

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        if handler_call_details.method.startswith(f"/{SERVICE}/") and not self._access.admits(
            handler_call_details.invocation_metadata
        ):
            self._metrics.pushes_refused.labels("token").inc()
            return self._refusal
        return await continuation(handler_call_details)

    async def _refuse(self, _: object, context: "Context") -> NoReturn:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not that of this cluster")
