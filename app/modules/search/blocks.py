"""Messages put into blocks, each with one signature."""

from dataclasses import dataclass, field

from app.modules.search.signatures import Flags, Signer


@dataclass(slots=True)
class Filled:
    """A block that is new, or what comes to one that is there: `words` and `flags` are of the messages that come.

    `before`: the words that were there.
    """

    group_id: int
    first_seq: int
    last_seq: int
    before: int = 0
    words: int = 0
    first_id: int = 0
    last_id: int = 0
    flags: Flags = field(default_factory=Flags)


class Blocks:
    """Those of one batch, closed after `messages_max` messages or about `words_max` words."""

    def __init__(self, signer: Signer, *, messages_max: int, words_max: int) -> None:
        self._signer = signer
        self._messages_max = messages_max
        self._words_max = words_max
        self.filled: list[Filled] = []

    def begin(self, group_id: int, indexed_seq: int, last: tuple[int, int] | None) -> None:
        """The messages of a group follow. `last`: first_seq and words of the block that ends at `indexed_seq`, if there is one."""
        first_seq, words = last or (indexed_seq + 1, 0)
        self._block = Filled(group_id, first_seq, indexed_seq, words)

    def add(self, seq: int, message_id: int, folded: str) -> None:
        """The next message; `folded` is empty for what is no text."""
        block = self._block
        words = block.before + block.words
        # A text has about as many words as characters. A long one gets a block of its own, so that it fills no other's signature.
        full = block.last_seq - block.first_seq + 1 >= self._messages_max or words + len(folded) > self._words_max
        if full and block.last_seq >= block.first_seq:
            block = self._block = Filled(block.group_id, block.last_seq + 1, block.last_seq)
        if not block.last_id:
            block.first_id = block.last_id = message_id
            self.filled.append(block)
        # A number that is missing is of the block, too: it follows the one before without a hole.
        block.last_seq = seq
        block.first_id = min(block.first_id, message_id)
        block.last_id = max(block.last_id, message_id)
        if folded:
            block.words += self._signer.sign(folded, block.flags)
