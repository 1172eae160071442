"""How many partitions each of several readers should own."""

from collections.abc import Collection


def share(partitions: int, readers: Collection[str], reader: str) -> int:
    """The even share of `reader`: differs by at most one between readers, adds up to all, and is the same wherever it is computed.

    Who has more gives up the difference, who has less takes what is free; so nothing else moves when a reader comes or goes.
    """
    even, left_over = divmod(partitions, len(readers))
    return even + (sorted(readers).index(reader) < left_over)
