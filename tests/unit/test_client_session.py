"""The client rules against a scripted server: resend, resume, pull, backoff, and when to stop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from app.client.client import Client
from app.client.errors import SessionEnded, Unreachable
from app.client.events import Event, Forgotten, GroupLeft, How, MemberChanged, MessageReceived, StateChanged, Typing
from app.client.hooks import Hooks, Outgoing
from app.client.options import ClientOptions
from app.client.wire import Sent
from app.errors import BadRequest, Busy, Forbidden, RateLimited, SendTimeout
from app.protocol import frames
from app.protocol.frames import Message
from tests.scripted_server import ScriptedServer

QUICK = ClientOptions(
    connect_timeout_s=2,
    first_connect_s=2,
    request_timeout_s=2,
    backoff_base_ms=1,
    backoff_max_ms=5,
    busy_min_ms=1,
    busy_max_ms=5,
    refresh_within_s=0.001,
    close_timeout_s=0.5,
)


class Recorder(Hooks):
    """The history of a client as words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.seen: list[tuple[str, How]] = []

    def on_invoke(self, send: Outgoing) -> None:
        self.words.append(f"invoke {send.body}")

    def on_ok(self, send: Outgoing, sent: Sent) -> None:
        self.words.append(f"ok {send.body} {sent.seq}")

    def on_fail(self, send: Outgoing, error: BaseException) -> None:
        self.words.append(f"fail {send.body} {type(error).__name__}")

    def on_info(self, send: Outgoing, error: BaseException) -> None:
        self.words.append(f"info {send.body} {type(error).__name__}")

    def on_message(self, message: Message, how: How) -> None:
        self.seen.append((message.body, how))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


Find = Callable[[Event], bool]


async def until(client: Client, found: Find) -> Event:
    async with asyncio.timeout(5):
        async for event in client.events():
            if found(event):
                return event
    raise AssertionError("the events ended")


async def bodies(client: Client, count: int) -> list[str]:
    read: list[str] = []
    async with asyncio.timeout(5):
        async for event in client.events():
            if isinstance(event, MessageReceived):
                read.append(event.message.body)
                if len(read) == count:
                    return read
    raise AssertionError("the events ended")


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)


async def test_sends_and_reads(server: ScriptedServer) -> None:
    recorder = Recorder()
    async with Client(server.url, "good", options=QUICK, hooks=recorder) as client:
        sent = await client.send("7", "hello")
        assert (sent.seq, sent.message_id) == (1, "1001")
        await server.push(server.stored["7"][0])
        assert await bodies(client, 1) == ["hello"]
        assert [view.group.name for view in client.groups] == ["lobby"]
        assert (client.user_id, client.state) == ("5", "online")
    assert recorder.words == ["invoke hello", "ok hello 1"]
    assert recorder.seen == [("hello", "push")]


@pytest.mark.parametrize("trouble", ["busy", "timeout", "cut_before", "cut_after"])
async def test_sends_again_with_the_same_id_until_the_outcome_is_known(server: ScriptedServer, trouble: str) -> None:
    server.plan.extend([trouble, trouble, "ok"])
    async with Client(server.url, "good", options=QUICK) as client:
        assert (await client.send("7", "once")).seq == 1
    assert len(server.stored["7"]) == 1
    assert len(server.sends) == 3
    assert len({frame["client_msg_id"] for frame in server.sends}) == 1


async def test_a_silent_server_is_asked_again(server: ScriptedServer) -> None:
    server.plan.extend(["silent", "ok"])
    async with Client(server.url, "good", options=replace(QUICK, request_timeout_s=0.1)) as client:
        assert (await client.send("7", "once")).seq == 1


async def test_a_refusal_is_final_and_known(server: ScriptedServer) -> None:
    recorder = Recorder()
    server.plan.extend(["forbidden", "rate_limited"])
    async with Client(server.url, "good", options=QUICK, hooks=recorder) as client:
        with pytest.raises(Forbidden):
            await client.send("7", "no")
        with pytest.raises(RateLimited):
            await client.send("7", "fast")
    assert recorder.words == ["invoke no", "fail no Forbidden", "invoke fast", "fail fast RateLimited"]


