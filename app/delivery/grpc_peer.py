"""One gateway as a process that answers sees it: whether it can be reached by gRPC, and one call under way at a time."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import structlog

from app.cluster.base import Node
from app.delivery.grpc_access import Access
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Answers, PushRequest
from app.protocol.magpie_pb2_grpc import GatewayPushStub
from app.sections import Grpc

if TYPE_CHECKING:
    from app.protocol.magpie_pb2_grpc import GatewayPushAsyncStub

log = structlog.get_logger(__name__)

ENVELOPE_BYTES = 1024
"""Of a request, around its answers: two ids, each of at most 100 characters, and lengths."""

REASONS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.UNAUTHENTICATED: "token",
    grpc.StatusCode.FAILED_PRECONDITION: "address",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overload",
}


@dataclass(frozen=True, slots=True)
class _Waiting:
    answers: Sequence[Answers]
    outcome: asyncio.Future[bool]
    since: float


class Peer:
    """Answers are taken while the gateway can be reached. After a failed call none are, until an empty one went well: an outage costs one
    deadline, not one a batch.
    """

    def __init__(self, node: Node, access: Access, metrics: Metrics, options: Grpc) -> None:
        self.node = node
        self.usable = False
        """Whether answers would be taken."""
        self._access = access
        self._metrics = metrics
        self._options = options
        self._deadline_s = options.deadline_ms / 1000
        self._waiting: list[_Waiting] = []
        self._wake_up = asyncio.Event()
        self._reason = ""

    def push(self, answers: Sequence[Answers]) -> asyncio.Future[bool] | None:
        """Send answers with the next call. None: not taken.

        The result is there within the deadline; false when the gateway may not have them.
        """
        count = _count(answers)
        if not self.usable or sum(_count(each.answers) for each in self._waiting) + count > self._options.waiting_max:
            return None
        waiting = _Waiting(answers, asyncio.get_running_loop().create_future(), monotonic())
        self._waiting.append(waiting)
        self._wake_up.set()
        return waiting.outcome

    async def run(self) -> None:
        """Keep in touch until cancelled."""
        o = self._options
        async with self._access.channel(self.node.grpc_address) as channel:
            stub = GatewayPushStub(channel)
            pause_s = o.retry_min_s
            self._metrics.push_peers_away.inc()
            try:
                while True:
                    if await self._call(stub, [], self._deadline_s) and await self._serve(stub):
                        pause_s = o.retry_min_s
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                    pause_s = min(2 * pause_s, o.retry_max_s)
            finally:
                self._metrics.push_peers_away.dec()

    async def _serve(self, stub: "GatewayPushAsyncStub") -> bool:
        """Push until a call fails; whether any went well."""
        self.usable, self._reason, any_well = True, "", False
        self._metrics.push_peers_away.dec()
        log.info("gateway_reached", node=self.node.node_id)
        batch: list[_Waiting] = []
        try:
            while True:
                await self._wake_up.wait()
                # Before the batch is taken: what comes during its call wakes us again.
                self._wake_up.clear()
                batch, self._waiting = self._waiting, []
                if not batch:
                    continue
                if not await self._push(stub, batch):
                    return any_well
                any_well = True
        finally:
            self.usable = False
            self._metrics.push_peers_away.inc()
            for waiting in [*batch, *self._waiting]:
                if not waiting.outcome.done():
                    waiting.outcome.set_result(False)
            self._waiting = []

    async def _push(self, stub: "GatewayPushAsyncStub", batch: Sequence[_Waiting]) -> bool:
        answers = [each for waiting in batch for each in waiting.answers]
        ends = batch[0].since + self._deadline_s
        for part in split(answers, self._options.max_message_bytes - ENVELOPE_BYTES):
            if not await self._call(stub, part, ends - monotonic()):
                return False
        for waiting in batch:
            if not waiting.outcome.done():
                waiting.outcome.set_result(True)
        return True

    async def _call(self, stub: "GatewayPushAsyncStub", answers: Sequence[Answers], timeout_s: float) -> bool:
        """Without answers it is a look whether there is somebody to push to, and not counted."""
        request = PushRequest(node_id=self.node.node_id, boot_id=self.node.boot_id, answers=answers)
        began, result = perf_counter(), "ok"
        try:
            await stub.Push(request, timeout=timeout_s, metadata=self._access.metadata)
        except grpc.aio.AioRpcError as error:
            result = REASONS.get(error.code(), "other")
            if result != self._reason:
                self._reason = result
                log.warning("gateway_not_reached", node=self.node.node_id, reason=result, cause=error.details())
        if answers:
            self._metrics.push_calls.labels(result).inc()
            self._metrics.push_items.observe(_count(answers))
            self._metrics.push_seconds.observe(perf_counter() - began)
        return result == "ok"


def split(answers: Sequence[Answers], room: int) -> Iterator[Sequence[Answers]]:
    """Parts of at most `room` bytes, in order; a single answer above it stays whole."""
    if sum(each.ByteSize() for each in answers) + 8 * len(answers) <= room:
        yield answers
    elif len(answers) > 1:
        half = len(answers) // 2
        yield from split(answers[:half], room)
        yield from split(answers[half:], room)
    elif len(many := answers[0].answers) > 1:
        half = len(many) // 2
        boot_id = answers[0].boot_id
        yield from split([Answers(boot_id=boot_id, answers=each) for each in (many[:half], many[half:])], room)
    else:
        yield answers


def _count(answers: Sequence[Answers]) -> int:
    return sum(len(each.answers) for each in answers)
