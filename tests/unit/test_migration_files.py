"""What is handed to dbmate."""

import re

import pytest

from app.storage.migrate import MIGRATIONS, with_sslmode


@pytest.mark.parametrize(
    ("dsn", "handed"),
    [
        ("postgresql://u:p@db/im", "postgresql://u:p@db/im?sslmode=prefer"),
        ("postgresql://u@/im?host=/run/pg", "postgresql://u@/im?host=/run/pg&sslmode=prefer"),
        ("postgresql:///im?host=/run/pg", "postgresql:///im?host=/run/pg&sslmode=prefer"),
        ("postgresql://db/im?sslmode=verify-full", "postgresql://db/im?sslmode=verify-full"),
    ],
)
def test_tls_is_tried_unless_the_address_says_otherwise(dsn: str, handed: str) -> None:
    assert with_sslmode(dsn) == handed


def test_migrations_are_numbered_without_gaps_and_bound_their_locks() -> None:
    names = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    for name in names:
        assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name), name
        text = (MIGRATIONS / name).read_text()
        assert text.startswith("-- migrate:up\n"), name
        assert "lock_timeout" in text, f"{name} could block a running system for ever"
        assert "\n-- migrate:down\n" in text, f"{name}: dbmate asks for the block even when it is empty"
