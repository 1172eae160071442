"""Writes a history file."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from bench.history.records import Fail, Final, Info, Invoke, Item, Offline, Ok, Online, Record, Seen, Via

FLUSH_BYTES = 1 << 20
"""Lines collect up to this size: a few writes a second under full load, each under a millisecond."""


class Recorder:
    """Appends records to `path` in the order of the calls. One event loop (or thread) per recorder; several files can be checked
    together.

    Call `invoke` before the frame is written and `ok`, `fail`, `info`, `seen` when the answer was read: then the recorded interval
    contains the true one, and the checker accuses nobody wrongly.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        # Unbuffered: lines collect here, where their number is known.
        self._file = path.open("wb", buffering=0)
        self._clock = clock
        self._lines = bytearray()
        self._encoder = msgspec.json.Encoder()
        self._ops = 0

    def invoke(
        self,
        *,
        group: int,
        sender: int,
        client_msg_id: str,
        digest: str,
        conn: str,
        client: str = "",
        attempt: int = 1,
    ) -> int:
        """An attempt to send begins; returns the number by which its answer is recorded."""
        self._ops += 1
        self._write(
            Invoke(
                t=self._clock(),
                op=self._ops,
                group=group,
                sender=sender,
                client_msg_id=client_msg_id,
                digest=digest,
                conn=conn,
                client=client,
                attempt=attempt,
            )
        )
        return self._ops

    def ok(self, op: int, seq: int, message_id: str = "") -> None:
        """Attempt `op` was acked."""
        self._write(Ok(t=self._clock(), op=op, seq=seq, message_id=message_id))

    def fail(self, op: int, code: str = "") -> None:
        """Attempt `op` was answered with outcome `none`."""
        self._write(Fail(t=self._clock(), op=op, code=code))

    def info(self, op: int, code: str = "") -> None:
        """The outcome of attempt `op` is unknown."""
        self._write(Info(t=self._clock(), op=op, code=code))

    def online(self, client: str, groups: Mapping[int, int | None]) -> None:
        """`client` is responsible for `groups` from now on: group → the seq it has already, or None after a reconnect."""
        self._write(Online(t=self._clock(), client=client, groups=dict(groups)))

    def offline(self, client: str, groups: Iterable[int] | None = None) -> None:
        """`client` lost its connection, or (with `groups`) left these groups."""
        self._write(Offline(t=self._clock(), client=client, groups=None if groups is None else list(groups)))

    def seen(
        self, *, client: str, conn: str, group: int, items: Iterable[Item] | msgspec.Raw, via: Via = "push"
    ) -> None:
        """Messages reached `client`, in this order; `items` may be encoded already."""
        self._write(Seen(t=self._clock(), client=client, conn=conn, group=group, via=via, items=self._raw(items)))

    def now(self) -> int:
        """The clock of this recording, for `began`."""
        return self._clock()

    def final_history(self, *, member: int, group: int, items: Iterable[Item] | msgspec.Raw, began: int) -> None:
        """`member` has read the whole history of `group`, having begun at `began` (from `now`)."""
        self._write(Final(t=self._clock(), member=member, group=group, began=began, items=self._raw(items)))

    def _raw(self, items: Iterable[Item] | msgspec.Raw) -> msgspec.Raw:
        return items if isinstance(items, msgspec.Raw) else msgspec.Raw(self._encoder.encode(list(items)))

    def _write(self, record: Record) -> None:
        self._lines += self._encoder.encode(record)
        self._lines += b"\n"
        if len(self._lines) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the kernel."""
        view = memoryview(bytes(self._lines))
        self._lines.clear()
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()

    def __enter__(self) -> Self:
        """The recorder; closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()
