"""Fetch and prepare Kafka, once, so that no test waits for it."""

import sys

from app.errors import ConfigError
from local.kafka.cache import archive

try:
    archive()
except ConfigError as error:
    # Not a failure here: the tests that need it say whether it is one.
    print(f"magpie: no Kafka for tests: {error}", file=sys.stderr)  # noqa: T201 - the command line
