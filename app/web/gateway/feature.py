"""The gateway put together."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from app.cluster.membership import Membership
from app.delivery.interest import Interest, hold_nothing
from app.delivery.publisher import Publisher
from app.metrics import Metrics
from app.modules.groups.feature import GroupsFeature
from app.modules.messages.feature import MessagesFeature
from app.modules.presence.announcer import Announcer
from app.modules.presence.feature import PresenceFeature
from app.protocol.frames import FEATURES
from app.sections import Presence
from app.settings import Settings
from app.web.answers import AnswerDesk
from app.web.gateway import loader, repair
from app.web.gateway.admission import Admission
from app.web.gateway.commands import Commands
from app.web.gateway.devices import NewestOnly
from app.web.gateway.drain import Drainer
from app.web.gateway.hub import FanOut, Hub
from app.web.gateway.loader import Loader
from app.web.gateway.local_users import LocalUsers
from app.web.gateway.moving import Isolation, Mover
from app.web.gateway.notices import Notices
from app.web.gateway.presence import LargeGroups, PresenceFanOut
from app.web.gateway.repair import Repairer
from app.web.gateway.sweeper import Closer, Sweeper
from app.web.gateway.ws import Authenticate, Gateway, SocketLimits

Loop = Callable[[], Coroutine[Any, Any, None]]
"""A background task: runs until cancelled."""


class Sessions(loader.SessionsSource, repair.SessionsSource, Protocol):
    """The sessions' service, as far as the gateway needs it."""


@dataclass(frozen=True, slots=True)
class GatewayFeature:
    """`hub` receives what delivery brings; the others run beside it."""

    hub: Hub
    admission: Admission
    endpoint: Gateway
    closer: Closer
    drainer: Drainer
    isolation: Isolation
    sweeper: Sweeper
    repairer: Repairer
    users: LocalUsers
    others: dict[str, Loop]
    """What runs only with some settings, by name."""

    def loops(self) -> dict[str, Loop]:
        """The background tasks, by name."""
        mine = {
            "closer": self.closer.run,
            "isolation": self.isolation.run,
            "sweeper": self.sweeper.run,
            "repairer": self.repairer.run,
            "local_users": self.users.run,
        }
        return mine | self.others


def gateway_feature(
    authenticate: Authenticate,
    groups: GroupsFeature,
    messages: MessagesFeature,
    sessions: Sessions,
    notices: Notices,
    presence: PresenceFeature,
    publisher: Publisher,
    answers: AnswerDesk,
    metrics: Metrics,
    settings: Settings,
    interest_in: Callable[[Hub], Interest | None],
    *,
    node_id: str,
    boot_id: str,
    membership: Membership | None,
) -> GatewayFeature:
    """Build everything from its parts; does no I/O. Without a `membership` there is no cluster, or a list of gateways. `interest_in` the
    groups of a hub: None where everything goes to all.
    """
    o = settings.gateway
    closer = Closer(metrics, o.close_timeout_s)
    fan_out = FanOut(
        window_s=o.window_ms / 1000,
        window_max_s=o.window_max_ms / 1000,
        window_max_items=o.window_max_items,
        pull_within_ms=o.pull_within_ms,
        large_group_members=o.large_group_members,
    )
    hub = Hub(answers, closer.close, metrics, fan_out)
    interest = interest_in(hub)
    hold = hold_nothing if interest is None else interest.hold
    commands = Commands(
        messages.producer,
        messages.read_marks,
        messages.service,
        notices,
        metrics,
        max_code_points=settings.messages.max_code_points,
        resume_groups_max=o.resume_groups_max,
        pull_within_ms=o.pull_within_ms,
    )
    connect_loader = Loader(
        groups.states,
        sessions,
        hold,
        batch_max=settings.lookups.batch_max,
        waiting_max=settings.lookups.waiting_max,
        linger_s=settings.lookups.linger_ms / 1000,
    )
    limits = SocketLimits(
        max_frame_bytes=o.max_frame_bytes,
        close_timeout_s=o.close_timeout_s,
        buffer_bytes=o.buffer_bytes,
        held_frames_max=o.held_frames_max,
        frames_per_second=settings.limits.frames_per_second,
    )
    admission = Admission(o, metrics)

    def accepting() -> bool:
        return membership is None or membership.accepting

    endpoint = Gateway(
        authenticate,
        admission,
        hub,
        connect_loader,
        commands,
        closer,
        metrics,
        messages.repository.epoch,
        hello_of(settings, node_id),
        limits,
        accepting,
    )
    sweeper = Sweeper(
        hub,
        closer,
        interval_s=o.sweep_interval_s,
        heartbeat_s=o.heartbeat_s,
        slow_close_s=o.slow_close_s,
        pull_within_ms=o.pull_within_ms,
    )
    users = LocalUsers(presence.routes, presence.announcer, renew_s=o.route_renew_s)
    hub.watchers.append(users)
    loops: dict[str, Loop] = {}
    if o.devices == "newest":
        newest = NewestOnly(publisher, closer.close, boot_id)
        users.elsewhere = newest.tell_again
        hub.watchers.append(newest)
        loops["newest_only"] = newest.run
    if presence.announcer is not None:
        loops |= _presence_loops(hub, presence, presence.announcer, metrics, settings.presence)
    if interest is not None:
        loops["interest"] = interest.run
    repairer = Repairer(hub, groups.states, sessions, hold, metrics, cut_compare_s=settings.delivery.cut_compare_s)
    drainer = Drainer(
        hub,
        closer,
        metrics,
        answers_s=o.drain_answers_s,
        close_timeout_s=o.close_timeout_s,
        retry_ms=o.drain_retry_ms,
        admission_per_second=o.admission_per_second,
    )
    if membership is not None and settings.cluster.move_users:
        mover = Mover(hub, drainer, membership, node_id, settings.cluster)
        membership.subscribe(mover.on_ring)
        loops["mover"] = mover.run
    return GatewayFeature(
        hub,
        admission,
        endpoint,
        closer,
        drainer,
        Isolation(hub, drainer, accepting, settings.cluster.isolated_drain_s),
        sweeper,
        repairer,
        users,
        loops,
    )


def _presence_loops(
    hub: Hub, presence: PresenceFeature, announcer: Announcer, metrics: Metrics, options: Presence
) -> dict[str, Loop]:
    fan_out = PresenceFanOut(hub, metrics, frames_per_second=options.frames_per_second)
    hub.watchers.append(fan_out)
    large = LargeGroups(
        hub,
        presence.counts,
        presence.members,
        small_group_members=options.small_group_members,
        interval_s=options.count_s,
    )
    return {
        "presence_announcer": announcer.run,
        "presence_sweeper": announcer.sweep,
        "presence_fan_out": fan_out.run,
        "presence_held": fan_out.run_held,
        "presence_counts": large.run,
    }


def hello_of(settings: Settings, node_id: str) -> dict[str, object]:
    """What `hello` tells every client alike."""
    o, limits = settings.gateway, settings.limits
    return {
        "node": node_id,
        "heartbeat_s": o.heartbeat_s,
        "limits": {
            "body_code_points": settings.messages.max_code_points,
            "frame_bytes": o.max_frame_bytes,
            "sends_per_minute": limits.send_per_minute,
            "frames_per_second": limits.frames_per_second,
            "unacked_sends": settings.producer.per_connection,
            "resume_groups": o.resume_groups_max,
        },
        "backoff": {"base_ms": o.backoff_base_ms, "max_ms": o.backoff_max_ms, "jitter": o.backoff_jitter},
        "features": (*FEATURES, "presence") if settings.presence.enabled else FEATURES,
    }
