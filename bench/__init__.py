"""Load generator, scenarios and the history checker. Not part of the server; see docs/performance.md."""
