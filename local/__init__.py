"""What runs things on one machine for development: used by tests and benchmarks, never by the server."""