async def test_a_refusal_after_an_unknown_attempt_leaves_the_outcome_unknown(server: ScriptedServer) -> None:
    recorder = Recorder()
    server.plan.extend(["timeout", "forbidden"])
    async with Client(server.url, "good", options=QUICK, hooks=recorder) as client:
        with pytest.raises(Forbidden) as refusal:
            await client.send("7", "perhaps")
    assert refusal.value.outcome == "unknown"
    assert recorder.words == ["invoke perhaps", "info perhaps Forbidden"]


async def test_gives_up_in_time_and_says_what_is_known(server: ScriptedServer) -> None:
    recorder = Recorder()
    server.plan.extend(["busy"] * 1000)
    async with Client(server.url, "good", options=replace(QUICK, send_give_up_s=0.1), hooks=recorder) as client:
        with pytest.raises(Busy):
            await client.send("7", "never")
        server.plan.clear()
        server.plan.extend(["timeout"] * 1000)
        with pytest.raises(SendTimeout):
            await client.send("7", "who knows")
    assert recorder.words[1::2] == ["fail never Busy", "info who knows SendTimeout"]


async def test_messages_of_a_sender_keep_their_order_although_one_is_refused_as_busy(server: ScriptedServer) -> None:
    server.plan.extend(["busy", "ok", "cut_after", "ok"])
    async with Client(server.url, "good", options=QUICK) as client:
        await asyncio.gather(*(client.send("7", f"m{n}") for n in range(5)))
    assert [item.body for item in server.stored["7"]] == [f"m{n}" for n in range(5)]


async def test_too_many_unanswered_sends_are_refused_at_once(server: ScriptedServer) -> None:
    server.plan.extend(["silent"] * 10)
    async with Client(server.url, "good", options=replace(QUICK, max_sends=2)) as client:
        waiting = [asyncio.ensure_future(client.send("7", f"m{n}")) for n in range(2)]
        await eventually(lambda: len(server.sends) == 1)
        with pytest.raises(Busy):
            await client.send("7", "one more")
        for send in waiting:
            send.cancel()
        await asyncio.wait(waiting)


