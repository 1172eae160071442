"""The word filter: rejects or masks messages that contain a word of the list, which is read again whenever its file changes."""

import asyncio
from pathlib import Path
from typing import Literal

import structlog

from app.errors import ConfigError
from app.modules.moderation.word_list import WordList

log = structlog.get_logger(__name__)

Mode = Literal["reject", "mask"]
Signature = tuple[int, int, int]
"""Inode, time of change in ns, and size: a file that was written again has another."""


class WordFilter:
    """`load` before use; `run` follows the file. An empty `words_file` lets everything pass.

    The file is UTF-8 with one word per line; lines that start with `#` are comments.
    """

    def __init__(self, words_file: str, mode: Mode, *, reload_s: float, file_max_bytes: int) -> None:
        self._path = Path(words_file) if words_file else None
        self._mode = mode
        self._reload_s = reload_s
        self._file_max_bytes = file_max_bytes
        self._words = WordList(())
        self._seen: Signature | None = None

    async def load(self) -> None:
        """Read the list for the first time. Raises ConfigError when it cannot be read."""
        if self._path is None:
            return
        try:
            await asyncio.to_thread(self._reload, self._path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"The word list {self._path} (moderation.words_file) cannot be read: {error}.") from None

    async def run(self) -> None:
        """Read the list again when its file has changed, until cancelled. A file that cannot be read leaves the old list in place."""
        failed = ""
        while True:
            await asyncio.sleep(self._reload_s)
            if self._path is None:
                continue
            try:
                await asyncio.to_thread(self._reload, self._path)
                failed = ""
            except (OSError, ValueError) as error:
                if str(error) != failed:
                    log.error("word_list_not_loaded", reason=str(error), kept_words=len(self._words))
                failed = str(error)

    def filtered(self, text: str) -> str | None:
        """The message as it may be stored; None: rejected."""
        if self._mode == "reject":
            return None if self._words.occurs_in(text) else text
        spans = self._words.spans_in(text)
        if not spans:
            return text
        characters = list(text)
        for start, end in spans:
            characters[start:end] = "*" * (end - start)
        return "".join(characters)

    def _reload(self, path: Path) -> None:
        """In a thread. Raises OSError, ValueError."""
        status = path.stat()
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if signature == self._seen:
            return
        # Even a file that turns out broken is not read again before it changes.
        self._seen = signature
        with path.open("rb") as file:
            content = file.read(self._file_max_bytes + 1)
        if len(content) > self._file_max_bytes:
            raise ValueError(f"it is larger than {self._file_max_bytes} bytes")
        lines = map(str.strip, content.decode("utf-8-sig").splitlines())
        words = WordList(line for line in lines if line and not line.startswith("#"))
        self._words = words
        log.info("word_list_loaded", words=len(words))
