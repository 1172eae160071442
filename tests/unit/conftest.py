"""What several unit tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories import Story


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """An empty history that ends up in a file of its own."""
    story = Story(tmp_path / "history.jsonl")
    yield story
    story.record.close()
