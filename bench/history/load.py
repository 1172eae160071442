"""Reads history files: one pass over the lines."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench.history.model import NEVER, Attempt, Group, History, HistoryError, Key, Read, Send, View
from bench.history.records import Fail, Final, Info, Invoke, Item, Line, Offline, Ok, Online, Seen

DECODED_MAX = 4096
"""Decoded arrays kept: one frame reaches many members, and then its text is the same."""


def load(paths: Iterable[Path]) -> History:
    """Read history files. Raises HistoryError with file and line number for anything that is not one."""
    builder = _Builder()
    decoder = msgspec.json.Decoder(Line)
    for path in paths:
        builder.next_file()
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    builder.take(decoder.decode(line))
                except (msgspec.DecodeError, HistoryError) as error:
                    raise HistoryError(f"{path}:{number}: {error}") from None
    return builder.history


class _Builder:
    def __init__(self) -> None:
        self.history = History()
        self._open: dict[int, tuple[Key, Attempt]] = {}
        self._clients: dict[str, set[int]] = {}
        self._items = msgspec.json.Decoder(list[Item])
        self._decoded: dict[bytes, list[Item]] = {}
        self._sends = self.history.sends
        self._views = self.history.views

    def next_file(self) -> None:
        """Numbers of attempts belong to one file."""
        self._open.clear()

    def take(self, line: Line) -> None:
        history = self.history
        history.events += 1
        history.end = max(history.end, line.t)
        match line:
            case Seen():
                self._seen(line)
            case Invoke():
                self._invoke(line)
            case Ok() | Fail() | Info():
                self._answer(line)
            case Online():
                for group, cursor in line.groups.items():
                    self._online(line, group, cursor)
            case Offline():
                self._offline(line)
            case Final():
                self._final(line)

    def _invoke(self, line: Invoke) -> None:
        if line.op in self._open:
            raise HistoryError(f"attempt {line.op} begins again before its answer")
        key = Key(line.group, line.sender, line.client_msg_id)
        self._group(line.group)
        send = self._sends.get(key)
        if send is None:
            send = self._sends[key] = Send()
        attempt = Attempt(line.t, self.history.events, line.conn, line.client, line.digest)
        send.attempts.append(attempt)
        self._open[line.op] = key, attempt

    def _answer(self, line: Ok | Fail | Info) -> None:
        if line.op not in self._open:
            raise HistoryError(f"attempt {line.op} is answered, but it never began or has its answer")
        key, attempt = self._open.pop(line.op)
        if isinstance(line, Ok):
            attempt.outcome = "ok"
            send = self._sends[key]
            send.acks.append((line.seq, line.message_id))
            send.acked = min(send.acked, line.t)
            if attempt.client:
                self._view(attempt.client, key.group).acked.setdefault(line.seq, line.t)
        elif isinstance(line, Fail):
            attempt.outcome = "fail"

    def _online(self, line: Online, group: int, cursor: int | None) -> None:
        view = self._view(line.client, group)
        if view.online_since is not None:
            # The new connection came before the end of the old one was noticed.
            view.intervals.append((view.online_since, line.t))
        view.online_since = line.t
        if view.cursor is None or cursor is not None:
            view.cursor = cursor or 0
        self._clients.setdefault(line.client, set()).add(group)

    def _offline(self, line: Offline) -> None:
        known = self._clients.get(line.client, set())
        for group in list(known) if line.groups is None else line.groups:
            view = self._view(line.client, group)
            if view.online_since is not None:
                view.intervals.append((view.online_since, line.t))
                view.online_since = None
            known.discard(group)

    def _seen(self, line: Seen) -> None:
        group, view = self._group(line.group), self._view(line.client, line.group)
        if view.conn != line.conn:
            view.conn, view.pushed = line.conn, 0
        first, shown, known, others, t = view.first, group.shown, group.items, group.others, line.t
        pushed = view.pushed if line.via == "push" else 0
        previous = 0
        for item in self._decode(line.items):
            seq = item.seq
            if seq <= previous:
                self._misordered(line, f"{line.via} shows {seq} after {previous}")
            elif seq not in first:
                # Only pulling closes a gap: a push that comes back with something older shows it in another order.
                if seq < pushed:
                    self._misordered(line, f"{seq} is pushed after {pushed}")
                first[seq] = t
            elif t < first[seq]:
                first[seq] = t
            previous = seq
            if t < shown.get(seq, NEVER):
                shown[seq] = t
            if known.setdefault(seq, item) != item:
                others.add(item)
        if line.via == "push" and previous > view.pushed:
            view.pushed = previous

    def _misordered(self, line: Seen, what: str) -> None:
        self.history.misordered.append((line.group, f"{what} to client {line.client} on connection {line.conn}"))

    def _final(self, line: Final) -> None:
        group = self._group(line.group)
        raw = bytes(line.items)
        read = group.reads.get(raw)
        if read is not None:
            read.began = max(read.began, line.began)
            read.done = min(read.done, line.t)
            return
        read = group.reads[raw] = Read(self._items.decode(raw), line.member, line.began, line.t)
        previous = 0
        for item in read.items:
            if item.seq <= previous:
                detail = f"history shows {item.seq} after {previous} to member {line.member}"
                self.history.misordered.append((line.group, detail))
            previous = item.seq
            if group.history.setdefault(item.seq, item) != item:
                group.others.add(item)

    def _decode(self, raw: msgspec.Raw) -> list[Item]:
        text = bytes(raw)
        items = self._decoded.get(text)
        if items is None:
            if len(self._decoded) >= DECODED_MAX:
                self._decoded.clear()
            items = self._decoded[text] = self._items.decode(text)
        return items

    def _group(self, group: int) -> Group:
        found = self.history.groups.get(group)
        if found is None:
            found = self.history.groups[group] = Group()
        return found

    def _view(self, client: str, group: int) -> View:
        found = self._views.get((client, group))
        if found is None:
            found = self._views[client, group] = View()
        return found
