"""Search in the messages of the caller's groups."""
