"""Hand-made histories of one group, to test the history checker with."""

from pathlib import Path

from bench.history import Item, Recorder, Report, check, digest, load
from bench.history.records import Via

GROUP = 7
ALICE, BOB = 1, 2


class Story:
    """A hand-made history of one group; times in seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.record = Recorder(path, clock=lambda: round(self.now * 1e9))

    def wait(self, seconds: float = 0.001) -> None:
        self.now += seconds

    def begin(
        self, name: str, *, sender: int = ALICE, conn: str = "a1", client: str = "", body: str = "", attempt: int = 1
    ) -> int:
        self.wait()
        return self.record.invoke(
            group=GROUP,
            sender=sender,
            client_msg_id=name,
            digest=digest("text", body or name),
            conn=conn,
            client=client,
            attempt=attempt,
        )

    def ok(self, op: int, seq: int, message_id: str = "") -> None:
        self.wait()
        self.record.ok(op, seq, message_id)

    def fail(self, op: int) -> None:
        self.wait()
        self.record.fail(op, "busy")

    def info(self, op: int) -> None:
        self.wait()
        self.record.info(op, "timeout")

    def sent(self, name: str, seq: int, *, sender: int = ALICE, conn: str = "a1", client: str = "") -> None:
        self.ok(self.begin(name, sender=sender, conn=conn, client=client), seq)

    def online(self, client: str, cursor: int | None = 0) -> None:
        self.wait()
        self.record.online(client, {GROUP: cursor})

    def offline(self, client: str) -> None:
        self.wait()
        self.record.offline(client)

    def seen(self, client: str, *items: Item, via: Via = "push", conn: str = "") -> None:
        self.wait()
        self.record.seen(client=client, conn=conn or f"{client}1", group=GROUP, items=items, via=via)

    def final(self, *items: Item, member: int = BOB) -> None:
        self.wait()
        began = self.record.now()
        self.wait()
        self.record.final_history(member=member, group=GROUP, items=items, began=began)

    def report(self) -> Report:
        self.record.close()
        return check(load([self.path]))


def item(seq: int, name: str, *, sender: int = ALICE, body: str = "", message_id: str = "") -> Item:
    return Item(seq, sender, name, digest("text", body or name), message_id)


def lost_tail(s: Story) -> None:
    s.sent("a", 1)
    s.sent("b", 2)
    s.final(item(1, "a"))


def plain_chat(s: Story) -> None:
    s.online("alice")
    s.online("bob")
    s.sent("a", 1, client="alice")
    s.seen("bob", item(1, "a"))
    s.seen("alice", item(1, "a"))
    s.sent("b", 2, sender=BOB, conn="b1", client="bob")
    s.seen("alice", item(2, "b", sender=BOB))
    s.wait(20)
    s.final(item(1, "a"), item(2, "b", sender=BOB), member=ALICE)
    s.final(item(1, "a"), item(2, "b", sender=BOB), member=BOB)