async def test_a_frame_that_would_close_the_connection_is_not_sent(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        with pytest.raises(BadRequest):
            await client.send("7", "x" * 70_000)
    assert server.sends == []


async def test_a_hole_is_pulled_and_the_order_kept(server: ScriptedServer) -> None:
    recorder = Recorder()
    async with Client(server.url, "good", options=QUICK, hooks=recorder) as client:
        server.store("one")
        server.store("two")
        await server.push(server.store("three"))
        assert await bodies(client, 3) == ["one", "two", "three"]
    assert recorder.seen[0] == ("one", "pull")
    assert server.syncs[0] == {"7": 0}


async def test_a_gap_is_pulled_page_by_page_although_the_server_refuses_at_first(server: ScriptedServer) -> None:
    server.sync_failures.extend([503, 500])
    async with Client(server.url, "good", options=replace(QUICK, pull_page=2)) as client:
        for n in range(5):
            server.store(f"m{n}")
        await server.emit(frames.gap(7, 1, None, 10))
        assert await bodies(client, 5) == [f"m{n}" for n in range(5)]
    assert [cursor["7"] for cursor in server.syncs] == [0, 2, 4]


@pytest.mark.parametrize("limit", [50, 1], ids=["delta", "behind"])
async def test_resumes_after_a_reconnect(server: ScriptedServer, limit: int) -> None:
    server.resume_limit = limit
    async with Client(server.url, "good", options=QUICK) as client:
        await server.push(server.store("before"))
        assert await bodies(client, 1) == ["before"]
        await server.cut_all()
        server.store("while away")
        server.store("still away")
        assert await bodies(client, 2) == ["while away", "still away"]
        await server.connected.wait()
        await server.push(server.store("after"))
        assert await bodies(client, 1) == ["after"]
    resumes = [frame for frame in server.requests if frame["type"] == "resume"]
    assert resumes[-1]["groups"] == {"7": {"seq": 1, "rev": None}}


async def test_reads_from_the_beginning_when_asked_to(server: ScriptedServer) -> None:
    for n in range(3):
        server.store(f"m{n}")
    async with Client(server.url, "good", options=replace(QUICK, start="beginning")) as client:
        assert await bodies(client, 3) == ["m0", "m1", "m2"]


async def test_a_restored_server_makes_the_client_forget_its_cursors(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=replace(QUICK, start="beginning")) as client:
        await server.push(server.store("one"))
        await server.push(server.store("two"))
        assert await bodies(client, 2) == ["one", "two"]
        server.epoch = "two"
        del server.stored["7"][1:]
        await server.cut_all()
        assert await until(client, lambda event: isinstance(event, Forgotten)) == Forgotten("7")
        assert await bodies(client, 1) == ["one"]


async def test_a_reset_group_starts_again(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        await server.push(server.store("one"))
        assert await bodies(client, 1) == ["one"]
        server.resume_state = "reset"
        await server.cut_all()
        assert await until(client, lambda event: isinstance(event, Forgotten)) == Forgotten("7")
        await server.connected.wait()
        await server.push(server.store("two"))
        assert await bodies(client, 1) == ["two"]


async def test_a_group_we_lost_while_away_is_gone(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        del server.groups["7"]
        await server.cut_all()
        assert await until(client, lambda event: isinstance(event, GroupLeft | Forgotten)) == GroupLeft("7", "")


async def test_a_slow_reader_loses_nothing(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=replace(QUICK, max_events=4, max_aside=2)) as client:
        for n in range(40):
            await server.push(server.store(f"m{n}"))
        # An answer after the packets shows that all of them were read, and that a full queue does not block answers.
        assert (await client.send("7", "last")).seq == 41
        assert await bodies(client, 41) == [*(f"m{n}" for n in range(40)), "last"]
    assert server.syncs


async def test_a_dead_peer_is_noticed(server: ScriptedServer) -> None:
    server.heartbeat_s, server.answer_pings = 0.05, False
    async with Client(server.url, "good", options=QUICK):
        await eventually(lambda: server.upgrades >= 2)


@pytest.mark.parametrize("code", [4000, 4001, 4002, 1011])
async def test_comes_back_after_a_close_that_allows_it(server: ScriptedServer, code: int) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        server.connected.clear()
        await server.emit({"type": "drain", "retry_after_ms": 1})
        await server.close_all(code)
        await server.connected.wait()
        assert (await client.send("7", "back")).seq == 1
    # Who was sent away asks for another gateway.
    assert (server.left_out[-1] is not None) == (code == 4000)


@pytest.mark.parametrize("code", [4500, 4501, 4502])
async def test_stays_away_after_a_close_that_says_so(server: ScriptedServer, code: int) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        await server.emit({"type": "kick", "reason": "enough"})
        await server.close_all(code, "enough")
        with pytest.raises(SessionEnded) as end:
            await bodies(client, 1)
        assert (end.value.code, end.value.reason) == (code, "enough")
        with pytest.raises(SessionEnded):
            await client.send("7", "too late")
    assert server.upgrades == 1


async def test_a_refused_credential_ends_it(server: ScriptedServer) -> None:
    with pytest.raises(SessionEnded) as end:
        async with Client(server.url, "stale", options=QUICK):
            pass
    assert end.value.code == 401


async def test_a_busy_server_is_asked_again(server: ScriptedServer) -> None:
    server.refusals.extend([(503, "0"), (429, ""), (502, "")])
    async with Client(server.url, "good", options=QUICK) as client:
        assert client.state == "online"
    assert server.upgrades == 4


async def test_retry_after_is_respected(server: ScriptedServer) -> None:
    server.refusals.append((503, "30"))
    with pytest.raises(Busy) as refusal:
        async with Client(server.url, "good", options=replace(QUICK, first_connect_s=0.2)):
            pass
    assert refusal.value.retry_after_ms == 30_000
    assert server.upgrades == 1


async def test_no_server_is_one_clear_sentence(unused_tcp_port: int) -> None:
    with pytest.raises(Unreachable, match="no server answers at"):
        async with Client(f"http://127.0.0.1:{unused_tcp_port}", "good", options=replace(QUICK, first_connect_s=0.2)):
            pass


async def test_unknown_frames_and_events_before_hello_are_ignored(server: ScriptedServer) -> None:
    server.first_frames.append({"type": "typing", "group_id": "7", "user_id": "6"})
    async with Client(server.url, "good", options=QUICK) as client:
        await server.emit({"type": "reactions", "group_id": "7", "emoji": "+1"})
        await server.emit({"type": "gap", "group_id": 7})
        await server.emit({"type": "typing", "group_id": "7", "user_id": "6", "device": "phone"})
        assert await until(client, lambda event: isinstance(event, Typing)) == Typing("7", "6")


async def test_groups_follow_events(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        server.groups["8"], server.stored["8"] = "garden", []
        await server.emit({"type": "group.joined", "group": {"id": "8", "name": "garden"}})
        await eventually(lambda: len(client.groups) == 2)
        await server.push(server.store("in the garden", "8"))
        assert await bodies(client, 1) == ["in the garden"]
        assert [(view.group.name, view.unread_label) for view in client.groups] == [("garden", "1"), ("lobby", "")]
        await client.read("8", 1)
        assert client.groups[0].unread == 0
        await server.emit({"type": "group.updated", "group": {"id": "8", "name": "park"}})
        await eventually(lambda: client.groups[1].group.name == "park")
        del server.groups["8"]
        await server.emit({"type": "group.left", "group_id": "8", "reason": "kicked"})
        assert await until(client, lambda event: isinstance(event, GroupLeft)) == GroupLeft("8", "kicked")
        assert [view.group.name for view in client.groups] == ["lobby"]


async def test_old_news_of_a_group_changes_nothing(server: ScriptedServer) -> None:
    garden = {"id": "8", "name": "garden", "last_seq": 0}
    async with Client(server.url, "good", options=QUICK) as client:
        await server.emit({"type": "group.joined", "group": garden | {"version": 3}})
        await server.emit({"type": "group.updated", "group": garden | {"version": 2, "name": "old"}})
        await server.emit({"type": "group.left", "group_id": "8", "reason": "left", "version": 1})
        member = {"user": {"id": "5", "username": "me", "display_name": "Me"}, "muted_until": None, "member_count": 4}
        await server.emit(
            {"type": "group.member", "group_id": "8", "change": "role", "role": "admin", **member, "version": 4}
        )
        await until(client, lambda event: isinstance(event, MemberChanged))
        [view] = [view for view in client.groups if view.group.id == "8"]
        assert (view.group.name, view.group.role, view.group.member_count) == ("garden", "admin", 4)
        await server.emit({"type": "group.left", "group_id": "8", "reason": "left", "version": 5})
        await server.emit({"type": "group.joined", "group": garden | {"version": 3}})
        await server.emit({"type": "typing", "group_id": "7", "user_id": "6"})
        await until(client, lambda event: isinstance(event, Typing))
        assert [view.group.id for view in client.groups] == ["7"]


async def test_a_group_we_are_not_in_any_more_is_dropped_at_the_next_pull(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        del server.groups["7"]
        await server.emit(frames.gap(7, 1, None, 0))
        await eventually(lambda: not client.groups)


async def test_the_connection_state_is_told(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        await until(client, lambda event: isinstance(event, StateChanged) and event.state == "online")
        server.refusals.extend([(503, "1")])
        await server.cut_all()
        waiting = await until(client, lambda event: isinstance(event, StateChanged) and event.state == "waiting")
        assert isinstance(waiting, StateChanged)


async def test_focus_is_told_again_after_a_reconnect(server: ScriptedServer) -> None:
    async with Client(server.url, "good", options=QUICK) as client:
        await client.focus("7")
        await server.cut_all()
        await eventually(lambda: sum(frame["type"] == "group.focus" for frame in server.requests) == 2)


async def test_closing_leaves_no_task_behind(server: ScriptedServer) -> None:
    before = asyncio.all_tasks()
    async with Client(server.url, "good", options=QUICK):
        pass
    assert {task.get_name() for task in asyncio.all_tasks() - before if "client" in task.get_name()} == set()
