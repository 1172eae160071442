"""Reference client of protocol version 1."""
