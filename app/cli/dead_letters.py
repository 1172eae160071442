"""`run.py deadletters`: look at sends that could not be stored, store them after all, or drop them."""

import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from rich.console import Console
from rich.table import Table

from app.cli.attach import existing_stores
from app.cli.beside import STOP_S, looking
from app.cli.output import answers
from app.cli.progress import Progress
from app.cli.show_letter import as_json, as_row, full
from app.consumer.dead_letter_table import DeadLetterTable
from app.consumer.feature import build_replayer
from app.consumer.replay import Replayed
from app.errors import ConfigError
from app.parts import Parts
from app.settings import Settings

EXIT_FINE, EXIT_LEFT = 0, 1
PAGE = 100
EXAMPLES = 10
"""Ids named in a question."""

TEXTS = {
    "stored": "stored as message {seq} of group {group}",
    "repeat": "was stored before, as message {seq} of group {group}",
    "refused": "kept, the send is refused now ({why})",
    "failed": "kept, it cannot be stored: {why}",
    "broken": "kept, it can never be stored: {why}",
    "taken": "nothing done: {why}",
}


async def list_letters(settings: Settings, *, limit: int, in_json: bool) -> int:
    """Print the oldest `limit`. Returns the exit code; raises ConfigError."""
    async with _parts(settings) as parts:
        table = DeadLetterTable(parts.postgres)
        letters, (waiting, _) = await table.page(0, limit), await table.waiting()
    if in_json:
        sys.stdout.write(json.dumps([as_json(letter, text=False) for letter in letters], indent=2) + "\n")
        return EXIT_FINE
    console = answers()
    if not letters:
        console.print("There are no dead letters.")
        return EXIT_FINE
    shown = Table("id", "when (UTC)", "broker", "partition", "reason", "group", "sender", show_edge=False)
    for letter in letters:
        shown.add_row(*as_row(letter))
    console.print(shown)
    if waiting > len(letters):
        console.print(f"… and {waiting - len(letters):,} more; --limit shows more of them.")
    return EXIT_FINE


async def show_letter(settings: Settings, letter_id: int, *, text: bool, in_json: bool) -> int:
    """Print one. Returns the exit code; raises ConfigError."""
    async with _parts(settings) as parts:
        letter = await DeadLetterTable(parts.postgres).find(letter_id)
    if letter is None:
        return _unknown([letter_id])
    if in_json:
        sys.stdout.write(json.dumps(as_json(letter, text=text), indent=2, ensure_ascii=False) + "\n")
    else:
        for name, value in full(letter, text=text):
            answers().print(f"{name:<14} {value}", markup=False, highlight=False, soft_wrap=True)
    return EXIT_FINE


async def replay_letters(settings: Settings, ids: Sequence[int], *, everything: bool) -> int:
    """Store these, or all there are now, oldest first. Returns the exit code; raises ConfigError."""
    _check_choice(ids, everything)
    results: list[Replayed] = []
    async with _parts(settings) as parts, _stamping(parts):
        table = DeadLetterTable(parts.postgres)
        replayer = build_replayer(
            parts.postgres, parts.redis, parts.messages, parts.groups.states, parts.words, parts.ids, parts.metrics
        )
        async for letter_id in _chosen(table, ids, everything):
            result = await replayer.replay(letter_id)
            results.append(result)
            text = TEXTS[result.result].format(seq=result.seq, group=result.group_id, why=result.why)
            answers().print(f"{letter_id}: {text}", markup=False, highlight=False, soft_wrap=True)
    done = sum(result.result in ("stored", "repeat") for result in results)
    answers().print(
        f"{done} of {len(results)} are stored; members online get them within some seconds.", highlight=False
    )
    return EXIT_FINE if done == len(results) else EXIT_LEFT


async def drop_letters(
    settings: Settings, ids: Sequence[int], *, everything: bool, confirm: Callable[[str], bool]
) -> int:
    """Remove these, or all there are now, once `confirm` agreed to the question. Returns the exit code; raises ConfigError."""
    _check_choice(ids, everything)
    async with _parts(settings) as parts:
        table = DeadLetterTable(parts.postgres)
        # Before the question: what comes while somebody thinks about it was not asked about.
        chosen = [letter_id async for letter_id in _chosen(table, ids, everything)]
        which = ", ".join(map(str, chosen)) if len(chosen) <= EXAMPLES else f"{len(chosen):,} of them"
        if not chosen or not confirm(f"Drop dead letters for good, their messages will never appear: {which}?"):
            answers().print("Nothing was dropped.")
            return EXIT_FINE if not chosen else EXIT_LEFT
        dropped = await table.drop(chosen)
    answers().print(f"Dropped: {', '.join(map(str, dropped)) or 'none'}.", highlight=False, soft_wrap=True)
    left = sorted(set(chosen) - set(dropped))
    return _unknown(left) if left else EXIT_FINE


def _check_choice(ids: Sequence[int], everything: bool) -> None:
    if bool(ids) == everything:
        raise ConfigError("Name dead letters by their ids, or say --all; `run.py deadletters list` shows them.")


async def _chosen(table: DeadLetterTable, ids: Sequence[int], everything: bool) -> AsyncIterator[int]:
    """The ids, oldest first: within a partition that is the order of the log."""
    if not everything:
        for letter_id in sorted(set(ids)):
            yield letter_id
        return
    newest, after = await table.newest_id(), 0
    while letters := await table.page(after, PAGE):
        for letter in letters:
            if letter.id <= newest:
                yield letter.id
        after = letters[-1].id


def _unknown(ids: Sequence[int]) -> int:
    which = ", ".join(map(str, ids))
    sys.stderr.write(f"magpie: No such dead letter, or another operator is at it: {which}.\n")
    return EXIT_LEFT


@asynccontextmanager
async def _parts(settings: Settings) -> AsyncIterator[Parts]:
    """What looks beside the server, on its stores."""
    console = Console(stderr=True)
    with Progress(console) as progress:
        on_step = progress.step if console.is_terminal else lambda _: None
        async with existing_stores(settings, on_step) as reached, looking(reached) as parts:
            yield parts


@asynccontextmanager
async def _stamping(parts: Parts) -> AsyncIterator[None]:
    """A worker id of its own while the block runs, and the word filter."""
    await parts.words.load()
    await parts.lease.acquire()
    parts.supervisor.spawn(parts.lease.run(), "worker_lease")
    try:
        yield
    finally:
        await parts.supervisor.stop(STOP_S)
        await parts.lease.release()
