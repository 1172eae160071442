"""The checker against a reference model: histories of a correct server are clean, and one wrong line makes them not."""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bench.history import Item, Recorder, check, digest, load

MEMBERS = (1, 2, 3)
GROUPS = (10, 20)
Lines = list[dict[str, Any]]


@dataclass
class Pending:
    """An attempt on its way to the model's server."""

    op: int
    group: int
    sender: int
    name: str
    body: str


@dataclass
class Client:
    """A member's client: a connection, what is on its way up, and how far each group was shown."""

    member: int
    record: Recorder
    conns: int = 0
    online: bool = False
    up: dict[str, deque[Pending]] = field(default_factory=dict)
    have: dict[int, int] = field(default_factory=dict)
    """Group → how far it was pushed on this connection."""

    @property
    def name(self) -> str:
        return f"m{self.member}"

    @property
    def conn(self) -> str:
        return f"{self.name}.{self.conns}"

    def connect(self) -> None:
        self.conns += 1
        self.online = True
        self.up[self.conn] = deque()
        self.record.online(self.name, dict.fromkeys(GROUPS, 0 if self.conns == 1 else None))


class Model:
    """A correct server, and clients that may do anything the protocol allows."""

    def __init__(self, record: Recorder, clock: list[int], data: st.DataObject) -> None:
        self.clock = clock
        self.data = data
        self.record = record
        self.history: dict[int, list[Item]] = {group: [] for group in GROUPS}
        self.first: dict[tuple[int, int, str], Item] = {}
        self.clients = [Client(member, self.record) for member in MEMBERS]
        self.names: list[tuple[int, int, str, str]] = []
        for client in self.clients:
            client.connect()

    def pick(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def send(self) -> None:
        """A new message, a repeat, or a repeat with another body; over any connection of its sender."""
        known = self.pick(st.sampled_from(self.names)) if self.names and self.pick(st.booleans()) else None
        if known is None:
            client = self.pick(st.sampled_from(self.clients))
            group, name = self.pick(st.sampled_from(GROUPS)), f"{client.member}-{len(self.names)}"
            body = f"text of {name}"
            self.names.append((client.member, group, name, body))
        else:
            member, group, name, body = known
            client = self.clients[member - 1]
            body = self.pick(st.sampled_from([body, body, f"other {body}"]))
        if not client.online:
            return
        op = self.record.invoke(
            group=group,
            sender=client.member,
            client_msg_id=name,
            digest=digest("text", body),
            conn=client.conn,
            client=client.name,
        )
        client.up[client.conn].append(Pending(op, group, client.member, name, body))

    def serve(self) -> None:
        """The server takes the oldest attempt of some connection, even of one that is closed."""
        busy = [(client, conn) for client in self.clients for conn, queue in client.up.items() if queue]
        if not busy:
            return
        client, conn = self.pick(st.sampled_from(busy))
        attempt = client.up[conn].popleft()
        answered = client.online and conn == client.conn and self.pick(st.booleans())
        what = self.pick(st.sampled_from(["store", "store", "store", "refuse", "lose"]))
        if what == "lose":
            if answered:
                self.record.info(attempt.op, "timeout")
            return
        key = (attempt.group, attempt.sender, attempt.name)
        stored = self.first.get(key)
        same = stored is None or stored.digest == digest("text", attempt.body)
        if what == "refuse" or not same:
            if answered:
                self.record.fail(attempt.op, "busy")
            return
        if stored is None:
            log = self.history[attempt.group]
            stored = Item(
                len(log) + 1, attempt.sender, attempt.name, digest("text", attempt.body), str(len(self.first))
            )
            log.append(stored)
            self.first[key] = stored
        if answered:
            self.record.ok(attempt.op, stored.seq, stored.message_id)

    def push(self) -> None:
        client, group = self.pick(st.sampled_from(self.clients)), self.pick(st.sampled_from(GROUPS))
        self.show(client, group, skip=self.pick(st.integers(0, 2)))

    def show(self, client: Client, group: int, skip: int = 0) -> None:
        """Push what is new; what is skipped is pulled then, as after a gap."""
        log, have = self.history[group], client.have.get(group, 0)
        items = log[have + skip :]
        if not client.online or not items:
            return
        self.record.seen(client=client.name, conn=client.conn, group=group, items=items)
        if skip:
            self.record.seen(client=client.name, conn=client.conn, group=group, items=log[have:], via="pull")
        client.have[group] = len(log)

    def cut(self) -> None:
        client = self.pick(st.sampled_from(self.clients))
        if client.online:
            client.online = False
            self.record.offline(client.name)

    def back(self) -> None:
        """A client comes back and resumes, perhaps from further behind than need be."""
        client = self.pick(st.sampled_from(self.clients))
        if client.online:
            return
        client.connect()
        for group in GROUPS:
            client.have[group] = max(0, client.have.get(group, 0) - self.pick(st.integers(0, 1)))

    def finish(self) -> None:
        while any(queue for client in self.clients for queue in client.up.values()):
            self.serve()
        for client in self.clients:
            if not client.online:
                client.connect()
            for group in GROUPS:
                self.show(client, group)
        self.clock[0] += 20_000_000_000
        for group in GROUPS:
            for member in MEMBERS:
                self.record.final_history(
                    member=member, group=group, items=self.history[group], began=self.record.now()
                )


def run_model(path: Path, data: st.DataObject) -> None:
    clock = [0]

    def tick() -> int:
        clock[0] += 1_000_000
        return clock[0]

    with Recorder(path, clock=tick) as record:
        model = Model(record, clock, data)
        steps = [model.send, model.send, model.serve, model.serve, model.push, model.cut, model.back]
        for step in data.draw(st.lists(st.sampled_from(range(len(steps))), min_size=25, max_size=80)):
            steps[step]()
        model.finish()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history") / "history.jsonl"


PROFILE = settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@PROFILE
@given(data=st.data())
def test_a_correct_server_is_never_accused(path: Path, data: st.DataObject) -> None:
    run_model(path, data)
    report = check(load([path]))
    assert report.clean, report.examples


def pick(data: st.DataObject, choices: list[Any]) -> Any:
    assume(choices)
    return data.draw(st.sampled_from(choices))


def finals(lines: Lines, group: int | None = None) -> Lines:
    return [line for line in lines if line["e"] == "final" and group in (None, line["group"])]


def lose(lines: Lines, data: st.DataObject) -> str:
    """An acked message is missing at the end."""
    acks = [line for line in lines if line["e"] == "ok"]
    ack = pick(data, acks)
    sent = next(line for line in lines if line["e"] == "invoke" and line["op"] == ack["op"])
    for line in finals(lines, sent["group"]):
        line["items"] = [item for item in line["items"] if item[2] != sent["client_msg_id"]]
    return "lost"


def double(lines: Lines, data: st.DataObject) -> str:
    """A message stands in the history twice."""
    line = pick(data, [line for line in finals(lines) if line["items"]])
    seq, *rest = data.draw(st.sampled_from(line["items"]))
    for other in finals(lines, line["group"]):
        other["items"].append([len(other["items"]) + 1, *rest])
    assert seq
    return "duplicate"


def swap(lines: Lines, data: st.DataObject) -> str:
    """Two messages that one connection sent one after the other, each once, have changed places everywhere."""
    tries: dict[tuple[int, str], Lines] = {}
    for line in lines:
        if line["e"] == "invoke":
            tries.setdefault((line["group"], line["client_msg_id"]), []).append(line)
    line = pick(data, [line for line in finals(lines) if line["items"]])
    sole = {
        item[0]: tries[line["group"], item[2]][0] for item in line["items"] if len(tries[line["group"], item[2]]) == 1
    }
    pairs = [(a, b) for a, one in sole.items() for b, other in sole.items() if a < b and one["conn"] == other["conn"]]
    a, b = pick(data, pairs)
    turn = {a: b, b: a}
    for other in lines:
        if other.get("group") == line["group"] and "items" in other:
            swapped = [[turn.get(item[0], item[0]), *item[1:]] for item in other["items"]]
            other["items"] = sorted(swapped)
        elif other["e"] == "ok" and any(other["op"] == sole[seq]["op"] for seq in turn):
            other["seq"] = turn[other["seq"]]
    return "reorder"


def shuffle(lines: Lines, data: st.DataObject) -> str:
    """A list of messages is shown backwards."""
    line = pick(data, [line for line in lines if len(line.get("items", ())) > 1])
    line["items"].reverse()
    return "reorder"


def falsify(lines: Lines, data: st.DataObject) -> str:
    """One showing has another body than the others."""
    line = pick(data, [line for line in lines if line.get("items")])
    item = data.draw(st.sampled_from(line["items"]))
    others = [line for line in finals(lines, line["group"]) if line["items"]]
    assume(others)
    item[3] = "0123456789abcdef"
    return "divergent"


def punch(lines: Lines, data: st.DataObject) -> str:
    """A history has a hole."""
    line = pick(data, [line for line in finals(lines) if len(line["items"]) > 1])
    del line["items"][data.draw(st.integers(0, len(line["items"]) - 2))]
    return "gap"


def invent(lines: Lines, data: st.DataObject) -> str:
    """Somebody is shown what nobody sent."""
    line = pick(data, [line for line in lines if "items" in line])
    line["items"].append([1000, 1, "invented", "0123456789abcdef", "1"])
    return "phantom"


def refuse(lines: Lines, data: st.DataObject) -> str:
    """Every attempt of a visible message was refused."""
    line = pick(data, [line for line in finals(lines) if line["items"]])
    name = data.draw(st.sampled_from(line["items"]))[2]
    tries = [
        other
        for other in lines
        if other["e"] == "invoke" and (other["group"], other["client_msg_id"]) == (line["group"], name)
    ]
    ops = {other["op"] for other in tries}
    lines[:] = [other for other in lines if other.get("op") not in ops or other["e"] == "invoke"]
    end = max(other["t"] for other in lines)
    lines += [{"e": "fail", "t": end, "op": op} for op in ops]
    return "aborted"


def hide(lines: Lines, data: st.DataObject) -> str:
    """A member never gets a message of somebody else."""
    line = pick(data, [line for line in lines if line["e"] == "seen"])
    item = data.draw(st.sampled_from(line["items"]))
    assume(line["client"] != f"m{item[1]}")
    for other in lines:
        if other["e"] == "seen" and (other["client"], other["group"]) == (line["client"], line["group"]):
            other["items"] = [kept for kept in other["items"] if kept[0] != item[0]]
    return "unseen"


MUTATIONS: list[Callable[[Lines, st.DataObject], str]] = [
    lose,
    double,
    swap,
    shuffle,
    falsify,
    punch,
    invent,
    refuse,
    hide,
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
@settings(PROFILE, max_examples=25)
@given(data=st.data())
def test_one_wrong_line_is_flagged(
    path: Path, mutate: Callable[[Lines, st.DataObject], str], data: st.DataObject
) -> None:
    run_model(path, data)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    expected = mutate(lines, data)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = check(load([path]))
    assert expected in report.kinds, report.examples
