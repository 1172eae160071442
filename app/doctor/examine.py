"""All checks over all groups, a chunk at a time, and mending on demand."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import asyncpg

from app.doctor.base import Check, Looked, Source
from app.errors import Busy, ConfigError
from app.storage.redis import ERRORS

EXAMPLES = 5
GROUPS_AT_ONCE = 200
MESSAGES_AT_ONCE = 200_000
"""A chunk ends with the group that passes this; single groups are not split, PostgreSQL only counts in them."""

SQL_GROUPS = """
WITH RECURSIVE
    in_messages AS (
        (SELECT group_id, 1 AS n FROM messages WHERE group_id > $1 ORDER BY group_id LIMIT 1)
        UNION ALL
        SELECT (SELECT group_id FROM messages WHERE group_id > i.group_id ORDER BY group_id LIMIT 1), n + 1
        FROM in_messages AS i WHERE i.group_id IS NOT NULL AND n < $2),
    in_members AS (
        (SELECT group_id, 1 AS n FROM group_members WHERE group_id > $1 ORDER BY group_id LIMIT 1)
        UNION ALL
        SELECT (SELECT group_id FROM group_members WHERE group_id > i.group_id ORDER BY group_id LIMIT 1), n + 1
        FROM in_members AS i WHERE i.group_id IS NOT NULL AND n < $2),
    in_blocks AS (
        (SELECT group_id, 1 AS n FROM search_block WHERE group_id > $1 ORDER BY group_id LIMIT 1)
        UNION ALL
        SELECT (SELECT group_id FROM search_block WHERE group_id > i.group_id ORDER BY group_id LIMIT 1), n + 1
        FROM in_blocks AS i WHERE i.group_id IS NOT NULL AND n < $2)
SELECT f.group_id, coalesce(s.last_seq, 0) FROM (
    (SELECT group_id FROM groups WHERE group_id > $1 ORDER BY group_id LIMIT $2) UNION
    (SELECT group_id FROM group_seq WHERE group_id > $1 ORDER BY group_id LIMIT $2) UNION
    (SELECT group_id FROM search_progress WHERE group_id > $1 ORDER BY group_id LIMIT $2) UNION
    (SELECT group_id FROM in_messages WHERE group_id IS NOT NULL) UNION
    (SELECT group_id FROM in_members WHERE group_id IS NOT NULL) UNION
    (SELECT group_id FROM in_blocks WHERE group_id IS NOT NULL)
    ORDER BY group_id LIMIT $2) AS f
LEFT JOIN group_seq AS s USING (group_id) ORDER BY f.group_id
"""
"""The next groups that anything belongs to. The recursions hop from group to group in an index."""


@dataclass(slots=True)
class Result:
    """What a check found, and what was mended of it. `wrong` is what was found, `left` what is still wrong."""

    check: Check
    looked_at: int = 0
    wrong: int = 0
    left: int = 0
    examples: list[str] = field(default_factory=list)
    note: str = ""
    failure: str = ""
    """Why it could not be done to its end."""
    seconds: float = 0.0

    @property
    def mended(self) -> int:
        """What was wrong and is not any more."""
        return self.wrong - self.left


class Doctor:
    """Runs checks in their order: what mends a cause comes before what mends its consequence."""

    def __init__(self, source: Source, checks: Sequence[Check], *, repair: bool) -> None:
        self._source = source
        self._results = [Result(check) for check in checks]
        self._repair = repair

    async def examine(self, on_progress: Callable[[int, int], None] = lambda *_: None) -> list[Result]:
        """All results in the order of the checks. `on_progress` gets groups done, and how many there are about.

        A check that cannot be done says so in its result. Raises Busy when not even the groups can be listed.
        """
        total = (await self._source.rows("SELECT count(*) FROM group_seq"))[0][0]
        done = 0
        by_group = [result for result in self._results if result.check.by_group]
        if by_group:
            async for groups in self._chunks():
                for result in by_group:
                    await self._look(result, groups)
                done += len(groups)
                on_progress(done, max(total, done))
        for result in self._results:
            if not result.check.by_group:
                await self._look(result, ())
        return self._results

    async def _chunks(self) -> AsyncIterator[list[int]]:
        after = -(1 << 63)
        while rows := await self._source.rows(SQL_GROUPS, after, GROUPS_AT_ONCE):
            groups: list[int] = []
            messages = 0
            for group_id, last_seq in rows:
                groups.append(group_id)
                messages += last_seq
                if messages >= MESSAGES_AT_ONCE:
                    break
            yield groups
            after = groups[-1]

    async def _look(self, result: Result, groups: Sequence[int]) -> None:
        if result.failure:
            return
        began = perf_counter()
        try:
            looked = await result.check.look(groups)
            self._add(result, looked)
            if self._repair and looked.findings and result.check.mends:
                await result.check.mend(looked.findings)
                subjects = sorted({finding.subject for finding in looked.findings})
                left = await result.check.look(subjects)
                # A chunk of one group may have got worse meanwhile, or better by itself.
                result.left -= max(0, _wrong(looked) - _wrong(left))
        except Busy as error:
            result.failure = f"{error.message} (or a statement took longer than --timeout)"
        except ConfigError as error:
            result.failure = str(error)
        except ERRORS as error:
            result.failure = f"Redis was away, or took too long ({type(error).__name__})"
        except asyncpg.PostgresError as error:
            # Only the kind: the message may quote what somebody wrote.
            result.failure = f"PostgreSQL refused ({type(error).__name__})"
        finally:
            result.seconds += perf_counter() - began

    def _add(self, result: Result, looked: Looked) -> None:
        result.looked_at += looked.looked_at
        result.wrong += _wrong(looked)
        result.left += _wrong(looked)
        result.examples += [finding.what for finding in looked.findings[: EXAMPLES - len(result.examples)]]
        result.note = looked.note or result.note


def _wrong(looked: Looked) -> int:
    return sum(finding.count for finding in looked.findings)
