"""Names and numbers of the log in Redis Streams. The braces are literal: all keys of a partition share a Cluster slot."""

READERS = "Log:Readers"
"""ZSET of readers, scored by the end of their registration in ms of Redis' own clock."""
GROUP = "magpie"
"""The consumer group of each stream. Nobody reads through it: it holds the position, and its absence says that the log began anew."""

_SEQ_BITS = 20
_SEQ_MASK = (1 << _SEQ_BITS) - 1
MAX_RECORDS = 1 << (_SEQ_BITS - 1)
"""Of a partition, so that an append never runs out of the sequence numbers of a millisecond."""


def stream_key(partition: int) -> str:
    """The un-committed records; what is committed is trimmed."""
    return f"Log:{{{partition}}}"


def owner_key(partition: int) -> str:
    """The name of the reader that owns the partition; counts as long as that reader is registered."""
    return f"Log:{{{partition}}}:Owner"


def to_offset(entry_id: bytes) -> int:
    """`ms-seq` as ms * 2^20 + seq: rises with the ids, and fits 63 bits until the year 2248."""
    ms, _, seq = entry_id.partition(b"-")
    return (int(ms) << _SEQ_BITS) + int(seq)


def to_id(offset: int) -> bytes:
    """The inverse of `to_offset`."""
    return b"%d-%d" % (offset >> _SEQ_BITS, offset & _SEQ_MASK)


def to_ms(offset: int) -> int:
    """When the record was appended, in ms since 1970 by Redis' clock."""
    return offset >> _SEQ_BITS
